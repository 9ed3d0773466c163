// Package modeltest makes models, and the objects and manifests that they are made of, for
// tests.
package modeltest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/mesh"
	"signet.example/server/kinds"
	"signet.example/server/model"
	"signet.example/store"
)

// TrustDomain is that of the models here.
var TrustDomain = spiffeid.RequireTrustDomainFromString("test.example")

// Empty is the model of a store that has nothing.
func Empty(t testing.TB) *model.Model {
	t.Helper()
	m, err := model.Load(TrustDomain, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Of is the model of manifests.
func Of(t testing.TB, manifests string) *model.Model {
	t.Helper()
	m := Empty(t)
	next, err := m.With(Objects(t, m, manifests))
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// Objects are those of manifests, of meshes that now has or they have.
func Objects(t testing.TB, now *model.Model, manifests string) []*kinds.Object {
	t.Helper()
	objects, err := Read(TrustDomain, now, manifests)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// Read is Objects in another trust domain.
func Read(td spiffeid.TrustDomain, now *model.Model, manifests string) (objects []*kinds.Object, err error) {
	docs, err := mesh.Split("test.yaml", []byte(manifests))
	if err != nil {
		return nil, err
	}
	for _, d := range docs {
		o, err := kinds.Parse(d, td)
		if err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return objects, kinds.AssignMeshes(objects, kinds.Meshes(now.Graph(), now.Objects())...)
}

// Writes are those of the objects that are new or changed.
func Writes(m *model.Model, objects []*kinds.Object) (writes []store.Write) {
	for _, o := range objects {
		if k := o.Key(); !o.SameAs(m.Objects().Get(k)) {
			writes = append(writes, store.Write{Object: store.Object{Kind: k.Kind, Mesh: k.Mesh, Name: k.Name, Manifest: o.Encode()}})
		}
	}
	return writes
}

// Mesh is the manifest of mesh m.
const Mesh = "apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: m}\n"

// Own is a manifest of one of Signet's kinds, to be put behind another.
func Own(kind, name, spec string) string {
	return fmt.Sprintf("---\napiVersion: signet.example/v1alpha1\nkind: %s\nmetadata: {name: %s}\nspec: {%s}\n", kind, name, spec)
}

// OfMesh is a manifest of one of App Mesh's kinds, to be put behind another.
func OfMesh(kind, name, spec string) string {
	return fmt.Sprintf("---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: %s\nmetadata: {name: %s}\nspec: {%s}\n", kind, name, spec)
}

// Services is a mesh of n services, each with a router, two nodes and their bindings; ten
// nodes call ten services each.
func Services(n int) string {
	docs := []string{Mesh, Own("NodeGroup", "g", "")}
	for i := range n {
		backends := ""
		for j := range min(10, n) {
			backends += fmt.Sprintf("{virtualService: {virtualServiceRef: {name: s%d}}}, ", (i*7+j+1)%n)
		}
		for _, side := range []string{"a", "b"} {
			name := fmt.Sprintf("n%d%s", i, side)
			docs = append(docs, OfMesh("VirtualNode", name, "listeners: [{portMapping: {port: 80, protocol: http}}], backends: ["+backends+"]"),
				Own("Binding", name, fmt.Sprintf("group: g, mesh: m, virtualNode: %s, selectors: [\"unix:uid:%d\", \"unix:path:/%s\"]", name, i, side)))
			backends = ""
		}
		docs = append(docs, Weight(i, 90), OfMesh("VirtualService", fmt.Sprintf("s%d", i), fmt.Sprintf("provider: {virtualRouter: {virtualRouterRef: {name: r%d}}}", i)))
	}
	return strings.Join(docs, "")
}

// Weight is the router of a service, which gives the first of its two nodes this weight
// beside 10 for the other.
func Weight(i, of int) string {
	return OfMesh("VirtualRouter", fmt.Sprintf("r%d", i), fmt.Sprintf(
		"listeners: [{portMapping: {port: 80, protocol: http}}], routes: [{name: all, httpRoute: {match: {prefix: /}, action: {weightedTargets: [{virtualNodeRef: {name: n%da}, weight: %d}, {virtualNodeRef: {name: n%db}, weight: 10}]}}}]", i, of, i))
}
