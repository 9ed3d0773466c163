package main

// types are what is written, in this order. The names of fields follow from the model's.
var types = []goType{
	{
		name: "Duration", of: []string{"Duration"},
		doc: "Duration is App Mesh's pair of unit and value. The upper bound is ours: a hundred years fit into every proxy's and Go's idea of a duration.",
		fields: map[string]field{
			"unit":  {words: "required", why: "the CRD requires it"},
			"value": {words: "required max=3153600000", why: "the CRD requires it; a hundred years fit into every proxy's and Go's idea of a duration"},
		},
	},
	{
		name: "PortMapping", of: []string{"PortMapping"},
		doc: "PortMapping is one port that a listener accepts, and what is spoken there.",
	},
	{
		name: "EgressFilter", of: []string{"EgressFilter"},
		doc: "EgressFilter is what happens to traffic to destinations outside the mesh.",
	},
	{
		name: "MeshServiceDiscovery", of: []string{"MeshServiceDiscovery"},
		doc: "MeshServiceDiscovery is the address family of the whole mesh. The CRD knows two of the API's four preferences; a superset is accepted, so that a mesh written against the API can be written here.",
	},
	{
		name: "VirtualNodeListener", of: []string{"Listener"},
		doc:   "VirtualNodeListener is one inbound port of a virtual node.",
		order: "portMapping healthCheck timeout tls connectionPool outlierDetection",
	},
	{
		name: "HealthCheckPolicy", of: []string{"HealthCheckPolicy"},
		doc:   "HealthCheckPolicy is how clients probe each endpoint of a listener.",
		order: "healthyThreshold intervalMillis timeoutMillis unhealthyThreshold path port protocol",
		fields: map[string]field{
			"path": {words: "pattern=path", why: "a path is compared with the normalised one (D20): any other never matches", doc: "Path is used by http and http2 only."},
			"port": {doc: "Port defaults to the listener's (AM-healthcheck)."},
		},
	},
	{
		name: "ListenerTimeout", of: []string{"ListenerTimeout"},
		doc: "ListenerTimeout has exactly one member, that of the listener's protocol.",
	},
	{
		name: "HTTPTimeout", of: []string{"GrpcTimeout", "HttpTimeout"},
		doc: "HTTPTimeout bounds a request and a silent stream; gRPC's has the same form.",
	},
	{
		name: "TCPTimeout", of: []string{"TcpTimeout"},
		doc: "TCPTimeout bounds a silent connection.",
	},
	{
		name: "VirtualNodeConnectionPool", of: []string{"VirtualNodeConnectionPool"},
		doc: "VirtualNodeConnectionPool has exactly one member, that of the listener's protocol.",
	},
	{
		name: "RequestPool", of: []string{"VirtualNodeGrpcConnectionPool", "VirtualNodeHttp2ConnectionPool", "VirtualGatewayGrpcConnectionPool", "VirtualGatewayHttp2ConnectionPool"},
		doc: "RequestPool bounds the requests of a multiplexed protocol.",
	},
	{
		name: "HTTPConnectionPool", of: []string{"VirtualNodeHttpConnectionPool", "VirtualGatewayHttpConnectionPool"},
		doc: "HTTPConnectionPool bounds HTTP/1.1.",
	},
	{
		name: "TCPConnectionPool", of: []string{"VirtualNodeTcpConnectionPool"},
		doc: "TCPConnectionPool bounds connections.",
	},
	{
		name: "OutlierDetection", of: []string{"OutlierDetection"},
		doc:   "OutlierDetection ejects endpoints that fail.",
		order: "maxServerErrors interval baseEjectionDuration maxEjectionPercent",
	},
	{
		name: "ServiceDiscovery", of: []string{"ServiceDiscovery"},
		doc: "ServiceDiscovery has exactly one member.",
	},
	{
		name: "AWSCloudMapServiceDiscovery", of: []string{"AwsCloudMapServiceDiscovery"},
		doc:   "AWSCloudMapServiceDiscovery finds endpoints in AWS Cloud Map.",
		order: "namespaceName serviceName attributes ipPreference",
	},
	{
		name: "AWSCloudMapInstanceAttribute", of: []string{"AwsCloudMapInstanceAttribute"},
		doc: "AWSCloudMapInstanceAttribute selects instances.",
	},
	{
		name: "DNSServiceDiscovery", of: []string{"DnsServiceDiscovery"},
		doc: "DNSServiceDiscovery finds endpoints by name.",
		fields: map[string]field{
			"hostname":     {words: "len=1..253", why: "RFC 1035 2.3.4"},
			"responseType": {doc: "ResponseType defaults to LOADBALANCER (AM-dns)."},
		},
	},
	{
		name: "BackendDefaults", of: []string{"BackendDefaults", "VirtualGatewayBackendDefaults"},
		doc: "BackendDefaults hold for each backend that has no client policy of its own.",
	},
	{
		name: "Logging", of: []string{"Logging", "VirtualGatewayLogging"},
		doc: "Logging is where the proxy logs.",
	},
	{
		name: "AccessLog", of: []string{"AccessLog", "VirtualGatewayAccessLog"},
		doc: "AccessLog has exactly one member, and only one exists.",
	},
	{
		name: "FileAccessLog", of: []string{"FileAccessLog", "VirtualGatewayFileAccessLog"},
		doc: "FileAccessLog is a path, usually /dev/stdout.",
	},
	{
		name: "LoggingFormat", of: []string{"LoggingFormat"},
		doc: "LoggingFormat has exactly one member.",
		fields: map[string]field{
			"json": {words: "items=1..", why: "an empty list would match nothing"},
		},
	},
	{
		name: "JSONFormatRef", of: []string{"JsonFormatRef"},
		doc: "JSONFormatRef is one member of a JSON access log.",
	},
	{
		name: "ListenerTLS", of: []string{"ListenerTls"},
		doc:   "ListenerTLS is how a listener presents itself and whom it asks for a certificate. A listener without it is managed (D17).",
		order: "mode certificate validation",
	},
	{
		name: "ListenerTLSCertificate", of: []string{"ListenerTlsCertificate", "VirtualGatewayListenerTlsCertificate"},
		doc: "ListenerTLSCertificate has exactly one member.",
	},
	{
		name: "ListenerTLSValidation", of: []string{"ListenerTlsValidationContext"},
		doc:   "ListenerTLSValidation is what a listener demands of client certificates.",
		order: "trust subjectAlternativeNames",
	},
	{
		name: "ListenerTLSTrust", of: []string{"ListenerTlsValidationContextTrust"},
		doc: "ListenerTLSTrust has exactly one member; the API gives listeners no acm.",
	},
	{
		name: "ClientPolicy", of: []string{"ClientPolicy", "VirtualGatewayClientPolicy"},
		doc: "ClientPolicy is how a client speaks to a backend.",
	},
	{
		name: "ClientPolicyTLS", of: []string{"ClientPolicyTls", "VirtualGatewayClientPolicyTls"},
		doc:   "ClientPolicyTLS is how a client validates a backend, and what it presents.",
		order: "enforce ports certificate validation",
		fields: map[string]field{
			"enforce": {doc: "Enforce defaults to true (AM-clientpolicy)."},
		},
	},
	{
		name: "ClientTLSCertificate", of: []string{"ClientTlsCertificate", "VirtualGatewayClientTlsCertificate"},
		doc: "ClientTLSCertificate has exactly one member.",
	},
	{
		name: "TLSValidation", of: []string{"TlsValidationContext", "VirtualGatewayTlsValidationContext"},
		doc:   "TLSValidation is what a client demands of a server's certificate. The CRD of VirtualGateway uses it for listeners as well.",
		order: "trust subjectAlternativeNames",
	},
	{
		name: "TLSTrust", of: []string{"TlsValidationContextTrust", "VirtualGatewayTlsValidationContextTrust"},
		doc: "TLSTrust has exactly one member.",
	},
	{
		name: "TLSFileCertificate", of: []string{"ListenerTlsFileCertificate", "VirtualGatewayListenerTlsFileCertificate"},
		doc: "TLSFileCertificate is a certificate and key on the proxy's file system.",
	},
	{
		name: "TLSSDSCertificate", of: []string{"ListenerTlsSdsCertificate", "VirtualGatewayListenerTlsSdsCertificate"},
		doc: "TLSSDSCertificate is a certificate served by name; here a SPIFFE ID.",
		fields: map[string]field{
			"secretName": {words: "len=1..", why: "an empty one names nothing"},
		},
	},
	{
		name: "TLSFileTrust", of: []string{"TlsValidationContextFileTrust", "VirtualGatewayTlsValidationContextFileTrust"},
		doc: "TLSFileTrust is a file of authorities on the proxy's file system.",
	},
	{
		name: "TLSSDSTrust", of: []string{"TlsValidationContextSdsTrust", "VirtualGatewayTlsValidationContextSdsTrust"},
		doc: "TLSSDSTrust is a bundle served by name; here a trust domain's ID.",
		fields: map[string]field{
			"secretName": {words: "len=1..", why: "an empty one names nothing"},
		},
	},
	{
		name: "SubjectAlternativeNames", of: []string{"SubjectAlternativeNames"},
		doc: "SubjectAlternativeNames lists who the other side may be.",
	},
	{
		name: "SubjectAlternativeNameMatchers", of: []string{"SubjectAlternativeNameMatchers"},
		doc: "SubjectAlternativeNameMatchers match exactly; the API has nothing looser.",
		fields: map[string]field{
			"exact": {words: "items=1..", why: "an empty list would match nothing"},
		},
	},
	{
		name: "VirtualServiceProvider", of: []string{"VirtualServiceProvider"},
		doc: "VirtualServiceProvider has exactly one member.",
	},
	{
		name: "VirtualRouterListener", of: []string{"VirtualRouterListener"},
		doc: "VirtualRouterListener is one port that the router's callers may use.",
	},
	{
		name: "HTTPRoute", of: []string{"HttpRoute"},
		doc:   "HTTPRoute is a route of HTTP/1.1 or HTTP/2.",
		order: "match action retryPolicy timeout",
	},
	{
		name: "HTTPRouteMatch", of: []string{"HttpRouteMatch"},
		doc: "HTTPRouteMatch is which requests a route takes: either prefix or path, and all of the others that are given.",
		fields: map[string]field{
			"prefix": {words: "pattern=path", why: "a path is compared with the normalised one (D20): any other never matches"},
		},
	},
	{
		name: "HTTPRouteHeader", of: []string{"HttpRouteHeader", "GrpcRouteMetadata", "HttpGatewayRouteHeader", "GrpcGatewayRouteMetadata"},
		doc: "HTTPRouteHeader is one condition on a header; without Match: it is present.",
		fields: map[string]field{
			"name": {words: "pattern=token", why: "RFC 9110 5.6.2: no request has another one"},
		},
	},
	{
		name: "HeaderMatchMethod", of: []string{"HeaderMatchMethod", "GrpcMetadataMatchMethod", "GrpcRouteMetadataMatchMethod"},
		doc: "HeaderMatchMethod has exactly one member.",
	},
	{
		name: "MatchRange", of: []string{"MatchRange"},
		doc:   "MatchRange is a range of integers, End exclusive.",
		order: "start end",
	},
	{
		name: "HTTPPathMatch", of: []string{"HttpPathMatch"},
		doc: "HTTPPathMatch has exactly one member.",
		fields: map[string]field{
			"exact": {words: "one pattern=path", why: "the API says \"specify one\" in prose only; a path is compared with the normalised one (D20): any other never matches"},
			"regex": {words: "one", why: "the API says \"specify one\" in prose only"},
		},
	},
	{
		name: "QueryParameter", of: []string{"HttpQueryParameter"},
		doc: "QueryParameter is one condition on a query parameter.",
		fields: map[string]field{
			"name": {words: "len=1..", why: "an empty one names nothing"},
		},
	},
	{
		name: "QueryParameterMatch", of: []string{"QueryParameterMatch"},
		doc: "QueryParameterMatch compares a query parameter.",
	},
	{
		name: "RouteAction", of: []string{"TcpRouteAction", "GrpcRouteAction", "HttpRouteAction"},
		doc: "RouteAction is where a route's requests go.",
	},
	{
		name: "HTTPRetryPolicy", of: []string{"HttpRetryPolicy"},
		doc:   "HTTPRetryPolicy has at least one list of events.",
		order: "httpRetryEvents tcpRetryEvents maxRetries perRetryTimeout",
		fields: map[string]field{
			"httpRetryEvents": {words: "each.enum=server-error,gateway-error,client-error,stream-error", why: "the API lists them in prose only"},
		},
	},
	{
		name: "GRPCRoute", of: []string{"GrpcRoute"},
		doc:   "GRPCRoute is a route of gRPC.",
		order: "match action retryPolicy timeout",
	},
	{
		name: "GRPCRouteMatch", of: []string{"GrpcRouteMatch"},
		doc: "GRPCRouteMatch is which calls a route takes; a method needs its service.",
	},
	{
		name: "GRPCRetryPolicy", of: []string{"GrpcRetryPolicy"},
		doc:   "GRPCRetryPolicy has at least one list of events.",
		order: "grpcRetryEvents httpRetryEvents tcpRetryEvents maxRetries perRetryTimeout",
		fields: map[string]field{
			"httpRetryEvents": {words: "each.enum=server-error,gateway-error,client-error,stream-error", why: "the API lists them in prose only"},
		},
	},
	{
		name: "TCPRoute", of: []string{"TcpRoute"},
		doc:   "TCPRoute is a route of bytes.",
		order: "match action timeout",
	},
	{
		name: "TCPRouteMatch", of: []string{"TcpRouteMatch"},
		doc: "TCPRouteMatch is which connections a route takes.",
	},
	{
		name: "VirtualGatewayListener", of: []string{"VirtualGatewayListener"},
		doc:   "VirtualGatewayListener is one port of a gateway.",
		order: "portMapping healthCheck tls connectionPool",
	},
	{
		name: "GatewayPortMapping", of: []string{"VirtualGatewayPortMapping"},
		doc: "GatewayPortMapping is PortMapping without tcp.",
	},
	{
		name: "VirtualGatewayConnectionPool", of: []string{"VirtualGatewayConnectionPool"},
		doc: "VirtualGatewayConnectionPool has exactly one member, that of the listener's protocol.",
	},
	{
		name: "HTTPGatewayRoute", of: []string{"HttpGatewayRoute"},
		doc:   "HTTPGatewayRoute is a gateway route of HTTP/1.1 or HTTP/2.",
		order: "match action",
	},
	{
		name: "HTTPGatewayRouteMatch", of: []string{"HttpGatewayRouteMatch"},
		doc: "HTTPGatewayRouteMatch is which requests a gateway route takes.",
		fields: map[string]field{
			"prefix": {words: "pattern=path", why: "a path is compared with the normalised one (D20): any other never matches"},
		},
	},
	{
		name: "HostnameMatch", of: []string{"GatewayRouteHostnameMatch"},
		doc: "HostnameMatch has exactly one member.",
		fields: map[string]field{
			"exact":  {words: "one", why: "the API says \"specify one\" in prose only"},
			"suffix": {words: "one", why: "the API says \"specify one\" in prose only"},
		},
	},
	{
		name: "HTTPGatewayRouteAction", of: []string{"HttpGatewayRouteAction"},
		doc: "HTTPGatewayRouteAction is where the requests go, and as what.",
	},
	{
		name: "HTTPGatewayRouteRewrite", of: []string{"HttpGatewayRouteRewrite"},
		doc: "HTTPGatewayRouteRewrite changes what the target sees.",
	},
	{
		name: "HostnameRewrite", of: []string{"GatewayRouteHostnameRewrite"},
		doc: "HostnameRewrite switches the rewrite to the virtual service's name.",
	},
	{
		name: "PathRewrite", of: []string{"HttpGatewayRoutePathRewrite"},
		doc: "PathRewrite replaces the path.",
		fields: map[string]field{
			"exact": {words: "pattern=path", why: "a path is compared with the normalised one (D20): any other never matches"},
		},
	},
	{
		name: "PrefixRewrite", of: []string{"HttpGatewayRoutePrefixRewrite"},
		doc: "PrefixRewrite replaces the matched prefix: by default, or by a value.",
		fields: map[string]field{
			"defaultPrefix": {words: "one", why: "the API says \"specify one\" in prose only"},
			"value":         {words: "one", why: "the API says \"specify one\" in prose only"},
		},
	},
	{
		name: "GatewayRouteTarget", of: []string{"GatewayRouteTarget"},
		doc: "GatewayRouteTarget is a virtual service and, where it has several, its port.",
	},
	{
		name: "GRPCGatewayRoute", of: []string{"GrpcGatewayRoute"},
		doc:   "GRPCGatewayRoute is a gateway route of gRPC.",
		order: "match action",
	},
	{
		name: "GRPCGatewayRouteMatch", of: []string{"GrpcGatewayRouteMatch"},
		doc: "GRPCGatewayRouteMatch is which calls a gateway route takes.",
	},
	{
		name: "GRPCGatewayRouteAction", of: []string{"GrpcGatewayRouteAction"},
		doc: "GRPCGatewayRouteAction is where the calls go, and as what.",
	},
	{
		name: "GRPCGatewayRouteRewrite", of: []string{"GrpcGatewayRouteRewrite"},
		doc: "GRPCGatewayRouteRewrite changes what the target sees.",
	},
}

