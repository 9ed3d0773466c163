package xds

import (
	"strconv"

	"signet.example/mesh"
	"signet.example/proxy"
)

// authzCluster is the agent's ext_authz socket.
const authzCluster = "signet_authz"

// wayoutCluster is the agent's socket that decides who may call out.
const wayoutCluster = "signet_wayout"

// The names are App Mesh's (AM-resources).

func port(p uint32) string { return strconv.FormatUint(uint64(p), 10) }

func ingressListenerName(bind string, p uint32) string { return "lds_ingress_" + bind + "_" + port(p) }

const egressSocketRoutes = "rds_egress_" + mesh.ProtocolHTTP + "_unix"

func ingressRouteName(l mesh.Listener) string {
	return "rds_ingress_" + l.Protocol + "_" + port(l.Port)
}

func egressRouteName(p uint32) string { return "rds_egress_" + mesh.ProtocolHTTP + "_" + port(p) }

func ingressClusterName(n proxy.Ref, l mesh.Listener) string {
	return "cds_ingress_" + n.Mesh + "_" + n.Name + "_" + l.Protocol + "_" + port(l.Port)
}

func egressClusterName(n proxy.Ref, l mesh.Listener) string {
	return proxy.EgressClusterPrefix + n.Mesh + "_" + n.Name + "_" + l.Protocol + "_" + port(l.Port)
}
