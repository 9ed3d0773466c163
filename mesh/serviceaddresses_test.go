package mesh_test

import (
	"fmt"
	"strings"
	"testing"

	"signet.example/mesh"
	"signet.example/mesh/graphtest"
)

func addressedMesh(options string, services ...string) []byte {
	text := "apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: m}\nspec: {}\n"
	if options != "" {
		text += "---\napiVersion: signet.example/v1alpha1\nkind: MeshOptions\nmetadata: {name: m}\nspec: {serviceAddresses: " + options + "}\n"
	}
	for _, s := range services {
		text += "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: " + s + "}\nspec: {}\n"
	}
	return []byte(text)
}

func addressIn(g *mesh.Graph, service string) string {
	return g.AddressOf(mesh.NameOf(mesh.KindVirtualService, "m", service), nil).String()
}

func TestEachServiceHasItsAddressWhateverElseThereIs(t *testing.T) {
	if got := addressIn(graphtest.Graph(t, "m.yaml", addressedMesh("", "orders")), "orders"); got != "invalid IP" {
		t.Errorf("without an option: %s", got)
	}
	alone := graphtest.Graph(t, "m.yaml", addressedMesh("{}", "orders"))
	among := graphtest.Graph(t, "m.yaml", addressedMesh("{}", "a", "stock", "orders", "z"))
	if a, b := addressIn(alone, "orders"), addressIn(among, "ORDERS"); a != b || !strings.HasPrefix(a, "127.1") {
		t.Errorf("alone %s, among others %s", a, b)
	}
	fixed := graphtest.Graph(t, "m.yaml", addressedMesh("{range: 127.9.0.0/16, fixed: [{service: Orders, address: 127.8.0.1}]}", "orders", "stock"))
	if a, b := addressIn(fixed, "orders"), addressIn(fixed, "stock"); a != "127.8.0.1" || !strings.HasPrefix(b, "127.9.") {
		t.Errorf("fixed %s, other %s", a, b)
	}
}

// sharing are two services of one address in the smallest range that there can be.
func sharing(t *testing.T, g *mesh.Graph) (one, other string) {
	t.Helper()
	by := map[string]string{}
	for i := range 300 {
		name := fmt.Sprintf("s%d", i)
		at := addressIn(g, name)
		if by[at] != "" {
			return by[at], name
		}
		by[at] = name
	}
	t.Fatal("254 addresses for 300 services")
	return "", ""
}

func TestTwoServicesOfOneAddressAreRefusedByNameUntilOneIsFixed(t *testing.T) {
	const options = "{range: 127.9.8.0/24}"
	one, other := sharing(t, graphtest.Graph(t, "m.yaml", addressedMesh(options)))
	_, err := mesh.NewGraph(graphtest.Resources(t, "m.yaml", addressedMesh(options, one, other)))
	if err == nil || !strings.Contains(err.Error(), other+" has the address of virtualService "+one) || !strings.Contains(err.Error(), "spec.serviceAddresses.fixed of MeshOptions m") {
		t.Errorf("%v", err)
	}
	// So it is where the second one comes later, and not where the first one has gone.
	g := graphtest.Graph(t, "m.yaml", addressedMesh(options, one))
	second := graphtest.Resources(t, "m.yaml", addressedMesh("", other))[1:]
	if _, ok := g.With(second, nil); ok {
		t.Error("the second one was taken")
	}
	next, ok := g.With(second, []mesh.Name{mesh.NameOf(mesh.KindVirtualService, "m", one)})
	if !ok || addressIn(next, other) != addressIn(g, one) {
		t.Errorf("in the place of the first: %v", ok)
	}
	if _, ok := next.With(graphtest.Resources(t, "m.yaml", addressedMesh("", one))[1:], nil); ok {
		t.Error("the first one came back beside it")
	}
	again, ok := g.With(graphtest.Resources(t, "m.yaml", addressedMesh("", one))[1:], nil)
	if !ok || addressIn(again, one) != addressIn(g, one) {
		t.Error("one that is applied again stays where it is")
	}
	graphtest.Graph(t, "m.yaml", addressedMesh("{range: 127.9.8.0/24, fixed: [{service: "+other+", address: 127.7.0.1}]}", one, other))
}

func TestOptionsOfAddressesThatCannotBeAreRefusedByTheirField(t *testing.T) {
	for options, want := range map[string]string{
		"{range: 10.0.0.0/8}":                         "spec.serviceAddresses.range",
		"{fixed: [{service: a, address: 127.0.0.1}]}": "spec.serviceAddresses.fixed[0].address",
		"{fixed: [{service: a, address: 127.9.0.1}, {service: b, address: 127.9.0.1}]}": "127.9.0.1 is that of a by fixed[0] already",
		"{fixed: [{service: a, address: 127.9.0.1}, {service: A, address: 127.9.0.2}]}": "A has an address by fixed[0] already",
		"{fixed: [{service: a}]}": "spec.serviceAddresses.fixed[0].address",
	} {
		docs, err := mesh.Split("m.yaml", addressedMesh(options))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := mesh.Parse(docs[1]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", options, err, want)
		}
	}
}
