package views

import (
	"context"
	"iter"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/internal/ordered"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/awaited"
	"signet.example/server/cloudmap"
	"signet.example/server/fleet"
	"signet.example/server/kinds"
)

// Source is what views are made of. It is asked under their lock, and from many
// goroutines; what it returns is immutable.
type Source interface {
	// Look is one consistent look at everything. No later one is older.
	Look() Look
	// Group is the group of an agent that is to be served, an error for another.
	Group(agent string) (string, error)
}

// Look is everything that views are made of, at one moment.
type Look struct {
	Model     Model
	Endpoints *fleet.Registered
	Awaited   *awaited.Nodes    // the virtual nodes whose Binding does not count yet
	Found     *cloudmap.Answers // of virtual nodes of which nothing is registered
	Policy    Policy
	Roots     *api.Bundle
	Issuers   []*api.JWTIssuer
	Roster    uint64   // another one after each change of who joined, is banned, or in which group
	Banned    []string // ids of agents, sorted
}

// Policy is what is decided by.
type Policy struct {
	Current *api.PolicyRevision   // agents have it before routes carry its stamp
	Keep    []*api.PolicyRevision // what agents hold
	Stamp   string                // the revision that routes carry
}

// Model is what is stored. Two are == only if they are the same.
type Model interface {
	Graph() *mesh.Graph
	// Objects are those that the graph and the grants were made of.
	Objects() ordered.Map[kinds.Key, *kinds.Object]
	// Managed reports whether any agent may host the virtual node, so that calls to it
	// are mTLS even while none of its endpoints is registered.
	Managed(node proxy.Ref) bool
	// Rebound lists the virtual nodes whose Bindings are not those of another Model.
	Rebound(from Model) iter.Seq[proxy.Ref]
	// Grants are ==, for two models, where no group is granted anything else.
	Grants() Grants
}

// Grants is what agents of each group may be.
type Grants interface {
	// Of lists what agents of a group are told that they may be, and a value that is ==
	// to another one of the group where that is the same.
	Of(group string) (version any, resources iter.Seq[*ads.Resource])
}

// Access is who follows views.
type Access interface {
	// Follower is who asks on a stream, an error for one that was not let in.
	Follower(ctx context.Context) (Follower, error)
	// Review ends the streams of those that may not follow any more what they were given.
	// It is called before views are made again, and not under their lock.
	Review()
}

// Follower is the agent of one stream.
type Follower interface {
	Agent() string // its id
	ID() spiffeid.ID
	// Follow gives the stream the view of a virtual node, or refuses it; what it was
	// given is reviewed from before the question whether it may have it.
	Follow(node proxy.Ref) error
	// LogsTo notes the folder that the agent's operator named for access logs.
	LogsTo(dir string)
}

func (in Look) nodeInputs() nodeInputs {
	return nodeInputs{model: in.Model, endpoints: in.Endpoints, awaited: in.Awaited, found: in.Found, stamp: in.Policy.Stamp}
}
