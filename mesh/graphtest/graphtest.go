// Package graphtest makes graphs, and the resources that they are made of, of manifests, for tests.
package graphtest

import (
	"testing"

	"signet.example/mesh"
)

// Graph is that of manifests. The file is named in messages.
func Graph(t testing.TB, file string, content []byte) *mesh.Graph {
	t.Helper()
	return Joined(t, Resources(t, file, content))
}

// Joined is the graph of resources.
func Joined(t testing.TB, list []*mesh.Resource) *mesh.Graph {
	t.Helper()
	g, err := mesh.NewGraph(list)
	if err != nil {
		t.Fatalf("graph:\n%v", err)
	}
	return g
}

// Resources are manifests, each understood by itself.
func Resources(t testing.TB, file string, content []byte) (list []*mesh.Resource) {
	t.Helper()
	docs, err := mesh.Split(file, content)
	if err != nil {
		t.Fatalf("split:\n%v", err)
	}
	for _, d := range docs {
		r, err := mesh.Parse(d)
		if err != nil {
			t.Fatalf("parse:\n%v", err)
		}
		list = append(list, r)
	}
	return list
}
