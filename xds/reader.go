package xds

import (
	"net/netip"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/mesh"
	"signet.example/proxy"
)

// reader is the only way to an Input once a translation has begun, and notes what came of each
// question while a section is made: that is good for as long as all of them are answered so. Of what
// is read past it, what was there before would be served. (A part is not asked for by what is there,
// but by a value of all that it is made of.)
type reader struct {
	in     Input
	noting bool
	noted  []stillSo
}

// stillSo reports whether an Input answers a question as another did.
type stillSo func(in *Input) bool

// note has what f asks noted, and returns it.
func (r *reader) note(f func()) []stillSo {
	if r.noting {
		panic("internal error: a section within a section, which would lack what this one asks")
	}
	r.noting, r.noted = true, nil
	f()
	noted := r.noted
	r.noting, r.noted = false, nil
	return noted
}

// asked is the answer to a question.
func asked[T comparable](r *reader, question func(in *Input) T) T {
	answer := question(&r.in)
	if r.noting {
		r.noted = append(r.noted, func(in *Input) bool { return question(in) == answer })
	}
	return answer
}

// askedAll is asked of a list, of which none at all is another answer than an empty one.
func askedAll[T comparable](r *reader, question func(in *Input) []T) []T {
	answer := question(&r.in)
	if r.noting {
		r.noted = append(r.noted, func(in *Input) bool {
			now := question(in)
			return (now == nil) == (answer == nil) && slices.Equal(now, answer)
		})
	}
	return answer
}

// Of objects the graph's own are compared: the same one says the same.

func (r *reader) node(ref proxy.Ref) *mesh.VirtualNode {
	return asked(r, func(in *Input) *mesh.VirtualNode { return in.Graph.Node(ref) })
}

func (r *reader) service(name mesh.Name) *mesh.VirtualService {
	return asked(r, func(in *Input) *mesh.VirtualService { return in.Graph.Service(name) })
}

func (r *reader) router(name mesh.Name) *mesh.VirtualRouter {
	return asked(r, func(in *Input) *mesh.VirtualRouter { return in.Graph.Router(name) })
}

func (r *reader) meshSpec(name string) *mesh.MeshSpec {
	return asked(r, func(in *Input) *mesh.MeshSpec { return in.Graph.Mesh(name) })
}

func (r *reader) addressOf(service mesh.Name) netip.Addr {
	return asked(r, func(in *Input) netip.Addr { return in.Graph.AddressOf(service, in.Managed) })
}

func (r *reader) leadsBack(node proxy.Ref) bool {
	return asked(r, func(in *Input) bool { return in.Graph.LeadsBack(node) })
}

func (r *reader) settings(name string) mesh.Settings {
	return asked(r, func(in *Input) mesh.Settings { return in.Graph.Settings(name) })
}

func (r *reader) unsafe(mesh, name string) bool {
	return asked(r, func(in *Input) bool { return in.Graph.Unsafe(mesh, name) })
}

func (r *reader) withoutEnvoyHeaders(mesh string) bool {
	return asked(r, func(in *Input) bool { return in.Graph.WithoutEnvoyHeaders(mesh) })
}

func (r *reader) headersWithUnderscores(mesh string) []string {
	return askedAll(r, func(in *Input) []string { return in.Graph.HeadersWithUnderscores(mesh) })
}

func (r *reader) tcpCallers(n *mesh.VirtualNode, port uint32) []*mesh.VirtualNode {
	return askedAll(r, func(in *Input) []*mesh.VirtualNode { return in.Graph.TCPCallers(n, port) })
}

// endpoints are in a fixed order, each once.
func (r *reader) endpoints(node proxy.Ref, port uint32) []Endpoint {
	return askedAll(r, func(in *Input) []Endpoint {
		if in.Endpoints == nil {
			return nil
		}
		return inFixedOrder(in.Endpoints(node, port))
	})
}

func (r *reader) outside(node proxy.Ref) bool {
	return asked(r, func(in *Input) bool { return in.Outside != nil && in.Outside(node) })
}

func (r *reader) managed(node proxy.Ref) bool {
	return asked(r, func(in *Input) bool { return in.Managed != nil && in.Managed(node) })
}

// awaited is false of a node whose name could lead a proxy to itself: it is not looked for by that.
func (r *reader) awaited(node proxy.Ref) bool {
	return asked(r, func(in *Input) bool { return in.Awaited != nil && in.Awaited(node) && !in.Graph.LeadsBack(node) })
}

func (r *reader) strict(node proxy.Ref) bool {
	return asked(r, func(in *Input) bool { return in.Strict != nil && in.Strict(node) })
}

func (r *reader) requiresPostQuantum(mesh string) bool {
	return asked(r, func(in *Input) bool { return in.RequirePostQuantum != nil && in.RequirePostQuantum(mesh) })
}

func (r *reader) trustDomain() spiffeid.TrustDomain {
	return asked(r, func(in *Input) spiffeid.TrustDomain { return in.TrustDomain })
}

func (r *reader) policyRevision() string {
	return asked(r, func(in *Input) string { return in.PolicyRevision })
}
