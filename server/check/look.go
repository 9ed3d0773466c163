package check

import (
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/api"
	"signet.example/internal/ordered"
	"signet.example/mesh"
	"signet.example/policy"
	"signet.example/proxy"
	"signet.example/server/awaited"
	"signet.example/server/cloudmap"
	"signet.example/server/fleet"
	"signet.example/server/groups"
	"signet.example/server/issuers"
	"signet.example/server/kinds"
	"signet.example/server/policies"
)

// Look is everything that findings are made of, at one moment. Nothing of it is changed.
type Look struct {
	Now, Started time.Time // of the server
	TrustDomain  spiffeid.TrustDomain
	Stored       Model
	Signer       Signer

	Agents    []fleet.Status         // all that joined, by id
	Many      map[string]Count       // of agents that joined by one principal, such as a role of AWS: those that may soon be no more
	Clashes   map[string]fleet.Clash // host keys in two places, by agent
	Refused   []fleet.Conflict
	Awaited   *awaited.Nodes // virtual nodes whose Binding does not count yet
	Endpoints *fleet.Registered
	Found     func(proxy.Ref) bool           // reports whether instances of a virtual node are known that nobody registered
	CloudMap  map[proxy.Ref]cloudmap.Failure // virtual nodes for which AWS Cloud Map does not answer

	Policy  Policy
	Failing map[string]issuers.Failure // by the key of the issuer
	Losing  map[string][]error         // keys of its set that are not used, by JWTIssuer
	Orphans []*api.LogRecord           // reserved, and never answered

	Open     []Proxy     // whose outbound listeners other hosts reach
	Unlogged []proxy.Ref // virtual nodes of proxies whose host does not take their access log

	Ends          func(method string) bool // whether agents that joined by it are those of tasks, which end
	ByCertificate bool                     // whether hosts can join by a certificate of their own
	PostQuantum   []string                 // meshes that are to accept no other key exchange
}

// Count is how many there are, and how many there may be.
type Count struct {
	Is, Most int
	Key      string // of the server's configuration, which says the most
}

// Model is what is stored. It is immutable.
type Model interface {
	Graph() *mesh.Graph
	Objects() ordered.Map[kinds.Key, *kinds.Object]
	Groups() groups.Groups
}

// hasSource reports whether there is any PolicySource.
func hasSource(m Model) bool {
	for k := range m.Objects().From(kinds.Key{Kind: kinds.PolicySource}) {
		return k.Mesh == "" && k.Kind == kinds.PolicySource
	}
	return false
}

// Signer is what is known of the signer.
type Signer struct {
	Separate            bool      // it is a service of another user
	NotBefore, NotAfter time.Time // of the issuing certificate
	Err                 error     // why it does not answer, or its answer is not good
	Gone                string    // what mends Err where its log lacks records; else ""
	NotKept             bool      // Err is of this side, which cannot write down what it has seen

	Failed   error // why the last certificates that were asked for did not come; nil where they came
	FailedAt time.Time
}

// Policy is what is decided by, and what it came of.
type Policy struct {
	State    *policies.State
	Statuses []*api.PolicyStatus
	Packages []policy.Package // of virtual nodes, in force
}

// Proxy is one that is being served.
type Proxy struct {
	Node  proxy.Ref
	Shape proxy.Shape
}
