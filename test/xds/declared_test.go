package xdstest_test

import (
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/identity"
	"signet.example/mesh"
	"signet.example/mesh/importer"
	"signet.example/policy"
	"signet.example/policy/check"
	"signet.example/policy/draft"
	"signet.example/policy/tree"
	"signet.example/proxy"
	"signet.example/server/policies"
	"signet.example/test/samples"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
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
			g := graphOf(t, name, slices.Concat(r.Manifests(), r.Observing())) // as an import leaves it
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
	if files != 40 || sent < 100 || refused < 500 {
		t.Errorf("%d samples, %d and %d requests", files, sent, refused)
	}
}

// declaring is a mesh's policy, and requests at it.
type declaring struct {
	t      *testing.T
	name   string
	graph  *mesh.Graph
	policy *policy.Compiled
	all    []what // that a route sends, or a way out of tcp, of any caller; and a few others
	seen   map[what]bool
}

// what is asked at a callee.
type what struct {
	method, host, path string
	port               uint32 // of a connection
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
	a := &declaring{t: t, name: name, graph: g, policy: compiled, seen: map[what]bool{}}
	a.add(what{method: "GET", path: "/"}, what{method: "POST", path: "/other"}, what{port: 6379})
	for _, m := range g.Meshes() {
		for _, from := range g.Nodes(m) {
			for _, requests := range a.declared(from) {
				a.add(requests...)
			}
		}
	}
	return a
}

func (a *declaring) add(list ...what) {
	for _, w := range list {
		if !a.seen[w] {
			a.seen[w] = true
			a.all = append(a.all, w)
		}
	}
}

// declared is what a caller's proxy sends to each callee, by its configuration; of a gateway
// what it takes is asked at itself.
func (a *declaring) declared(from *mesh.VirtualNode) map[proxy.Ref][]what {
	in := xds.Input{Graph: a.graph, TrustDomain: xdstest.TrustDomain, PolicyRevision: "5f0c2a", Managed: func(proxy.Ref) bool { return true }}
	shape := xdstest.Shape
	shape.Suit(from.Ref)
	set, err := xds.Build(in, from.Ref, shape)
	if err != nil {
		a.t.Fatalf("%s: %v", a.name, err)
	}
	found := map[proxy.Ref][]what{}
	for _, r := range set.Type(ads.RouteType) {
		rc := &routev3.RouteConfiguration{}
		if err := proto.Unmarshal(r.Body, rc); err != nil {
			a.t.Fatal(err)
		}
		if strings.HasPrefix(r.Name, "rds_ingress_") != (from.Gateway != nil) {
			continue
		}
		for _, h := range rc.GetVirtualHosts() {
			for _, route := range h.GetRoutes() { // also one that no request comes to, since those before take all
				if to := route.GetRoute(); to != nil {
					for _, callee := range a.clusters(from, to) {
						found[callee] = append(found[callee], []what{}...)
					}
				}
			}
			for _, request := range predict.RequestsOf(h) {
				out, err := predict.Of(rc, request)
				if err != nil {
					a.t.Fatal(err)
				}
				path, _, _ := strings.Cut(request.Path, "?")
				to := out.Route.GetRoute()
				if to == nil {
					continue
				}
				if from.Gateway != nil {
					found[from.Ref] = append(found[from.Ref], what{method: request.Method, host: request.Authority, path: path})
				}
				for _, callee := range a.clusters(from, to) {
					found[callee] = append(found[callee], what{method: request.Method, path: a.rewritten(out.Route, path)})
				}
			}
		}
	}
	for _, callee := range a.graph.Nodes(from.Mesh) {
		for _, l := range callee.Listeners {
			if l.Protocol != mesh.ProtocolTCP {
				continue
			}
			for _, caller := range a.graph.TCPCallers(callee, l.Port) {
				if caller.Ref == from.Ref {
					found[callee.Ref] = append(found[callee.Ref], what{port: l.Port})
				}
			}
		}
	}
	return found
}

// clusters are the virtual nodes to which a route leads.
func (a *declaring) clusters(from *mesh.VirtualNode, to *routev3.RouteAction) (list []proxy.Ref) {
	names := []string{to.GetCluster()}
	for _, c := range to.GetWeightedClusters().GetClusters() {
		names = append(names, c.GetName())
	}
	for _, name := range names {
		for _, n := range a.graph.Nodes(from.Mesh) {
			for _, protocol := range []string{"http", "http2", "grpc"} {
				if strings.HasPrefix(name, "cds_egress_"+n.Mesh+"_"+n.Name+"_"+protocol+"_") {
					list = append(list, n.Ref)
				}
			}
		}
	}
	if len(list) == 0 {
		a.t.Errorf("%s: no virtual node of %v", a.name, names)
	}
	return list
}

func (a *declaring) rewritten(r *routev3.Route, path string) string {
	switch to := r.GetRoute().GetPrefixRewrite(); {
	case r.GetRoute().GetRegexRewrite() != nil:
		a.t.Errorf("%s: a rewrite by %v", a.name, r.GetRoute().GetRegexRewrite())
	case to != "" && r.GetMatch().GetPath() != "":
		return to
	case to != "":
		return to + strings.TrimPrefix(path, r.GetMatch().GetPrefix())
	}
	return path
}

// wants asks the policy. What comes to a gateway comes from nobody who is known.
func (a *declaring) wants(from, to *mesh.VirtualNode, w what, allowed bool) {
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
	if w.port != 0 {
		in.Connection = &policy.Connection{Protocol: "tcp", Port: w.port}
	} else {
		in.Request = policy.Request{Method: w.method, Host: w.host, Path: w.path}
	}
	got, err := a.policy.Evaluate(a.t.Context(), in)
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
