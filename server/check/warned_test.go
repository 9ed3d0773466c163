package check

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"signet.example/server/fleet"
	"signet.example/server/kinds"
	"signet.example/server/model/modeltest"
	"signet.example/store"
)

// warned is what a change between two models is warned of.
func warned(before, after Model, named ...kinds.Key) []string {
	nobody := func() []store.Agent { return nil }
	return Warnings(before, after, Hosts{BySelectors: nobody, ByToken: nobody}, &fleet.Registered{}, named...)
}

// allWarnings are what warned gives by looking at everything.
func allWarnings(t *testing.T, before, after Model, named ...kinds.Key) []string {
	everything := func(m Model) []string { return warned(modeltest.Empty(t), m) }
	known := everything(before)
	var list []string
	for _, w := range everything(after) {
		if !slices.Contains(known, w) || slices.ContainsFunc(isOf(w), func(k kinds.Key) bool { return slices.Contains(named, k) }) {
			list = append(list, w)
		}
	}
	return list
}

// isOf are the objects that a warning is about.
func isOf(warning string) []kinds.Key {
	switch f := strings.Fields(warning); f[0] {
	case "bindings":
		return []kinds.Key{{Kind: kinds.Binding, Name: f[1]}, {Kind: kinds.Binding, Name: f[4]}}
	case "binding":
		return []kinds.Key{{Kind: kinds.Binding, Name: f[1]}}
	case "entries":
		return []kinds.Key{{Kind: kinds.Entry, Name: f[1]}, {Kind: kinds.Entry, Name: f[3]}}
	}
	return nil
}

