package exporter_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/mesh/dialect"
	"signet.example/mesh/exporter"
	"signet.example/mesh/importer"
	"signet.example/mesh/placeholder"
	"signet.example/test/parts"
)

const group = "apiVersion: appmesh.k8s.aws/v1beta2\nkind: "

func export(t *testing.T, stored ...exporter.Stored) (*exporter.Export, string) {
	t.Helper()
	e, err := exporter.Write("crd", stored)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, p := range e.Parts {
		all = append(all, string(p.Content))
	}
	return e, strings.Join(all, "---\n")
}

func TestWhatIsExportedNamesItsMeshWhereThereAreSeveral(t *testing.T) {
	one := exporter.Stored{Kind: "Mesh", Mesh: "one", Name: "one", Manifest: group + "Mesh\nmetadata: {name: one}\n"}
	node := exporter.Stored{Kind: "VirtualNode", Mesh: "one", Name: "a", Manifest: group + "VirtualNode\nmetadata: {name: a}\n"}
	other := exporter.Stored{Kind: "Mesh", Mesh: "two", Name: "two", Manifest: group + "Mesh\nmetadata: {name: two}\n"}
	own := exporter.Stored{Kind: "NodeGroup", Name: "edge", Manifest: "apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: edge}\n"}
	e, text := export(t, node, one, own)
	if strings.Contains(text, "meshRef") || e.Others != 1 || !strings.HasPrefix(text, group+"Mesh") {
		t.Error(e.Others, text)
	}
	if e, text = export(t, node, one, other); !strings.Contains(text, "meshRef:\n    name: one") {
		t.Error(text)
	}
	var files []string
	for _, p := range e.Parts {
		files = append(files, p.File)
	}
	if d := cmp.Diff([]string{"mesh_one.yaml", "one_virtualnode_a.yaml", "mesh_two.yaml"}, files); d != "" {
		t.Error(d)
	}
}

// Every object of the samples that comes in goes out and comes in again the same, with
// nothing dropped, defaulted or lost.
func TestSamplesAreExportedIntoTheirFormAndImportedAgainTheSame(t *testing.T) {
	content, err := os.ReadFile("../importer/testdata/crd.vars")
	if err != nil {
		t.Fatal(err)
	}
	values, err := placeholder.ParseVars("crd.vars", content)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(parts.Shared(t, "appmesh", "samples"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, entry := range entries {
		content, err := os.ReadFile(parts.Shared(t, "appmesh", "samples", entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		first := importer.Read([]dialect.File{{Name: entry.Name(), Content: content}}, importer.Options{Values: values})
		var stored []exporter.Stored
		want := map[string]string{}
		for _, o := range first.Objects {
			if o.Encode() != nil {
				stored = append(stored, exporter.Stored{Kind: o.Kind, Mesh: o.Mesh, Name: o.Name, Manifest: string(o.Encode())})
				want[o.Kind+" "+o.Name] = string(o.Encode())
			}
		}
		e, text := export(t, stored...)
		again := importer.Read([]dialect.File{{Name: "again.yaml", Content: []byte(text)}}, importer.Options{})
		got := map[string]string{}
		for _, o := range again.Objects {
			got[o.Kind+" "+o.Name] = string(o.Encode())
			n++
		}
		if d := cmp.Diff(want, got); d != "" || len(e.Losses) > 0 || again.Counts[dialect.Dropped]+again.Counts[dialect.Defaulted] > 0 {
			t.Errorf("%s: %v %s", entry.Name(), e.Losses, d)
		}
	}
	if n < 80 {
		t.Errorf("only %d objects", n)
	}
}
