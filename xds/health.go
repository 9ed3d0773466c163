package xds

import (
	"net"
	"regexp"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/mesh"
)

// callersChecks are the probes that each client sends to each endpoint of a
// listener that declares one. They use the cluster's own transport: by mTLS
// they carry the client's identity, by which authorization lets them in
// (D22).
func callersChecks(n *mesh.VirtualNode, l mesh.Listener) []*corev3.HealthCheck {
	if l.Probe == nil {
		return nil
	}
	return healthChecks(n, l, l.Probe.Protocol)
}

// addOwnChecks adds the same probes to the cluster of the application, which its own proxy
// sends it directly (docs/decisions/074). They are what becomes of a client's on its way
// through this proxy, which speaks the listener's protocol with the application.
//
// With this panic threshold a failing application is still called: it answers for itself,
// and the check never turns a request away.
func addOwnChecks(c *clusterv3.Cluster, n *mesh.VirtualNode, l mesh.Listener) {
	if l.Probe == nil {
		return
	}
	c.HealthChecks = healthChecks(n, l, l.Protocol)
	c.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{Value: 100}}
}

// healthChecks are probes with the declared thresholds and times. Those by requests are sent
// in a protocol that need not be the listener's.
func healthChecks(n *mesh.VirtualNode, l mesh.Listener, protocol string) []*corev3.HealthCheck {
	c := &corev3.HealthCheck{
		Timeout:            duration(l.Probe.Timeout),
		Interval:           duration(l.Probe.Interval),
		HealthyThreshold:   wrapperspb.UInt32(l.Probe.Healthy),
		UnhealthyThreshold: wrapperspb.UInt32(l.Probe.Unhealthy),
		// Envoy would ask once a minute where there is no traffic; the spec says how often.
		NoTrafficInterval: duration(l.Probe.Interval),
	}
	switch l.Probe.Protocol {
	case mesh.ProtocolTCP: // that it takes a connection, with a handshake where there is TLS
		c.HealthChecker = &corev3.HealthCheck_TcpHealthCheck_{TcpHealthCheck: &corev3.HealthCheck_TcpHealthCheck{}}
	case mesh.ProtocolGRPC:
		c.HealthChecker = &corev3.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &corev3.HealthCheck_GrpcHealthCheck{Authority: probeHost(n, l.Port)}}
	default:
		codec := typev3.CodecClientType_HTTP1
		if multiplexed(protocol) {
			codec = typev3.CodecClientType_HTTP2
		}
		if multiplexed(protocol) != multiplexed(l.Protocol) { // the cluster's own offer is another one
			c.TlsOptions = &corev3.HealthCheck_TlsOptions{AlpnProtocols: alpn(protocol)}
		}
		c.HealthChecker = &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: &corev3.HealthCheck_HttpHealthCheck{
			Host:            probeHost(n, l.Port),
			Path:            l.Probe.Path,
			Method:          corev3.RequestMethod_GET,
			CodecClientType: codec,
		}}
	}
	return []*corev3.HealthCheck{c}
}

var aHost = regexp.MustCompile(`^(?:` + hostGrammar + `)$`)

// probeHost is App Mesh's <hostname>:<port> (AM-healthcheck). It must be a host
// that the callee's own grammar accepts, or every endpoint would be unhealthy.
func probeHost(n *mesh.VirtualNode, p uint32) string {
	name := n.Name
	if n.DNS != nil {
		name = strings.TrimSuffix(n.DNS.Hostname, ".")
	}
	if host := net.JoinHostPort(name, port(p)); aHost.MatchString(host) {
		return host
	}
	return "health-check.signet"
}