func TestAChangeWarnsOfWhatLookingAtEverythingFinds(t *testing.T) {
	said := map[string]int{}
	for seed := range soak(120, 2000) {
		r := rand.New(rand.NewPCG(uint64(seed), 4))
		m := modeltest.Of(t, modeltest.Mesh+modeltest.Own("NodeGroup", "g1", "")+modeltest.Own("NodeGroup", "g2", "")+modeltest.OfMesh("VirtualNode", "a", "")+modeltest.OfMesh("VirtualNode", "b", ""))
		for range 20 {
			text := modeltest.RandomObject(r)
			if r.IntN(2) == 0 {
				text = modeltest.Own("Binding", fmt.Sprintf("b%d", r.IntN(4)), fmt.Sprintf("group: g%d, mesh: m, virtualNode: %s, selectors: ['unix:uid:%d']%s",
					1+r.IntN(2), []string{"a", "b"}[r.IntN(2)], 1+r.IntN(2), []string{"", ", applications: [anyone]"}[r.IntN(2)]))
			}
			o := modeltest.Objects(t, m, text)[0]
			put, remove := []*kinds.Object{o}, []kinds.Key(nil)
			if m.Objects().Get(o.Key()) != nil && r.IntN(3) == 0 {
				put, remove = nil, []kinds.Key{o.Key()}
			}
			next, err := m.With(put, remove...)
			if err != nil {
				continue
			}
			var named []kinds.Key
			if put != nil {
				named = []kinds.Key{o.Key()}
			}
			got, want := warned(m, next, named...), allWarnings(t, m, next, named...)
			slices.Sort(got)
			if slices.Sort(want); !slices.Equal(got, want) {
				t.Fatalf("seed %d: %v: warns of\n%s\nand everything of\n%s", seed, o.Key(), strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			for _, w := range got {
				said[strings.Fields(w)[0]]++
			}
			m = next
		}
	}
	if said["bindings"] < 10 || said["binding"] < 10 || said["there"] < 1 {
		t.Errorf("the changes are of one sort: %v", said)
	}
}

// Enforcement goes by more ways than by a word that says so.
func TestWhatOnlyObservesFromAChangeOnIsWarnedOf(t *testing.T) {
	nodes := modeltest.Mesh + modeltest.OfMesh("VirtualNode", "a", "") + modeltest.OfMesh("VirtualNode", "b", "listeners: [{portMapping: {port: 80, protocol: http}}]")
	observing := modeltest.Own("MeshOptions", "m", "authorization: observe")
	enforcing := modeltest.Own("VirtualNodeOptions", "b", "authorization: enforce")
	for _, c := range []struct{ what, before, after, want string }{
		{"options that enforced are deleted", nodes + observing + enforcing, nodes + observing, "VirtualNode m/b:"},
		{"they say something else", nodes + observing + enforcing, nodes + observing + modeltest.Own("VirtualNodeOptions", "b", "listeners: [{port: 80, circuitBreaker: {maxRequests: 1}}]"), "VirtualNode m/b:"},
		{"the mesh observes", nodes, nodes + observing, "VirtualNode m/a, VirtualNode m/b:"},
		{"the mesh observes and a node does not", nodes + enforcing, nodes + observing + enforcing, "VirtualNode m/a:"},
		{"a mesh is new", "", nodes + observing, ""},
		{"one enforces", nodes + observing, nodes + observing + enforcing, ""},
	} {
		before := modeltest.Empty(t)
		if c.before != "" {
			before = modeltest.Of(t, c.before)
		}
		got := strings.Join(warned(before, modeltest.Of(t, c.after)), "\n")
		if has := strings.Contains(got, "from here on the policy only observes"); has != (c.want != "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %s", c.what, got)
		}
	}
}

func TestACallThatAFilesCertificateStopsIsWarnedOf(t *testing.T) {
	orders := func(tls string) string {
		return modeltest.OfMesh("VirtualNode", "orders", "listeners: [{portMapping: {port: 8080, protocol: http}"+tls+"}]")
	}
	front := func(policy string) string {
		return modeltest.OfMesh("VirtualNode", "front", "backends: [{virtualService: {virtualServiceRef: {name: orders}"+policy+"}}]")
	}
	service := modeltest.OfMesh("VirtualService", "orders", "provider: {virtualNode: {virtualNodeRef: {name: orders}}}")
	const file = ", tls: {mode: STRICT, certificate: {file: {certificateChain: /keys/a.pem, privateKey: /keys/a.key}}}"
	policy := func(trust, more string) string {
		return ", clientPolicy: {tls: {validation: {trust: {" + trust + "}, subjectAlternativeNames: {match: {exact: [orders.example]}}}" + more + "}}"
	}
	const trust = "file: {certificateChain: /keys/ca.pem}"
	before := modeltest.Of(t, modeltest.Mesh+orders("")+service+front(""))
	const want = "virtual node front calls orders:8080, which shows a certificate of a file"
	for _, c := range []struct {
		what, change string
		warns        bool
	}{
		{"a certificate of a file", orders(file), true},
		{"another certificate", orders(", tls: {mode: STRICT, certificate: {acm: {certificateARN: a}}}"), false},
		{"a policy that believes the file", orders(file) + front(policy(trust, "")), false},
		{"a policy for another port", orders(file) + front(policy(trust, ", ports: [1]")), true},
		{"in plaintext", orders(strings.Replace(file, "STRICT", "DISABLED", 1)), false},
	} {
		objects := modeltest.Objects(t, before, c.change)
		after, err := before.With(objects)
		if err != nil {
			t.Fatal(err)
		}
		var keys []kinds.Key
		for _, o := range objects {
			keys = append(keys, o.Key())
		}
		got := warned(before, after, keys...)
		if has := slices.ContainsFunc(got, func(w string) bool { return strings.Contains(w, want) }); has != c.warns {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}

// TestAChangeIsWarnedOfByTheSameWorkAmongAnyNumberOfGroups has two bindings that
// overlap in each group: whoever looks at them all says so of each.
func TestAChangeIsWarnedOfByTheSameWorkAmongAnyNumberOfGroups(t *testing.T) {
	work := func(n int) float64 {
		var b strings.Builder
		b.WriteString(modeltest.Mesh + modeltest.OfMesh("VirtualNode", "a", "") + modeltest.OfMesh("VirtualNode", "b", ""))
		for i := range n {
			b.WriteString(modeltest.Own("NodeGroup", fmt.Sprintf("g%d", i), ""))
			for _, node := range []string{"a", "b"} {
				b.WriteString(modeltest.Own("Binding", fmt.Sprintf("%s%d", node, i), fmt.Sprintf("group: g%d, mesh: m, virtualNode: %s, selectors: ['unix:uid:1']", i, node)))
			}
		}
		m := modeltest.Of(t, b.String())
		put := modeltest.Objects(t, m, modeltest.Own("Binding", "a7", "group: g7, mesh: m, virtualNode: a, selectors: ['unix:uid:1'], applications: [anyone]"))
		next, err := m.With(put)
		if err != nil {
			t.Fatal(err)
		}
		return testing.AllocsPerRun(10, func() {
			if got := warned(m, next, put[0].Key()); len(got) != 2 { // of the overlap, and of anyone
				t.Fatal(got)
			}
		})
	}
	few, many := work(20), work(soak(400, 10000))
	if t.Logf("allocations: %.0f among 20 groups, %.0f among %d", few, many, soak(400, 10000)); many > few+20 {
		t.Errorf("%.0f allocations among %d groups, %.0f among 20", many, soak(400, 10000), few)
	}
}

// soak is the size of a test in CI, or that with SOAK=1.
func soak(ci, most int) int {
	if os.Getenv("SOAK") == "1" {
		return most
	}
	return ci
}

// That the policy begins to deny is in no route, so that nothing else tells it.
func TestWhereThePolicyBeginsToDenyIsWarnedOf(t *testing.T) {
	nodes := modeltest.Mesh + modeltest.OfMesh("VirtualNode", "a", "") + modeltest.OfMesh("VirtualNode", "b", "")
	of := func(kind, name, word string) string { return modeltest.Own(kind, name, "authorization: "+word) }
	for _, c := range []struct{ what, before, after, want string }{
		{"a mesh enforces", nodes + of("MeshOptions", "m", "observe"), nodes + of("MeshOptions", "m", "enforce"), "VirtualNode m/a, VirtualNode m/b, which only observed"},
		{"its options are gone", nodes + of("MeshOptions", "m", "observe"), nodes, "VirtualNode m/a, VirtualNode m/b, which only observed"},
		{"but a node does not", nodes + of("MeshOptions", "m", "observe"), nodes + of("MeshOptions", "m", "enforce") + of("VirtualNodeOptions", "b", "observe"), "VirtualNode m/a, which only observed"},
		{"a node enforces", nodes + of("VirtualNodeOptions", "b", "observe"), nodes + of("VirtualNodeOptions", "b", "enforce"), "VirtualNode m/b, which only observed"},
		{"a node observes", nodes, nodes + of("VirtualNodeOptions", "b", "observe"), ""},
		{"nothing changes", nodes + of("MeshOptions", "m", "observe"), nodes + of("MeshOptions", "m", "observe"), ""},
	} {
		got := strings.Join(warned(modeltest.Of(t, c.before), modeltest.Of(t, c.after)), "\n")
		if has := strings.Contains(got, "which only observed"); has != (c.want != "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %s", c.what, got)
		}
	}
}

// byUnderscore is a router that looks at a header with an underscore.
func byUnderscore(of, node string) string {
	return "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualRouter\nmetadata: {name: colors}\nspec:\n  meshRef: {name: " + of + "}\n  listeners: [{portMapping: {port: 8080, protocol: http}}]\n" +
		"  routes: [{name: red, httpRoute: {match: {prefix: /, headers: [{name: color_header}]}, action: {weightedTargets: [{virtualNodeRef: {name: " + node + "}, weight: 1}]}}}]\n"
}

func TestARouteByAHeaderThatNoRequestHasIsWarnedOf(t *testing.T) {
	nodes := modeltest.Mesh + modeltest.OfMesh("VirtualNode", "a", "listeners: [{portMapping: {port: 8080, protocol: http}}]")
	passing := modeltest.Own("MeshOptions", "m", "headersWithUnderscores: [color_header]")
	for _, c := range []struct {
		what, before, after string
		want                bool
	}{
		{"a route comes", nodes, nodes + byUnderscore("m", "a"), true},
		{"it was there", nodes + byUnderscore("m", "a"), nodes + byUnderscore("m", "a"), false},
		{"its mesh passes the header on", nodes + passing, nodes + passing + byUnderscore("m", "a"), false},
		{"and does so no more", nodes + passing + byUnderscore("m", "a"), nodes + byUnderscore("m", "a"), true},
		{"a mesh is new", modeltest.Mesh[:0], nodes + byUnderscore("m", "a"), true},
	} {
		got := strings.Join(warned(modeltest.Of(t, c.before), modeltest.Of(t, c.after)), "\n")
		if strings.Contains(got, "routes of mesh m look at color_header, which no request has") != c.want {
			t.Errorf("%s: %s", c.what, got)
		}
	}
}

func TestAServiceWithoutAnAddressIsWarnedOf(t *testing.T) {
	addressed := modeltest.Mesh + modeltest.Own("MeshOptions", "m", "serviceAddresses: {}")
	at := func(hostname string) string {
		return addressed + modeltest.OfMesh("VirtualNode", "a", "listeners: [{portMapping: {port: 8080, protocol: http}}], serviceDiscovery: {dns: {hostname: "+hostname+"}}") +
			modeltest.OfMesh("VirtualService", "orders", "provider: {virtualNode: {virtualNodeRef: {name: a}}}")
	}
	hosted := at("orders") + modeltest.Own("NodeGroup", "g", "") + modeltest.Own("Binding", "b", "group: g, mesh: m, virtualNode: a, selectors: [\"unix:uid:7\"]")
	for _, c := range []struct {
		what, before, after string
		want                bool
	}{
		{"it comes", addressed, at("orders"), true},
		{"its node is found under its name from now on", at("elsewhere"), at("orders"), true},
		{"it was so before", at("orders"), at("orders"), false},
		{"its node is hosted", addressed, hosted, false},
		{"and is so no more", hosted, at("orders"), true},
		{"its node is found elsewhere", addressed, at("elsewhere"), false},
	} {
		got := strings.Join(warned(modeltest.Of(t, c.before), modeltest.Of(t, c.after)), "\n")
		if strings.Contains(got, "virtual service m/orders has no address: virtual node a is found by DNS under the same name") != c.want {
			t.Errorf("%s: %s", c.what, got)
		}
	}
}
