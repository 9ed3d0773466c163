package proxies_test

import (
	"testing"

	"go.uber.org/goleak"

	"signet.example/api"
	"signet.example/mesh"
	"signet.example/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// graphOf is a mesh with virtual nodes of these names.
func graphOf(t *testing.T, of string, nodes ...string) *mesh.Graph {
	t.Helper()
	manifests := "apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: " + of + "}\n"
	for _, name := range nodes {
		manifests += "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: " + name + "}\nspec: {listeners: [{portMapping: {port: 80, protocol: http}}]}\n"
	}
	docs, err := mesh.Split("mesh.yaml", []byte(manifests))
	if err != nil {
		t.Fatal(err)
	}
	var resources []*mesh.Resource
	for _, d := range docs {
		r, err := mesh.Parse(d)
		if err != nil {
			t.Fatal(err)
		}
		if r.Kind != mesh.KindMesh {
			r.Mesh = of
		}
		resources = append(resources, r)
	}
	g, err := mesh.NewGraph(resources)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// configOf has two resources of each of two types.
func configOf(of proxy.Ref, bind string, _ bool, which func(typeURL, name string) bool) (*api.ProxyConfig, error) {
	c := &api.ProxyConfig{Node: &api.VirtualNodeRef{Mesh: of.Mesh, Name: of.Name, Gateway: of.Gateway()}, Assumed: bind == ""}
	for _, t := range []string{"a.Cluster", "a.Listener"} {
		c.Types = append(c.Types, &api.TypeStatus{TypeUrl: t, Version: "2"})
		for _, name := range []string{"x", "y"} {
			if which(t, name) {
				c.Resources = append(c.Resources, &api.ProxyConfig_Resource{TypeUrl: t, Name: name, Version: "v"})
			}
		}
	}
	return c, nil
}