// hand are the structures that the CRD has in another form, each with the name of its
// type, which mesh has by hand. The test of this folder compares them with the model.
var hand = map[string]string{
	"MeshSpec":                                        "MeshSpec",
	"VirtualNodeSpec":                                 "VirtualNodeSpec",
	"VirtualServiceSpec":                              "VirtualServiceSpec",
	"VirtualRouterSpec":                               "VirtualRouterSpec",
	"RouteSpec":                                       "RouteSpec",
	"VirtualGatewaySpec":                              "VirtualGatewaySpec",
	"GatewayRouteSpec":                                "GatewayRouteSpec",
	"Backend":                                         "Backend",
	"VirtualServiceBackend":                           "VirtualServiceBackend",
	"VirtualNodeServiceProvider":                      "VirtualNodeProvider",
	"VirtualRouterServiceProvider":                    "VirtualRouterProvider",
	"WeightedTarget":                                  "WeightedTargetSpec",
	"GatewayRouteVirtualService":                      "GatewayRouteVirtualService",
	"ListenerTlsAcmCertificate":                       "TLSACMCertificate",
	"VirtualGatewayListenerTlsAcmCertificate":         "TLSACMCertificate",
	"TlsValidationContextAcmTrust":                    "TLSACMTrust",
	"VirtualGatewayTlsValidationContextAcmTrust":      "TLSACMTrust",
	"VirtualGatewayHealthCheckPolicy":                 "GatewayHealthCheckPolicy",
	"VirtualGatewayListenerTls":                       "GatewayListenerTLS",
	"VirtualGatewayListenerTlsValidationContext":      "TLSValidation",
	"VirtualGatewayListenerTlsValidationContextTrust": "TLSTrust",
}

// patterns are the model's, by their names in internal/manifest. In the class !-~ the
// model means any visible ASCII character.
var patterns = map[string]string{
	`^[a-zA-Z0-9!-~]+$`: "cloudMapKey",
	`^([a-zA-Z0-9!-~][  a-zA-Z0-9!-~]*){0,1}[a-zA-Z0-9!-~]{0,1}$`: "cloudMapValue",
}
