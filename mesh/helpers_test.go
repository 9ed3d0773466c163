package mesh_test

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"signet.example/mesh"
	"signet.example/mesh/graphtest"
	"signet.example/test/parts"
)

// equalResources compares by meaning: where a resource was written is no part of it.
var equalResources = cmp.Options{cmpopts.IgnoreFields(mesh.Resource{}, "Doc"), cmpopts.EquateEmpty()}

func parseOne(t *testing.T, content string) *mesh.Resource {
	t.Helper()
	rs := graphtest.Resources(t, "test.yaml", []byte(content))
	if len(rs) != 1 {
		t.Fatalf("got %d resources, want 1", len(rs))
	}
	return rs[0]
}

func shop(t *testing.T) []*mesh.Resource {
	t.Helper()
	content, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return graphtest.Resources(t, "testdata/shop.yaml", content)
}

// shared is a file of the vectors that several folders share.
func shared(t *testing.T, path ...string) string {
	t.Helper()
	return parts.Shared(t, path...)
}

func service(in, name string) mesh.Name { return mesh.NameOf(mesh.KindVirtualService, in, name) }

func router(in, name string) mesh.Name { return mesh.NameOf(mesh.KindVirtualRouter, in, name) }

func diff(want, got any) string { return cmp.Diff(want, got, equalResources) }
