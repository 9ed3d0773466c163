package ads

import "slices"

// Type URLs of the resources that Envoy asks for.
const (
	ClusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	ListenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	SecretType   = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	RuntimeType  = "type.googleapis.com/envoy.service.runtime.v3.Runtime"
)

// Type URLs of Signet's own resources, which agents ask for.
const (
	EntryType     = "type.googleapis.com/signet.v1alpha1.Entry"
	BundleType    = "type.googleapis.com/signet.v1alpha1.Bundle"
	PolicyType    = "type.googleapis.com/signet.v1alpha1.PolicyRevision"
	JWTIssuerType = "type.googleapis.com/signet.v1alpha1.JWTIssuer"
	BanType       = "type.googleapis.com/signet.v1alpha1.Ban"
	// ViewType closes a complete state in Relay mode: it is always sent last.
	ViewType = "type.googleapis.com/signet.v1alpha1.View"
)

// order is the order of types within one pass over a stream: what is referred
// to before what refers to it, and the View after all it speaks of.
var order = []string{
	SecretType, ClusterType, EndpointType, ListenerType, RouteType, RuntimeType,
	BundleType, EntryType, JWTIssuerType, BanType, PolicyType,
}

// rank places a type in a pass: the known ones as in order, then others, then ViewType.
func rank(typeURL string) int {
	for i, t := range order {
		if t == typeURL {
			return i
		}
	}
	if typeURL == ViewType {
		return len(order) + 1
	}
	return len(order)
}

// ours is our own text of a type that is known: a stream need not keep that of its client.
func ours(typeURL string) string {
	if i := slices.Index(order, typeURL); i >= 0 {
		return order[i]
	}
	return typeURL
}

// known reports whether a type may be asked for even while no set holds it.
func known(typeURL string) bool { return rank(typeURL) != len(order) }

// isFull reports whether the state-of-the-world responses of a type hold every
// resource, so that absence means deletion; else it means "unchanged".
func isFull(typeURL string) bool { return typeURL == ListenerType || typeURL == ClusterType }

// isReferred reports whether listeners and routes refer to a type: it is sent before
// those and withdrawn after them.
func isReferred(typeURL string) bool {
	return typeURL == ClusterType || typeURL == EndpointType || typeURL == SecretType
}

// isReferring reports whether a type refers to clusters.
func isReferring(typeURL string) bool { return typeURL == ListenerType || typeURL == RouteType }
