package xds

import (
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	connauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/ext_authz/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/mesh"
	"signet.example/proxy"
)

// Connections that are asked about, and carried as bytes. Left to itself Envoy connects
// upstream as soon as it accepts, long before a filter is asked at the first byte: who is
// denied would read what a server says first. So nothing is opened before the client's
// first bytes, which is when the agent is asked, in both directions; a server that speaks
// first is not served (docs/decisions/057, 058).

const (
	tcpFilter             = "envoy.filters.network.tcp_proxy"
	connectionAuthzFilter = "envoy.filters.network.ext_authz"
	// earlyBytes is how much of a connection is kept while it is decided and made.
	earlyBytes = 16 << 10
)

// connection carries bytes to clusters, of which there is at least one, once the filters
// before it have let it. Of longest 0 there is no bound.
func (b *builder) connection(statPrefix string, to []weighted, idle, longest time.Duration, logs []*accesslogv3.AccessLog) *listenerv3.Filter {
	p := &tcpv3.TcpProxy{
		StatPrefix:          statPrefix,
		IdleTimeout:         duration(idle),
		UpstreamConnectMode: tcpv3.UpstreamConnectMode_ON_DOWNSTREAM_DATA, // stated: the one field that must never change
		MaxEarlyDataBytes:   wrapperspb.UInt32(earlyBytes),
		AccessLog:           logs,
	}
	if longest != 0 {
		p.MaxDownstreamConnectionDuration = duration(longest)
		// So that they do not all come again at once.
		p.MaxDownstreamConnectionDurationJitterPercentage = &typev3.Percent{Value: 10}
	}
	if len(to) == 1 {
		p.ClusterSpecifier = &tcpv3.TcpProxy_Cluster{Cluster: to[0].cluster}
	} else {
		all := &tcpv3.TcpProxy_WeightedCluster{}
		for _, w := range to {
			all.Clusters = append(all.Clusters, &tcpv3.TcpProxy_WeightedCluster_ClusterWeight{Name: w.cluster, Weight: w.weight})
		}
		p.ClusterSpecifier = &tcpv3.TcpProxy_WeightedClusters{WeightedClusters: all}
	}
	return &listenerv3.Filter{Name: tcpFilter, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: b.any(p)}}
}

// weighted is a cluster with its share, which is not 0.
type weighted struct {
	cluster string
	weight  uint32
}

// inboundConnections are the filters of an inbound listener behind TLS: ask, and carry.
func (b *builder) inboundConnections(statPrefix string, l mesh.Listener, c callers) []*listenerv3.Filter {
	ask := connectionAuthz("authz", authzCluster)
	// The agent looks at what Envoy does not of the caller's certificate (020).
	ask.IncludePeerCertificate = !c.foreign()
	ask.GetGrpcService().InitialMetadata = c.metadata()
	to := []weighted{{ingressClusterName(b.node.Ref, l), 1}}
	return []*listenerv3.Filter{
		asks(b.any(ask)),
		b.connection(statPrefix, to, l.Timeout.Idle, b.life.connection, append(b.declaredLogs(), b.undecided(port(l.Port))...)),
	}
}

// connectionAuthz asks once for a connection, and closes it whenever there is no answer.
func connectionAuthz(statPrefix, cluster string) *connauthzv3.ExtAuthz {
	return &connauthzv3.ExtAuthz{
		StatPrefix:          statPrefix,
		TransportApiVersion: corev3.ApiVersion_V3,
		GrpcService: &corev3.GrpcService{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: cluster}},
			Timeout:         duration(proxy.AnswerWithin),
		},
		FailureModeAllow: false, // stated: the one field that must never change
	}
}

func asks(ask *anypb.Any) *listenerv3.Filter {
	return &listenerv3.Filter{Name: connectionAuthzFilter, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: ask}}
}
