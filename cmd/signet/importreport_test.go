package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/mesh/dialect"
	"signet.example/mesh/importer"
)

func TestAParameterWithoutAValueIsNamedOnceWithItsPlaces(t *testing.T) {
	const template = `AWSTemplateFormatVersion: 2010-09-09
Parameters: {Mesh: {Type: String}, Domain: {Type: String}}
Resources:
  A: {Type: AWS::AppMesh::VirtualService, Properties: {MeshName: !Ref Mesh, VirtualServiceName: !Sub 'a.${Domain}', Spec: {}}}
  B: {Type: AWS::AppMesh::VirtualService, Properties: {MeshName: !Ref Mesh, VirtualServiceName: !Sub 'b.${Domain}', Spec: {}}}
`
	r := importer.Read([]dialect.File{{Name: "stack.yaml", Content: []byte(template)}}, importer.Options{})
	for _, all := range []bool{false, true} {
		var out bytes.Buffer
		if err := printReport(newImportAppMesh(), &out, r, all); err != nil {
			t.Fatal(err)
		}
		once := strings.Count(out.String(), "parameter Mesh has neither a value nor a default: --set Mesh=VALUE; it is used at stack.yaml:4, stack.yaml:5\n")
		if n := strings.Count(out.String(), "parameter Mesh has neither"); all && (once != 0 || n != 2) || !all && (once != 1 || n != 1) {
			t.Errorf("%d and %d times in\n%s", once, n, out.String())
		}
	}
}

func TestWhatAFileSaysOfSeveralFieldsIsToldOnceWithItsLines(t *testing.T) {
	const template = `apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
spec: {}
---
{apiVersion: appmesh.k8s.aws/v1beta2, kind: VirtualNode, metadata: {name: a, namespace: "${NS}"}, spec: {}}
---
{apiVersion: appmesh.k8s.aws/v1beta2, kind: VirtualNode, metadata: {name: b, namespace: "${NS}"}, spec: {}}
`
	r := importer.Read([]dialect.File{{Name: "a.yaml", Content: []byte(template)}, {Name: "b.yaml", Content: []byte(template)}}, importer.Options{})
	for all, want := range map[bool]int{false: 1, true: 2} {
		var out bytes.Buffer
		if err := printReport(newImportAppMesh(), &out, r, all); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"a.yaml", "b.yaml"} {
			n := strings.Count(out.String(), ": metadata.namespace: missing: NS has no value")
			if same := strings.Contains(out.String(), "\n  the same in line 8\n"); n != 2*want || same == all || !strings.Contains(out.String(), file+":6:") {
				t.Errorf("%d times in\n%s", n, out.String())
			}
		}
	}
}

func TestWhatALineSaysTwiceHasNoOtherLines(t *testing.T) {
	r := importer.Read([]dialect.File{{Name: "m.json", Content: []byte(`{"mesh": {"meshName": "shop", "metadata": {"version": 1}, "spec": {}, "status": {"status": "ACTIVE"}}}`)}}, importer.Options{})
	var out bytes.Buffer
	if err := printReport(newImportAppMesh(), &out, r, false); err != nil || !strings.Contains(out.String(), "dropped: it is App Mesh's own") || strings.Contains(out.String(), "the same in") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// The manifest that the server was given is one that the user has never seen.
func TestARefusalOfTheServerIsPlacedInTheFileThatWasImported(t *testing.T) {
	const template = `Resources:
  M: {Type: AWS::AppMesh::Mesh, Properties: {MeshName: shop}}
  A:
    Type: AWS::AppMesh::VirtualNode
    Properties:
      MeshName: shop
      VirtualNodeName: a
      Spec:
        Backends: [VirtualService: {VirtualServiceName: none.shop}]
        Logging: {AccessLog: {File: {Path: /var/log/a}}}
`
	r := importer.Read([]dialect.File{{Name: "stack.yaml", Content: []byte(template)}}, importer.Options{})
	err := asPlaced(r, status.Error(codes.InvalidArgument, "virtualnode/shop/a:13:9: spec.backends[0]: virtualNode a refers to virtualService none.shop, which does not exist in mesh shop\n"+
		"virtualnode/shop/a:18:15: spec.logging: is not written\nvirtualnode/other/a:1:1: another's"))
	want := "stack.yaml:9:57: Resources.A.Properties.Spec.Backends[0].VirtualService.VirtualServiceName: virtualNode a refers to virtualService none.shop, which does not exist in mesh shop\n" +
		"stack.yaml:9: virtualnode/shop/a: spec.logging: is not written\nvirtualnode/other/a:1:1: another's"
	if s, _ := status.FromError(err); s.Code() != codes.InvalidArgument || s.Message() != want {
		t.Errorf("%v", err)
	}
	if asPlaced(r, nil) != nil {
		t.Error("an error is made of none")
	}
}

// What the report has is not said a second time, and of two objects that say the same each has its own lines.
func TestWarningsThatTheReportHasAreNotSaidAgainAndEachIsPlacedInItsObject(t *testing.T) {
	const node = "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: %s}\nspec:\n  meshRef: {name: shop}\n  podSelector: {}\n"
	r := importer.Read([]dialect.File{{Name: "m.yaml", Content: []byte("apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\n" + fmt.Sprintf(node, "a") + fmt.Sprintf(node, "b"))}}, importer.Options{})
	text := ""
	for _, f := range r.Findings {
		if f.Field == "spec.podSelector" {
			text = f.Text
		}
	}
	said := func(name string) string { return "virtualnode/shop/" + name + ":8:3: spec.podSelector: " + text }
	got := unreported(r, []string{said("a"), said("b"), "virtualnode/shop/b: spec.other: is not said", "virtualnode/shop/b:9:3: spec.other: is not said"})
	if diff := cmp.Diff([]string{"virtualnode/shop/b: spec.other: is not said", "m.yaml:12: virtualnode/shop/b: spec.other: is not said"}, got); text == "" || diff != "" {
		t.Errorf("%q (-want +got):\n%s", text, diff)
	}
	if placed, _ := placesOf(r).of(said("b")); !strings.HasPrefix(placed, "m.yaml:17:") {
		t.Errorf("of the second object: %s", placed)
	}
}
