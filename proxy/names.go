package proxy

// The headers that only proxies set. None of them is taken from a caller or an
// application.
const (
	// HeaderPrefix begins the name of each.
	HeaderPrefix = "x-signet-"
	// HeaderDecisionID has the id by which `signet explain` finds a denial.
	HeaderDecisionID = "x-signet-decision-id"
	// HeaderDenied has the cause or the class of a denial.
	HeaderDenied = "x-signet-denied"
	// HeaderNotServed is there where the application did not get the request.
	HeaderNotServed = "x-signet-not-served"
)

// HeaderByGateway marks what a gateway passes on, for the proxy behind it: it is not what the
// gateway asks by itself, such as whether an endpoint is healthy. Anybody may say it of himself,
// and has the less for it; a proxy takes it away before its application.
const HeaderByGateway = "signet-by-gateway"

// GRPCHealthCheck is the path of the one call of grpc.health.v1 that a client's proxy
// makes to check a server, which authorization lets it where that is declared.
const GRPCHealthCheck = "/grpc.health.v1.Health/Check"

// DecisionIDField is the field of the answer about a connection that has its id, for the
// proxy's access log.
const DecisionIDField = "decision_id"

// PolicyRevisionKey is the context extension of a route that carries the policy
// revision which it belongs to: xds writes it, authz reads it.
const PolicyRevisionKey = "signet.policy_revision"

// EgressClusterPrefix begins the name of every cluster of another virtual node, as App Mesh
// wrote it; then come the mesh, the node, the protocol and the port.
const EgressClusterPrefix = "cds_egress_"
