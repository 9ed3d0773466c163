package xdstest_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
	"signet.example/mesh"
	"signet.example/mesh/importer"
	"signet.example/policy"
	"signet.example/policy/check"
	"signet.example/policy/draft"
	"signet.example/policy/sandbox"
	"signet.example/policy/tree"
	"signet.example/proxy"
	"signet.example/server/policies"
	"signet.example/test/samples"
	xdstest "signet.example/test/xds"
	"signet.example/xds/predict"
)

// TestAPolicyFromTheMeshOfEverySampleLetsThroughWhatItsRoutesSendAndNothingElse asks the
// policy that is written for a mesh about every pair of its virtual nodes and gateways. What
// is declared is read from the configuration of the callers' proxies, and not from what the
// policy is made of. Until it is enforced what it refuses is let through.
func TestAPolicyFromTheMeshOfEverySampleLetsThroughWhatItsRoutesSendAndNothingElse(t *testing.T) {
	files, pairs, sent, refused := 0, 0, 0, 0
	for _, form := range importer.Forms() {
		for _, name := range samples.Of(t, importer.Form(form)) {
			r := samples.Whole(t, importer.Form(form), name)
			files++
			g := samples.Graph(t, name, slices.Concat(r.Manifests(), r.Beginnings(true))) // as an import leaves it
			if g == nil {
				t.Errorf("%s: nothing of it is complete", name)
				continue
			}
			asked := askedOf(t, name, g)
			for _, m := range g.Meshes() {
				for _, from := range g.Nodes(m) {
					declared := asked.declared(from)
					for _, to := range g.Nodes(m) {
						pairs++
						requests, ok := declared[to.Ref]
						sent += len(requests)
						for _, what := range requests {
							asked.wants(from, to, what, true)
						}
						if ok {
							continue
						}
						for _, what := range asked.all {
							refused++
							asked.wants(from, to, what, false)
						}
					}
				}
				for _, to := range g.Nodes(m) {
					if to.Gateway == nil { // a caller without an identity has nothing anywhere
						for _, what := range asked.all {
							asked.wants(nil, to, what, false)
						}
					}
				}
			}
		}
	}
	t.Logf("%d samples, %d pairs: %d requests that routes send, %d of pairs that are not declared", files, pairs, sent, refused)
	if files != 40 || sent < minSent || refused < minRefused {
		t.Errorf("%d samples, %d and %d requests, want %d and %d at least", files, sent, refused, minSent, minRefused)
	}
}

// How many requests there were when this was written: where predict shows fewer of a route, less
// is asked here.
const minSent, minRefused = 401, 7609

// declaring is a mesh's policy, and requests at it.
type declaring struct {
	t      *testing.T
	name   string
	graph  *mesh.Graph
	policy *policy.Compiled
	all    []xdstest.What // that a route sends, or a way out of tcp, of any caller; and a few others
	seen   map[xdstest.What]bool
}

// askedOf writes the policy of a sample, as sync would take it.
func askedOf(t *testing.T, name string, g *mesh.Graph) *declaring {
	t.Helper()
	d := draft.FromMesh(draft.Mesh{Graph: g, TrustDomain: xdstest.TrustDomain, Example: predict.Example})
	var modules []policy.Module
	for _, f := range d.Files {
		modules = append(modules, policy.Module{Path: f.Path, Rego: f.Content})
	}
	if len(modules) > 0 {
		if report, err := check.Tree(t.Context(), tree.Tree{Modules: modules}); err != nil || len(report.Warnings) > 0 || report.Passed == 0 {
			t.Errorf("%s: %v, %v, %d tests", name, err, report.Warnings, report.Passed)
		}
	}
	compiled, err := policy.Compile(policy.NewRevision("", "", modules, policy.Generated{Exemptions: policies.HealthExemptions(g, xdstest.TrustDomain), Observed: policies.Observed(g, xdstest.TrustDomain)}))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	a := &declaring{t: t, name: name, graph: g, policy: compiled, seen: map[xdstest.What]bool{}}
	a.add(xdstest.What{Method: "GET", Path: "/"}, xdstest.What{Method: "POST", Path: "/other"}, xdstest.What{Port: 6379})
	for _, m := range g.Meshes() {
		for _, from := range g.Nodes(m) {
			for _, requests := range a.declared(from) {
				a.add(requests...)
			}
		}
	}
	return a
}

func (a *declaring) add(list ...xdstest.What) {
	for _, w := range list {
		if !a.seen[w] {
			a.seen[w] = true
			a.all = append(a.all, w)
		}
	}
}

// declared is what a caller's proxy sends to each callee; of a gateway what it takes is asked
// at itself.
func (a *declaring) declared(from *mesh.VirtualNode) map[proxy.Ref][]xdstest.What {
	s, err := xdstest.SendsOf(a.graph, from)
	if err != nil {
		a.t.Fatalf("%s: %v", a.name, err)
	}
	found := map[proxy.Ref][]xdstest.What{}
	for callee := range s.Callees {
		found[callee] = nil
	}
	for _, send := range s.List {
		for _, asked := range send.Asked {
			found[asked.At] = append(found[asked.At], asked.What)
		}
	}
	return found
}

// wants asks the policy. What comes to a gateway comes from nobody who is known.
func (a *declaring) wants(from, to *mesh.VirtualNode, w xdstest.What, allowed bool) {
	in := policy.Input{Destination: policy.Peer{ID: a.id(to)}}
	if from != nil && from != to {
		in.Source.ID = a.id(from)
	}
	if to.Gateway != nil && from != to {
		return // who comes to it need not be known, so that nobody is refused
	}
	if from == to && from.Gateway == nil {
		in.Source.ID = a.id(from)
	}
	if w.Port != 0 {
		in.Connection = &policy.Connection{Protocol: "tcp", Port: w.Port}
	} else {
		in.Request = policy.Request{Method: w.Method, Host: w.Host, Path: w.Path, Port: w.Listener}
	}
	got, err := a.policy.Evaluate(a.t.Context(), in)
	for again := 0; errors.Is(err, sandbox.ErrLimit) && again < 20; again++ { // the clock's bound is passed on a busy host
		got, err = a.policy.Evaluate(a.t.Context(), in)
	}
	if err != nil || got.Allowed != allowed {
		a.t.Errorf("%s: %s at %s, %+v: allowed is %t, want %t; %v %v", a.name, in.Source.ID, in.Destination.ID, w, got.Allowed, allowed, got.Allow, err)
	}
	if !a.policy.Observes(in) {
		a.t.Errorf("%s: %s denies from the beginning", a.name, in.Destination.ID)
	}
}

func (a *declaring) id(n *mesh.VirtualNode) spiffeid.ID {
	id, err := identity.ForVirtualNode(xdstest.TrustDomain, n.Mesh, n.Name)
	if err != nil {
		a.t.Fatal(err)
	}
	return id
}
