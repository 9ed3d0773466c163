package envoy

import (
	"cmp"
	"fmt"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	heapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/internal/openfiles"
	"signet.example/proxy"
)

const (
	// xdsCluster is the way from Envoy to the agent; the only cluster that does
	// not come by it.
	xdsCluster = "signet_xds"

	// A supervised proxy refuses connections and requests before it is killed for
	// its memory or has no files left. Both are far above what one virtual node needs.
	proxyHeap        = 1 << 30
	proxyConnections = 2 * proxy.DefaultConnections
	// proxyFiles are kept for what is no connection of a caller.
	proxyFiles = 512
)

// mostConnections is how many connections a proxy takes at its ways in, of callers, and
// how many at its way out, where any user of the host may connect: neither takes what is
// the other's. Each may need a second file, for the connection that its calls go on by.
func mostConnections(files uint64) (in, out int64) {
	kept := min(proxyFiles, files/2)
	all := int64(min(proxyConnections, (files-kept)/2))
	return all - all/2, all / 2
}

// Connections is how many connections the ways in of a proxy take on this host, as a Shape has it.
func Connections() uint32 {
	_, files := openfiles.Limit()
	if in, _ := mostConnections(files); in != proxy.DefaultConnections {
		return uint32(max(in, 1)) //nolint:gosec // at most half of proxyConnections
	}
	return 0
}

// bootstrap is what an Envoy of p starts with: everything except the way to the
// agent comes over ADS. adminMode is the mode of its admin socket.
func bootstrap(p Proxy, xdsSocket string, adminMode uint32, heap uint64) ([]byte, error) {
	b := &bootstrapv3.Bootstrap{
		Node:  &corev3.Node{Id: p.Ref.String(), Cluster: p.Ref.Name, Metadata: p.Shape.Metadata()},
		Admin: &bootstrapv3.Admin{Address: pipe(p.Admin, adminMode)},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			AdsConfig: &corev3.ApiConfigSource{
				ApiType: corev3.ApiConfigSource_DELTA_GRPC, TransportApiVersion: corev3.ApiVersion_V3,
				SetNodeOnFirstMessageOnly: true,
				GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
					EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: xdsCluster},
				}}},
			},
			CdsConfig: overADS(),
			LdsConfig: overADS(),
		},
	}
	agent, err := agentCluster(xdsSocket)
	if err != nil {
		return nil, fmt.Errorf("bootstrap of %s: %w", p.Name, err)
	}
	b.StaticResources = &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{agent}}
	_, files := openfiles.Limit() // Envoy raises its own to the most
	in, out := mostConnections(files)
	if p.Shape.Alone { // all of them come in
		in += out
	} else if b.LayeredRuntime, err = limitListener(p.Shape.Egress.Listener(), out); err != nil {
		return nil, fmt.Errorf("bootstrap of %s: %w", p.Name, err)
	}
	if b.OverloadManager, err = overload(in, cmp.Or(heap, proxyHeap)); err != nil {
		return nil, fmt.Errorf("bootstrap of %s: %w", p.Name, err)
	}
	text, err := protojson.MarshalOptions{Multiline: true}.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("bootstrap of %s: %w", p.Name, err)
	}
	return text, nil
}

// limitListener bounds the connections of one listener, those included on which nobody
// has said anything. Above it, Envoy closes what comes.
func limitListener(name string, most int64) (*bootstrapv3.LayeredRuntime, error) {
	limits, err := structpb.NewStruct(map[string]any{limitOf(name): most})
	return &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{
		{Name: "limits", LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: limits}},
		{Name: "admin", LayerSpecifier: &bootstrapv3.RuntimeLayer_AdminLayer_{AdminLayer: &bootstrapv3.RuntimeLayer_AdminLayer{}}}, // as where no layers are named
	}}, err
}

// limitOf is the key of the runtime that bounds a listener's connections.
func limitOf(listener string) string {
	return "envoy.resource_limits.listener." + listener + ".connection_limit"
}

func pipe(path string, mode uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path, Mode: mode}}}
}

func overADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

func agentCluster(xdsSocket string) (*clusterv3.Cluster, error) {
	http2, err := anypb.New(&httpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
						// An agent that hangs is noticed, and the stream opened anew.
						ConnectionKeepalive: &corev3.KeepaliveSettings{
							Interval: durationpb.New(30 * time.Second), Timeout: durationpb.New(10 * time.Second),
						},
					},
				},
			},
		},
	})
	if err != nil {
		return nil, err
	}
	return &clusterv3.Cluster{
		Name:                          xdsCluster,
		ConnectTimeout:                durationpb.New(time.Second),
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: xdsCluster,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: pipe(xdsSocket, 0)}},
			}}}},
		},
	}, nil
}

// overload bounds memory, and the connections of all listeners that have no bound of
// their own.
func overload(mostConnections int64, most uint64) (*overloadv3.OverloadManager, error) {
	monitor := func(name string, config proto.Message) (*overloadv3.ResourceMonitor, error) {
		c, err := anypb.New(config)
		return &overloadv3.ResourceMonitor{
			Name:       "envoy.resource_monitors." + name,
			ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: c},
		}, err
	}
	heap, err := monitor("fixed_heap", &heapv3.FixedHeapConfig{MaxHeapSizeBytes: most})
	if err != nil {
		return nil, err
	}
	connections, err := monitor("global_downstream_max_connections",
		&connectionsv3.DownstreamConnectionsConfig{MaxActiveDownstreamConnections: mostConnections})
	if err != nil {
		return nil, err
	}
	action := func(name string, above float64) *overloadv3.OverloadAction {
		return &overloadv3.OverloadAction{
			Name: "envoy.overload_actions." + name,
			Triggers: []*overloadv3.Trigger{{
				Name:         heap.GetName(),
				TriggerOneof: &overloadv3.Trigger_Threshold{Threshold: &overloadv3.ThresholdTrigger{Value: above}},
			}},
		}
	}
	return &overloadv3.OverloadManager{
		RefreshInterval:  durationpb.New(250 * time.Millisecond),
		ResourceMonitors: []*overloadv3.ResourceMonitor{heap, connections},
		Actions: []*overloadv3.OverloadAction{
			action("shrink_heap", 0.90), action("disable_http_keepalive", 0.92), action("stop_accepting_requests", 0.97),
		},
	}, nil
}
