package xds

import (
	"strconv"

	"signet.example/proxy"
)

// authzCluster is the agent's ext_authz socket.
const authzCluster = "signet_authz"

// wayoutCluster is the agent's socket that decides who may call out.
const wayoutCluster = "signet_wayout"

// protocol is the only one that this version translates; mesh.Unsupported
// refuses the others by field.
const protocol = "http"

// The names are App Mesh's (AM-resources).

func port(p uint32) string { return strconv.FormatUint(uint64(p), 10) }

func ingressListenerName(bind string, p uint32) string { return "lds_ingress_" + bind + "_" + port(p) }

const egressSocketRoutes = "rds_egress_" + protocol + "_unix"

func ingressRouteName(p uint32) string { return "rds_ingress_" + protocol + "_" + port(p) }

func egressRouteName(p uint32) string { return "rds_egress_" + protocol + "_" + port(p) }

func ingressClusterName(n proxy.Ref, p uint32) string {
	return "cds_ingress_" + n.Mesh + "_" + n.Name + "_" + protocol + "_" + port(p)
}

func egressClusterName(n proxy.Ref, p uint32) string {
	return "cds_egress_" + n.Mesh + "_" + n.Name + "_" + protocol + "_" + port(p)
}
