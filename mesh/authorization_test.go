package mesh_test

import (
	"strings"
	"testing"

	"signet.example/mesh"
	"signet.example/mesh/graphtest"
)

const twoNodes = `apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: m}
spec: {awsName: m-prod}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: a}
spec: {listeners: [{portMapping: {port: 8080, protocol: http}}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: b}
spec: {listeners: [{portMapping: {port: 8080, protocol: http}}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualGateway
metadata: {name: edge}
spec: {listeners: [{portMapping: {port: 8080, protocol: http}}]}
`

func optionsOf(kind, name, authorization string) string {
	return "---\napiVersion: signet.example/v1alpha1\nkind: " + kind + "\nmetadata: {name: " + name + "}\nspec: {authorization: " + authorization + "}\n"
}

func observedOf(g *mesh.Graph) string {
	var names []string
	for _, n := range g.Nodes("m-prod") {
		if n.Observed {
			names = append(names, n.Name)
		}
	}
	return strings.Join(names, " ")
}

func TestANodeObservesByItsOwnOptionsOrElseItsMeshs(t *testing.T) {
	for options, want := range map[string]string{
		"":                                       "",
		optionsOf("MeshOptions", "m", "observe"): "edge a b",
		optionsOf("MeshOptions", "m", "enforce"): "",
		optionsOf("VirtualNodeOptions", "a", "observe"):                                            "a",
		optionsOf("MeshOptions", "m", "observe") + optionsOf("VirtualNodeOptions", "a", "enforce"): "edge b",
	} {
		g := graphtest.Graph(t, "m.yaml", []byte(twoNodes+options))
		if got := observedOf(g); got != want {
			t.Errorf("%s: %q are observed, want %q", options, got, want)
		}
		if g.Observes("m-prod") != strings.Contains(options, "MeshOptions\nmetadata: {name: m}\nspec: {authorization: observe}") || g.Observes("other") {
			t.Errorf("%s: the mesh observes %v", options, g.Observes("m-prod"))
		}
	}
}

// A change of who is observed reaches the policy, whichever way the graph is made.
func TestAChangeOfOptionsIsOneToThePolicy(t *testing.T) {
	was := graphtest.Graph(t, "m.yaml", []byte(twoNodes))
	one := graphtest.Resources(t, "m.yaml", []byte(optionsOf("VirtualNodeOptions", "a", "observe")))
	now, ok := was.With(one, nil)
	if !ok || observedOf(now) != "a" || now.SameToPolicy(was) {
		t.Errorf("%v %q", ok, observedOf(now))
	}
	whole := graphtest.Resources(t, "m.yaml", []byte(optionsOf("MeshOptions", "m", "observe")))
	if _, ok := was.With(whole, nil); ok {
		t.Error("options of a mesh are all of its nodes', which are made anew")
	}
}

func TestOptionsOfAMeshThatIsNotThereOrSayNothingAreRefused(t *testing.T) {
	if _, err := mesh.NewGraph(graphtest.Resources(t, "m.yaml", []byte(twoNodes+optionsOf("MeshOptions", "n", "observe")))); err == nil || !strings.Contains(err.Error(), "is about the mesh of its own name, which does not exist; there are: m-prod") {
		t.Errorf("%v", err)
	}
	for content, want := range map[string]string{
		"kind: MeshOptions\nmetadata: {name: m}\nspec: {authorization: watch}\n":                  "enforce, observe",
		"kind: MeshOptions\nmetadata: {name: m}\nspec: {}\n":                                      "authorization",
		"kind: MeshOptions\nmetadata: {name: m}\nspec: {headersWithUnderscores: [\"a_b,c_d\"]}\n": "is not a header name",
		"kind: VirtualNodeOptions\nmetadata: {name: m}\nspec: {}\n":                               "says nothing of the node",
	} {
		docs, err := mesh.Split("m.yaml", []byte("apiVersion: signet.example/v1alpha1\n"+content))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := mesh.Parse(docs[0]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", content, err)
		}
	}
	r := graphtest.Resources(t, "m.yaml", []byte(optionsOf("MeshOptions", "m", "observe")))[0]
	if w := mesh.Warnings(r); len(w) != 1 || !strings.Contains(w[0].Error(), "only recorded") {
		t.Errorf("%v", w)
	}
}

func TestOptionsSayTheAuthorizationOfTheirNodeOrOfAllOfTheirMesh(t *testing.T) {
	for options, want := range map[string]string{
		optionsOf("MeshOptions", "m", "enforce"):                                                       "edge a b",
		optionsOf("VirtualNodeOptions", "a", "observe"):                                                "a",
		optionsOf("VirtualGatewayOptions", "edge", "enforce"):                                          "edge",
		strings.Replace(optionsOf("MeshOptions", "m", "suppress"), "authorization", "envoyHeaders", 1): "",
		strings.Replace(optionsOf("VirtualNodeOptions", "a", ""), "authorization: ", "listeners: [{port: 8080, ingress: [{name: x, ranges: [10.0.0.0/8]}]}]", 1): "",
	} {
		var got []string
		g := graphtest.Graph(t, "m.yaml", []byte(twoNodes+options))
		for _, kind := range []mesh.Kind{mesh.KindMeshOptions, mesh.KindVirtualNodeOptions, mesh.KindGatewayOptions, mesh.KindVirtualNode} {
			for _, name := range []string{"m", "m-prod", "a", "b", "edge"} {
				for _, n := range g.AuthorizedBy(mesh.NameOf(kind, "m-prod", name)) {
					got = append(got, n.Name)
				}
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", options, got, want)
		}
	}
}
