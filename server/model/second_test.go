package model_test

import (
	"strings"
	"testing"

	"signet.example/proxy"
	"signet.example/server/kinds"
	"signet.example/server/model"
	"signet.example/server/model/modeltest"
	"signet.example/store"
)

const (
	aGateway = "listeners: [{portMapping: {port: 80, protocol: http}}]"
	aRoute   = "httpRoute: {match: {prefix: /}, action: {target: {virtualService: {virtualServiceRef: {name: s}}}}}"
)

// lonely is a mesh with one gateway, whose objects say neither.
var lonely = modeltest.Mesh + modeltest.OfMesh("VirtualNode", "n", "") + modeltest.OfMesh("VirtualService", "s", "") +
	modeltest.OfMesh("VirtualGateway", "g", aGateway) + modeltest.OfMesh("GatewayRoute", "r", aRoute)

// second is another mesh, and another gateway.
var second = strings.ReplaceAll(modeltest.Mesh, "name: m", "name: other") + modeltest.OfMesh("VirtualGateway", "h", "meshRef: {name: m}, "+aGateway)

// As it was written before objects said their meshes: the manifest that was given, after
// defaults.
func rowsOf(t *testing.T, manifests string) (rows []store.Object) {
	t.Helper()
	for _, o := range modeltest.Objects(t, modeltest.Empty(t), manifests) {
		k := o.Key()
		text := strings.ReplaceAll(string(o.Encode()), "  meshRef:\n    name: m\n", "")
		if strings.Contains(text, "meshRef") || strings.Contains(text, "virtualGatewayRef") {
			t.Fatal(text)
		}
		rows = append(rows, store.Object{Kind: k.Kind, Mesh: k.Mesh, Name: k.Name, Manifest: []byte(text), Revision: 1, Created: 1})
	}
	return rows
}

func TestWhatSaysNoMeshAndNoGatewayIsChangedAsBeforeWhenThereIsASecondOfEach(t *testing.T) {
	stored, err := model.Load(modeltest.TrustDomain, rowsOf(t, lonely), 1)
	if err != nil {
		t.Fatal(err)
	}
	for what, m := range map[string]*model.Model{"applied": modeltest.Of(t, lonely), "stored by a version before": stored} {
		if put := modeltest.Objects(t, m, lonely); len(modeltest.Writes(m, put[:4])) > 0 {
			t.Errorf("%s: the same files are a change", what)
		}
		two, err := m.With(modeltest.Objects(t, m, second))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for k, o := range two.Objects().All() {
			if k.Kind == "Mesh" || k.Name == "h" {
				continue
			}
			text := string(o.Encode())
			if !strings.Contains(text, "meshRef:\n    name: m\n") || k.Kind == "GatewayRoute" && !strings.Contains(text, "virtualGatewayRef:\n    name: g\n") {
				t.Errorf("%s: %s is shown without its mesh or gateway:\n%s", what, k, text)
			}
			again := modeltest.Objects(t, two, text)
			if next, err := two.With(again); err != nil || again[0].Key() != k || !next.Objects().Get(k).SameAs(o) {
				t.Errorf("%s: %s as it is shown: %v", what, k, err)
			}
		}
		if r := two.Graph().Node(proxy.For("m", "g", true)).Gateway.Routes; len(r) != 1 {
			t.Errorf("%s: the gateway has %d routes", what, len(r))
		}
	}
}

func TestAGatewayInThePlaceOfAnotherTakesTheRoutesThatComeWithIt(t *testing.T) {
	m := modeltest.Of(t, lonely)
	next, err := m.With(modeltest.Objects(t, m, modeltest.OfMesh("VirtualGateway", "h", aGateway)+modeltest.OfMesh("GatewayRoute", "r", aRoute)), kinds.Key{Kind: "VirtualGateway", Mesh: "m", Name: "g"})
	if err != nil {
		t.Fatal(err)
	}
	if o := next.Objects().Get(kinds.Key{Kind: "GatewayRoute", Mesh: "m", Name: "r"}); !strings.Contains(string(o.Encode()), "virtualGatewayRef:\n    name: h\n") {
		t.Errorf("%s", o.Encode())
	}
}
