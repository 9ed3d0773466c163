package mesh_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"signet.example/mesh"
	"signet.example/mesh/graphtest"
)

// edits makes meshes of a few objects with names that meet, and changes of them.
type edits struct {
	*rand.Rand
	t *testing.T
}

func (e edits) pick(from ...string) string { return from[e.IntN(len(from))] }

// reference to an object of the kind, as the members of the struct that has it.
func (e edits) reference(kind, name string) string {
	switch e.IntN(8) {
	case 0:
		return fmt.Sprintf("%sARN: 'arn:aws:appmesh:r:1:mesh/%s/%s/%s'", kind, e.pick("a", "b"), kind, name)
	case 1:
		return fmt.Sprintf("%sRef: {name: %s, namespace: far}", kind, name)
	}
	return fmt.Sprintf("%sRef: {name: %s}", kind, name)
}

// object is one of a few names, with a random spec.
func (e edits) object() *mesh.Resource {
	in := fmt.Sprintf("meshRef: {name: %s}", e.pick("a", "a", "a", "b"))
	if e.IntN(12) == 0 {
		in += ", awsName: " + e.pick("x", "y", "N1", "s.far")
	}
	namespace := ""
	if e.IntN(6) == 0 {
		namespace = ", namespace: far"
	}
	head := func(kind, name string) string {
		return fmt.Sprintf("apiVersion: appmesh.k8s.aws/v1beta2\nkind: %s\nmetadata: {name: %s%s}\nspec:\n  %s\n", kind, name, namespace, strings.ReplaceAll(in, ", ", "\n  "))
	}
	node, router, service := e.pick("n1", "n2", "n3", "n4"), e.pick("r1", "r2"), e.pick("s1", "s2", "s3")
	var text string
	switch e.IntN(9) {
	case 8:
		text = strings.Replace(head("VirtualNodeOptions", node), "appmesh.k8s.aws/v1beta2", mesh.SignetGroupVersion, 1)
		text = regexp.MustCompile(`(?m)^  awsName: .*\n`).ReplaceAllString(text, "")
		text += fmt.Sprintf("  listeners: [{port: %s, circuitBreaker: {maxRequests: %d}}]\n", e.pick("80", "80", "81"), 1+e.IntN(9))
	case 7:
		text = head("VirtualGateway", e.pick("v1", "v2", "n4")) + "  listeners: [{portMapping: {port: " + e.pick("80", "80", "81") + ", protocol: http}}]\n"
	case 6:
		text = head("GatewayRoute", e.pick("x1", "x2", "x3"))
		if e.IntN(2) == 0 {
			text += "  virtualGatewayRef: {name: " + e.pick("v1", "v2") + "}\n"
		}
		port := ""
		if e.IntN(3) == 0 {
			port = ", port: 80"
		}
		text += "  httpRoute: {match: {prefix: /" + e.pick("a", "b/") + port + "}, action: {target: {virtualService: {" + e.reference("virtualService", service) + "}}}}\n"
	case 5:
		text = head("BackendGroup", e.pick("g1", "g2"))
		text = regexp.MustCompile(`(?m)^  awsName: .*\n`).ReplaceAllString(text, "")
		text += "  virtualservices: [{name: " + e.pick("s1", "s2") + "}, {name: " + e.pick("s2", "s3") + ", namespace: " + e.pick("far", "''") + "}]\n"
	case 0, 1:
		text = head("VirtualNode", node)
		if port := e.pick("80", "80", "80", "81", ""); port != "" {
			text += fmt.Sprintf("  listeners: [{portMapping: {port: %s, protocol: http}, timeout: {http: {idle: {unit: s, value: %d}}}, healthCheck: {protocol: http, path: /%d, healthyThreshold: 2, unhealthyThreshold: 2, timeoutMillis: 2000, intervalMillis: 5000}}]\n", port, e.IntN(9), e.IntN(2))
		}
		var backends []string
		for range e.IntN(3) {
			backends = append(backends, "{virtualService: {"+e.reference("virtualService", e.pick("s1", "s2", "s3"))+"}}")
		}
		text += "  backends: [" + strings.Join(backends, ", ") + "]\n"
		if e.IntN(3) == 0 {
			text += "  backendGroups: [{name: " + e.pick("g1", "g2") + "}]\n"
		}
	case 2, 3:
		target := func() string {
			t := fmt.Sprintf("%s, weight: %d", e.reference("virtualNode", e.pick("n1", "n2", "n3", "n4")), 1+e.IntN(9))
			if e.IntN(3) == 0 {
				t += ", port: 80"
			}
			return "{" + t + "}"
		}
		text = head("VirtualRouter", router) + "  listeners: [{portMapping: {port: 80, protocol: http}}]\n  routes: [{name: x, httpRoute: {match: {prefix: /}, action: {weightedTargets: [" + target() + ", " + target() + "]}}}]\n"
	default:
		text = head("VirtualService", service)
		switch e.IntN(3) {
		case 0:
			text += "  provider: {virtualNode: {" + e.reference("virtualNode", node) + "}}\n"
		case 1:
			text += "  provider: {virtualRouter: {" + e.reference("virtualRouter", router) + "}}\n"
		}
	}
	return parseOne(e.t, text)
}

