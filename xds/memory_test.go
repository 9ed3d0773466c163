package xds_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"signet.example/mesh"
	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// All cases have a mesh of one name, and many of their services have the same names.
func TestWhatIsRememberedOfServicesChangesNothing(t *testing.T) {
	dirs, err := filepath.Glob("testdata/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no golden cases: %v", err)
	}
	var memory xds.Memory
	for range 2 {
		for _, dir := range dirs {
			c := xdstest.Load(t, dir)
			want := build(t, c)
			c.Input.Memory = &memory
			for range 2 {
				if got := build(t, c); got.Version() != want.Version() {
					t.Errorf("%s: another view: %q", dir, changed(want, got))
				}
			}
		}
	}
}

func TestAServiceIsTranslatedAgainWhereAnythingThatItDependsOnIsAnother(t *testing.T) {
	const meshOf = "apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\nspec: {}\n"
	node := func(name, more string) string {
		return fmt.Sprintf("---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: %s}\nspec:\n  listeners: [{portMapping: {port: 8080, protocol: http}}]\n%s", name, more)
	}
	service := func(name, provider string) string {
		return fmt.Sprintf("---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: %s}\nspec: {provider: {%s}}\n", name, provider)
	}
	router := "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualRouter\nmetadata: {name: r}\nspec:\n  listeners: [{portMapping: {port: 8080, protocol: http}}]\n  routes:\n" +
		"  - {name: all, httpRoute: {match: {prefix: /}, action: {weightedTargets: [{virtualNodeRef: {name: one}, weight: 1}, {virtualNodeRef: {name: two}, weight: 2}]}}}\n"
	const plain, byPolicy = "  backends: [{virtualService: {virtualServiceRef: {name: s}}}]\n", "  backends: [{virtualService: {virtualServiceRef: {name: t}}}, {virtualService: {virtualServiceRef: {name: s}, clientPolicy: {tls: {enforce: true, validation: {trust: {sds: {secretName: \"spiffe://test.example\"}}}}}}}]\n"
	s, two := service("s", "virtualRouter: {virtualRouterRef: {name: r}}"), node("two", "")
	first := meshOf + node("front", plain) + node("one", "") + two + router + s + service("t", "virtualNode: {virtualNodeRef: {name: one}}")
	g := graphtest.Graph(t, "mesh.yaml", []byte(first))
	versions := map[string]bool{}
	for what, changed := range map[string]string{
		"nothing":             "",
		"a weight":            strings.Replace(router, "weight: 2", "weight: 3", 1),
		"a target's port":     strings.Replace(two, "8080", "8081", 1),
		"a target's protocol": strings.Replace(two, "protocol: http", "protocol: http2", 1),
		"what provides it":    strings.Replace(s, "virtualRouter: {virtualRouterRef: {name: r}}", "virtualNode: {virtualNodeRef: {name: two}}", 1),
		"a way of calling it": node("front", byPolicy),
		"what is repeated":    strings.Replace(first, "metadata: {name: shop}", "metadata: {name: shop, annotations: {signet.example/unsafe: repeat-any-method}}", 1),
	} {
		put := graphtest.Resources(t, "changed.yaml", []byte(changed))
		next, ok := g.With(put, nil)
		if !ok { // of a mesh itself
			next = graphtest.Graph(t, "changed.yaml", []byte(changed))
		}
		var memory xds.Memory
		for i, graph := range []*mesh.Graph{g, next, g} {
			in := xds.Input{Graph: graph, TrustDomain: xdstest.TrustDomain}
			want, err := xds.Build(in, proxy.Node("shop", "front"), xdstest.Shape)
			if err != nil {
				t.Fatal(what, err)
			}
			in.Memory = &memory
			got, err := xds.Build(in, proxy.Node("shop", "front"), xdstest.Shape)
			if err != nil || got.Version() != want.Version() {
				t.Errorf("%s, step %d: %v, another view", what, i, err)
			}
			versions[want.Version()] = true
		}
	}
	if len(versions) != 7 {
		t.Errorf("%d different views of 7", len(versions))
	}
}

// One memory for all nodes of a case, whatever their proxies are.
func TestWhatIsRememberedOfOtherNodesAndProxiesChangesNothing(t *testing.T) {
	dirs, err := filepath.Glob("testdata/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no golden cases: %v", err)
	}
	built := 0
	for _, dir := range dirs {
		c := xdstest.Load(t, dir)
		shapes := []proxy.Shape{c.Shape, c.Shape, c.Shape, c.Shape}
		shapes[1].Answers, shapes[2].Underscores = !c.Shape.Answers, !c.Shape.Underscores
		shapes[3].AccessLogDir, shapes[3].Bind = "/var/log/other", "127.0.0.9"
		var memory xds.Memory
		for range 2 {
			for _, n := range allNodes(c.Input.Graph) {
				for i, shape := range shapes {
					shape.Suit(n.Ref)
					without, with := c.Input, c.Input
					with.Memory = &memory
					want, refused := xds.Build(without, n.Ref, shape)
					got, err := xds.Build(with, n.Ref, shape)
					if fmt.Sprint(err) != fmt.Sprint(refused) {
						t.Errorf("%s, %s, shape %d: %v, want %v", dir, n.Ref, i, err, refused)
					} else if err == nil && got.Version() != want.Version() {
						t.Errorf("%s, %s, shape %d: another view: %q", dir, n.Ref, i, changed(want, got))
					} else if err == nil {
						built++
					}
				}
			}
		}
	}
	if built < 100 {
		t.Errorf("%d views were compared", built)
	}
}

func TestWhatNodesHaveInCommonIsMadeOnce(t *testing.T) {
	in := xds.Input{Graph: graphtest.Graph(t, "mesh.yaml", []byte(callingTen(20))), TrustDomain: xdstest.TrustDomain}
	work := func(memory *xds.Memory) float64 {
		in := in
		in.Memory = memory
		return testing.AllocsPerRun(10, func() {
			if _, err := xds.Build(in, proxy.Node("shop", "n0"), xdstest.Shape); err != nil {
				t.Fatal(err)
			}
		})
	}
	alone, memory := work(nil), &xds.Memory{}
	others := in
	others.Memory = memory
	for i := 1; i < 20; i++ {
		if _, err := xds.Build(others, proxy.Node("shop", fmt.Sprint("n", i)), xdstest.Shape); err != nil {
			t.Fatal(err)
		}
	}
	among := work(memory)
	t.Logf("allocations: %.0f of a node alone, %.0f among others", alone, among)
	if among > alone/2 {
		t.Errorf("%.0f allocations of a node among others, %.0f alone", among, alone)
	}
}

func TestAServiceThatIsAsItWasCostsTheSameHoweverManyRoutesItHas(t *testing.T) {
	work := func(each int) float64 {
		in := xds.Input{Graph: graphtest.Graph(t, "mesh.yaml", []byte(manyRoutes(20, each))), TrustDomain: xdstest.TrustDomain, Memory: &xds.Memory{}}
		return testing.AllocsPerRun(10, func() {
			if _, err := xds.Build(in, proxy.Node("shop", "front"), xdstest.Shape); err != nil {
				t.Fatal(err)
			}
		})
	}
	few, many := work(2), work(40)
	t.Logf("allocations: %.0f with 2 routes of a service, %.0f with 40", few, many)
	if many > 1.2*few {
		t.Errorf("%.0f allocations with 40 routes of a service, %.0f with 2", many, few)
	}
}

func allNodes(g *mesh.Graph) (all []*mesh.VirtualNode) {
	for _, name := range g.Meshes() {
		all = append(all, g.Nodes(name)...)
	}
	return all
}
