package main

import (
	"bytes"
	"strings"
	"testing"

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