var figures = regexp.MustCompile(`(weight|value|maxRequests): \d+`)

// varied is one of the stored objects with another weight, timeout or bound.
func (e edits) varied(stored map[mesh.Name]*mesh.Resource) *mesh.Resource {
	names := slices.SortedFunc(maps.Keys(stored), mesh.Name.Compare)
	text := string(stored[names[e.IntN(len(names))]].Encode())
	return parseOne(e.t, figures.ReplaceAllString(text, fmt.Sprintf("$1: %d", 1+e.IntN(9))))
}

// checks are a graph's health checks as text.
func checks(g *mesh.Graph) []string {
	var list []string
	for _, h := range g.HealthChecks() {
		text := fmt.Sprintf("%s/%s %s %s %d", h.Node.Mesh, h.Node.Name, h.Method, h.Path, h.Port)
		for _, c := range h.Callers {
			text += " " + c.Name
		}
		list = append(list, text)
	}
	return list
}

// A graph that was changed step by step is the one that everything gives at once,
// and takes a change if and only if that takes it.
func TestAChangedGraphIsWhatIsMadeOfEverything(t *testing.T) {
	seeds, changed, refused, same := uint64(40), 0, 0, 0
	if os.Getenv("SOAK") == "1" {
		seeds = 3000
	}
	for seed := range seeds {
		e := edits{rand.New(rand.NewPCG(seed, 1)), t}
		meshes := graphtest.Resources(t, "m.yaml", []byte("apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: a}\n---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: b}\n"))
		g := graphtest.Joined(t, meshes)
		stored := map[mesh.Name]*mesh.Resource{}
		for step := range 60 {
			after := maps.Clone(stored)
			var put []*mesh.Resource
			var remove []mesh.Name
			for range 1 + e.IntN(3) {
				r := e.object()
				if len(stored) > 0 && e.IntN(2) == 0 {
					r = e.varied(stored)
				}
				if name := mesh.NameOf(r.Kind, r.Mesh, r.Name); !slices.Contains(remove, name) && !slices.ContainsFunc(put, func(p *mesh.Resource) bool { return mesh.NameOf(p.Kind, p.Mesh, p.Name) == name }) {
					if _, ok := stored[name]; ok && e.IntN(4) == 0 {
						remove = append(remove, name)
						delete(after, name)
						continue
					}
					put, after[name] = append(put, r), r
				}
			}
			want, err := mesh.NewGraph(slices.Concat(meshes, slices.Collect(maps.Values(after))))
			got, ok := g.With(put, remove)
			if ok != (err == nil) {
				t.Fatalf("seed %d, step %d: everything gives %v, and the change is taken: %t\nput %v, remove %v", seed, step, err, ok, put, remove)
			}
			if !ok {
				refused++
				continue
			}
			if !reflect.DeepEqual(got, want) { //nolint:govet // a graph has no errors in it, only their type
				t.Fatalf("seed %d, step %d: put %v, remove %v: the graph is not what everything gives\n%s", seed, step, put, remove, diff(want.Nodes("a"), got.Nodes("a")))
			}
			if g.SameToPolicy(got) {
				if same++; !reflect.DeepEqual(checks(g), checks(got)) {
					t.Fatalf("seed %d, step %d: put %v, remove %v: the health checks are not the same:\n%v\n%v", seed, step, put, remove, checks(g), checks(got))
				}
			}
			g, stored = got, after
			changed++
		}
	}
	t.Logf("%d changes taken, %d of them of the same health checks, %d refused", changed, same, refused)
	if changed < 100 || refused < 100 || same < 10 {
		t.Error("the changes are of one sort")
	}
}

