package exporter_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/mesh/dialect"
	"signet.example/mesh/exporter"
	"signet.example/mesh/importer"
	"signet.example/test/samples"
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

// objects are those that could be read, in CRD form.
func objects(r *importer.Report) (stored []exporter.Stored, byName map[string]string) {
	byName = map[string]string{}
	for _, o := range r.Objects {
		if text := o.Encode(); text != nil {
			stored = append(stored, exporter.Stored{Kind: o.Kind, Mesh: o.Mesh, Name: o.Name, Manifest: string(text)})
			byName[o.Kind+" "+o.Name] = string(text)
		}
	}
	return stored, byName
}

// Every object of the samples that comes in goes out into the form that it came in, and
// comes in again the same, with nothing dropped, defaulted or lost.
func TestSamplesAreExportedIntoTheirFormAndImportedAgainTheSame(t *testing.T) {
	n := 0
	for _, form := range exporter.Forms() {
		for _, name := range samples.Of(t, importer.Form(form)) {
			stored, want := objects(samples.Import(t, importer.Form(form), name))
			e, err := exporter.Write(form, stored)
			if err != nil {
				t.Fatal(err)
			}
			again := importer.Read([]dialect.File{{Name: "again", Content: e.Text()}}, importer.Options{})
			_, got := objects(again)
			if d := cmp.Diff(want, got); d != "" || len(e.Losses) > 0 || again.Counts[dialect.Dropped]+again.Counts[dialect.Missing] > 0 {
				t.Errorf("%s: %v %v %s", name, e.Losses, again.Findings, d)
			}
			n += len(got)
		}
	}
	if n < 190 {
		t.Errorf("only %d objects", n)
	}
}

// A route without virtualGatewayRef belongs to the only gateway: the API requires its name.
func TestAGatewayRouteIsExportedWithItsGatewayOrWithALoss(t *testing.T) {
	in := func(kind, name, spec string) exporter.Stored {
		return exporter.Stored{Kind: kind, Mesh: "one", Name: name, Manifest: group + kind + "\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n"}
	}
	const listeners = "meshRef: {name: one}, listeners: [{portMapping: {port: 80, protocol: http}}]"
	route := in("GatewayRoute", "r", "meshRef: {name: one}, httpRoute: {match: {prefix: /}, action: {target: {virtualService: {virtualServiceRef: {name: s}}}}}")
	for _, form := range []string{"aws", "cfn"} {
		e, err := exporter.Write(form, []exporter.Stored{route, in("VirtualGateway", "g", listeners)})
		if err != nil || len(e.Losses) > 0 {
			t.Fatal(form, err, e.Losses)
		}
		again := importer.Read([]dialect.File{{Name: "again", Content: e.Text()}}, importer.Options{})
		if _, got := objects(again); !strings.Contains(got["GatewayRoute r"], "virtualGatewayRef:\n    name: g") {
			t.Errorf("%s: %v %v", form, got, again.Findings)
		}
		for _, gateways := range [][]exporter.Stored{nil, {in("VirtualGateway", "g", listeners), in("VirtualGateway", "h", listeners)}} {
			e, err := exporter.Write(form, append(gateways, route))
			if err != nil || len(e.Losses) != 1 || !strings.HasPrefix(e.Losses[0], "GatewayRoute r: spec.virtualGatewayRef: ") || !strings.Contains(e.Losses[0], "--gateway NAME") {
				t.Errorf("%s: %v %v", form, err, e.Losses)
			}
		}
	}
}

// What a form cannot say is listed, and all else comes back by way of it.
func TestWhatAnotherFormCannotSayIsListedByObjectAndField(t *testing.T) {
	node := exporter.Stored{Kind: "VirtualNode", Mesh: "one", Name: "a", Manifest: group + "VirtualNode\nmetadata: {name: a, labels: {x: y}}\nspec: {meshRef: {name: one}, podSelector: {matchLabels: {app: a}}, listeners: [{portMapping: {port: 80, protocol: http}}]}\n"}
	for _, form := range []string{"aws", "cfn"} {
		e, err := exporter.Write(form, []exporter.Stored{node})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(e.Losses, func(l string) bool { return strings.HasPrefix(l, "VirtualNode a: spec.podSelector: ") }) {
			t.Errorf("%s: %v", form, e.Losses)
		}
		again := importer.Read([]dialect.File{{Name: "again", Content: e.Text()}}, importer.Options{})
		if len(again.Objects) != 1 || !strings.Contains(string(again.Objects[0].Encode()), "port: 80") {
			t.Errorf("%s: %v", form, again.Findings)
		}
	}
	if _, err := exporter.Write("xml", []exporter.Stored{node}); err == nil {
		t.Error("xml is written")
	}
}
