package draft_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/mesh/graphtest"
	"signet.example/policy"
	"signet.example/policy/check"
	"signet.example/policy/draft"
	"signet.example/policy/tree"
	"signet.example/xds/predict"
)

var update = flag.Bool("update", false, "write testdata anew")

var prod = spiffeid.RequireTrustDomainFromString("prod.example")

func shop(t *testing.T) draft.Mesh {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", "mesh.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return meshOf(t, content)
}

func meshOf(t *testing.T, content []byte) draft.Mesh {
	t.Helper()
	return draft.Mesh{Graph: graphtest.Graph(t, "mesh.yaml", content), TrustDomain: prod, Example: predict.Example}
}

// served are the files as sync reads them: nothing is refused or warned of, and their own
// tests pass.
func served(t *testing.T, d draft.Draft) {
	t.Helper()
	var modules []policy.Module
	for _, f := range d.Files {
		modules = append(modules, policy.Module{Path: f.Path, Rego: f.Content})
	}
	report, err := check.Tree(t.Context(), tree.Tree{Modules: modules})
	if err != nil || len(report.Warnings) > 0 || report.Passed == 0 {
		t.Errorf("%v, %v, %d tests", err, report.Warnings, report.Passed)
	}
}

// golden compares all files and notes with those in testdata.
func golden(t *testing.T, name string, d draft.Draft) {
	t.Helper()
	var b bytes.Buffer
	for _, f := range d.Files {
		b.WriteString("-- " + f.Path + " --\n" + f.Content)
	}
	b.WriteString("-- notes --\n" + strings.Join(d.Notes, "\n") + "\n")
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("%s is not what it was (-update writes it anew):\n%s", file, b.String())
	}
}

// What a repository cannot hold is said before it is pushed.
func TestMoreThanARepositoryHoldsIsSaid(t *testing.T) {
	var b strings.Builder
	b.WriteString("apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\n")
	for i := range 667 {
		fmt.Fprintf(&b, "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: n%d}\nspec: {listeners: [{portMapping: {port: 80, protocol: http}}], backends: [{virtualService: {virtualServiceRef: {name: s%[1]d}}}]}\n", i)
		fmt.Fprintf(&b, "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: s%d}\nspec: {provider: {virtualNode: {virtualNodeRef: {name: n%[1]d}}}}\n", i)
	}
	d := draft.FromMesh(meshOf(t, []byte(b.String())))
	if len(d.Files) != 2*667 || !slices.ContainsFunc(d.Notes, func(n string) bool { return strings.Contains(n, "may hold 2000 files and folders, and these are 2001") }) {
		t.Errorf("%d files, %v", len(d.Files), d.Notes)
	}
}

func TestRulesAreWrittenForWhatAMeshDeclares(t *testing.T) {
	d := draft.FromMesh(shop(t))
	served(t, d)
	golden(t, "declared.txt", d)
	for range 5 {
		if again := draft.FromMesh(shop(t)); !slices.Equal(again.Files, d.Files) || !slices.Equal(again.Notes, d.Notes) {
			t.Fatal("the same mesh gives other files")
		}
	}
	only := shop(t)
	only.Only = "none"
	if d := draft.FromMesh(only); len(d.Files)+len(d.Notes) > 0 {
		t.Errorf("of another mesh: %v", d)
	}
}