func TestAChangeMakesAnewWhatChangedAndWhatMindsIt(t *testing.T) {
	const n = 300
	var all []*mesh.Resource
	node := func(i int, rest string) *mesh.Resource {
		return parseOne(t, object("VirtualNode", fmt.Sprintf("n%d", i))+fmt.Sprintf("spec:\n  listeners: [{portMapping: {port: 80, protocol: http}%s}]\n  backends: [{virtualService: {virtualServiceRef: {name: s%d}}}]\n", rest, (i+1)%n))
	}
	router := func(i, weight int) *mesh.Resource {
		return parseOne(t, object("VirtualRouter", fmt.Sprintf("r%d", i))+fmt.Sprintf("spec: {listeners: [{portMapping: {port: 80, protocol: http}}], routes: [{name: x, httpRoute: {match: {prefix: /}, action: {weightedTargets: [{virtualNodeRef: {name: n%d}, weight: %d}]}}}]}\n", i, weight))
	}
	all = append(all, parseOne(t, object("Mesh", "m")))
	for i := range n {
		all = append(all, node(i, ""), router(i, 1),
			parseOne(t, object("VirtualService", fmt.Sprintf("s%d", i))+fmt.Sprintf("spec: {provider: {virtualRouter: {virtualRouterRef: {name: r%d}}}}\n", i)))
	}
	g := graphtest.Joined(t, all)
	for _, c := range []struct {
		what string
		put  *mesh.Resource
		anew int
		same bool // health checks
	}{
		{"a weight: its router", router(7, 2), 1, true},
		{"a node's timeout: itself", node(7, ", timeout: {http: {idle: {unit: s, value: 9}}}"), 1, true},
		{"a node's port: itself and the router that sends to it", parseOne(t, object("VirtualNode", "n7")+"spec: {listeners: [{portMapping: {port: 81, protocol: http}}]}"), 2, false},
		{"a service: itself", parseOne(t, object("VirtualService", "s7")+"spec: {provider: {virtualNode: {virtualNodeRef: {name: n9}}}}"), 1, false},
		{"a node that is new: itself", parseOne(t, object("VirtualNode", "new")), 1, false},
	} {
		next, ok := g.With([]*mesh.Resource{c.put}, nil)
		if !ok {
			t.Errorf("%s: not taken", c.what)
			continue
		}
		if got := anew(g, next); got != c.anew {
			t.Errorf("%s: %d objects were made anew, want %d", c.what, got, c.anew)
		}
		if same := next.SameToPolicy(g); same != c.same {
			t.Errorf("%s: the health checks are the same: %t", c.what, same)
		}
	}
}

// anew counts the objects of a graph that are not those of another one.
func anew(from, to *mesh.Graph) int {
	had, n := map[any]bool{}, 0
	each := func(g *mesh.Graph, do func(any)) {
		for _, o := range g.Nodes("m") {
			do(o)
		}
		for _, o := range g.Routers("m") {
			do(o)
		}
		for _, o := range g.Services("m") {
			do(o)
		}
	}
	each(from, func(o any) { had[o] = true })
	each(to, func(o any) {
		if !had[o] {
			n++
		}
	})
	return n
}
