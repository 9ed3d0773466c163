package xds

import (
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/mesh"
	"signet.example/proxy"
)

// DefaultSVIDLifetime is used where an Input has none (D15).
const DefaultSVIDLifetime = time.Hour

// Endpoint is one address of a virtual node, that an agent registered or that was found elsewhere.
type Endpoint struct {
	Address string
	Port    uint32
	Healthy bool
}

// Input is everything that a view depends on, except for whose view it is.
type Input struct {
	// Graph is the mesh with its references resolved.
	Graph *mesh.Graph
	// TrustDomain is the one of every identity that the mesh gives.
	TrustDomain spiffeid.TrustDomain
	// Endpoints returns the registered endpoints of a node's port, nil when none
	// is registered. The order does not matter. A nil func means none anywhere.
	Endpoints func(node proxy.Ref, port uint32) []Endpoint
	// Outside reports whether a node's endpoints are none that agents registered, but were
	// looked for elsewhere: who is there is as little known as behind a name. A nil func
	// means of none.
	Outside func(node proxy.Ref) bool
	// Managed reports whether an agent may host the node (a binding names it). Such
	// a node is called by mTLS even while no endpoint of it is registered: else
	// the loss of its last registration would turn calls into plaintext. A nil
	// func means that only nodes with registered endpoints are managed.
	Managed func(node proxy.Ref) bool
	// Awaited reports whether a managed node is called as if it were not, since it was called so before
	// and none of its proxies has been ready yet. A nil func means that none is.
	Awaited func(node proxy.Ref) bool
	// Strict reports whether a managed listener was hardened, so that it takes no
	// plaintext (D17). A nil func means that none was.
	Strict func(node proxy.Ref) bool
	// RequirePostQuantum reports whether proxies of a mesh refuse a TLS connection
	// without a post-quantum key exchange. A nil func means that none does.
	RequirePostQuantum func(mesh string) bool
	// PolicyRevision is stamped on what the proxy asks the agent
	// (D3). An agent that does not know it denies.
	PolicyRevision string
	// SVIDLifetime bounds every connection; 0 means DefaultSVIDLifetime.
	SVIDLifetime time.Duration
	// Memory, if set, is of translations before this one.
	Memory *Memory
	// Past, if set, is of views before this one, most of which are made again.
	Past *Past
}
