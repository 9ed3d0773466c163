package importer_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/mesh"
	"signet.example/mesh/dialect"
	"signet.example/mesh/importer"
	"signet.example/mesh/placeholder"
	"signet.example/test/parts"
)

var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (rewrite with -update, review the diff):\n%s", file, d)
	}
}

// sample is one of the public walkthroughs.
func sample(t *testing.T, name string) dialect.File {
	t.Helper()
	content, err := os.ReadFile(parts.Shared(t, "appmesh", "samples", name))
	if err != nil {
		t.Fatal(err)
	}
	return dialect.File{Name: name, Content: content}
}

// samples are the names of those in a form.
func samples(t *testing.T, form importer.Form) []string {
	t.Helper()
	entries, err := os.ReadDir(parts.Shared(t, "appmesh", "samples"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() == "index.md" {
			continue
		}
		if got := importer.Read([]dialect.File{sample(t, e.Name())}, importer.Options{}).Files[0].Form; got == form {
			names = append(names, e.Name())
		}
	}
	return names
}

func vars(t *testing.T, file string) map[string]string {
	t.Helper()
	content, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	values, err := placeholder.ParseVars(file, content)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// read is what an object is told to be, whether it is translated yet or not: that is
// mesh's own test.
func read(o *importer.Object) string {
	if o.State == importer.Complete || o.State == importer.Untranslated || o.State == importer.Dependent {
		return "read"
	}
	return string(o.State)
}

// told are the findings of a report that a user must know, without those of what is not
// translated yet.
func told(r *importer.Report) []string {
	var lines []string
	for _, f := range r.Findings {
		switch f.Outcome {
		case dialect.Mapped, dialect.Defaulted, importer.Unresolved:
			continue
		case dialect.Refused:
			if strings.HasPrefix(f.Text, "not supported") || strings.Contains(f.Text, " is not translated") || strings.Contains(f.Text, " is left out") {
				continue
			}
		}
		f.File = ""
		lines = append(lines, strings.TrimPrefix(f.String(), ":"))
	}
	return lines
}

// row is what a report says of one file, for a golden file.
func row(r *importer.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n", r.Files[0].Name)
	for _, o := range r.Objects {
		fmt.Fprintf(&b, "%d: %s %s/%s: %s\n", o.Line, o.Kind, o.Mesh, o.Name, read(o))
	}
	for _, line := range told(r) {
		fmt.Fprintln(&b, line)
	}
	fmt.Fprintf(&b, "%d fields mapped, %d defaulted; %d of other kinds\n\n", r.Counts[dialect.Mapped], r.Counts[dialect.Defaulted], len(r.Context))
	return b.String()
}

func TestTheSamplesOfTheCRDFormComeInAndOnlyWhatTheAPIDoesNotHaveIsDropped(t *testing.T) {
	names, values := samples(t, importer.CRD), vars(t, "crd.vars")
	if len(names) != 19 {
		t.Errorf("%d samples: %v", len(names), names)
	}
	var b strings.Builder
	dropped := 0
	for _, name := range names {
		r := importer.Read([]dialect.File{sample(t, name)}, importer.Options{Values: values})
		b.WriteString(row(r))
		dropped += r.Counts[dialect.Dropped]
		if r.Counts[dialect.Opaque]+r.Counts[dialect.Missing] > 0 || len(r.Unfilled) > 0 {
			t.Errorf("%s: %v have no value", name, r.Unfilled)
		}
	}
	golden(t, "testdata/crd.golden", b.String())
	if dropped != 2 {
		t.Errorf("%d fields were dropped: the API model has all but tcpRoute.match.prefix and clientPolicy.tls.mode", dropped)
	}
}

// aside is what the commands of the walkthroughs said beside their files.
var aside = map[string]dialect.Options{
	"howto-ingress-gateway__mesh_colorgateway-vg.json":                            {Name: "colorgateway"},
	"howto-ingress-gateway__mesh_colorteller-white-vn-tls.json":                   {Name: "colorteller-white"},
	"howto-ingress-gateway__mesh_mesh.json":                                       {Name: "shop", Kind: mesh.KindMesh},
	"howto-mutual-tls-file-provided__mesh_updates_colorteller-vn-strict-tls.json": {Name: "colorteller"},
}

// around is what stood in App Mesh already when a file was given.
var around = map[string]string{
	"howto-grpc__mesh_route-retries.json":      `{"virtualRouterName": "virtual-router", "spec": {"listeners": [{"portMapping": {"port": 8080, "protocol": "grpc"}}]}}`,
	"howto-http2__mesh_route-red-retries.json": `{"virtualRouterName": "virtual-router", "spec": {"listeners": [{"portMapping": {"port": 8080, "protocol": "http2"}}]}}`,
}

func TestTheSamplesOfTheCLIComeInAndNothingIsDropped(t *testing.T) {
	names, values := samples(t, importer.AWS), vars(t, "aws.vars")
	if len(names) != 8 {
		t.Errorf("%d samples: %v", len(names), names)
	}
	var b strings.Builder
	for _, name := range names {
		files := []dialect.File{sample(t, name)}
		if text := around[name]; text != "" {
			files = append(files, dialect.File{Name: "around.json", Content: []byte(text)})
		}
		r := importer.Read(files, importer.Options{Values: values, Other: aside[name]})
		b.WriteString(row(r))
		if r.Counts[dialect.Dropped]+r.Counts[dialect.Opaque]+r.Counts[dialect.Missing] > 0 || len(r.Unfilled) > 0 {
			t.Errorf("%s: %v %v", name, r.Counts, r.Unfilled)
		}
	}
	golden(t, "testdata/aws.golden", b.String())
}

func TestTheSamplesOfCloudFormationComeInAndNothingIsDropped(t *testing.T) {
	names := samples(t, importer.CloudFormation)
	if len(names) != 13 {
		t.Errorf("%d samples: %v", len(names), names)
	}
	o := importer.Options{Values: vars(t, "cfn.vars"), Other: dialect.Options{
		Region: "eu-west-1", AccountID: "111122223333", StackName: "stack",
		Exports: map[string]string{
			"yelb:Mesh": "yelb", "RootCA": "arn:aws:acm-pca:eu-west-1:111122223333:certificate-authority/r",
			"AppMeshCert": "arn:aws:acm:eu-west-1:111122223333:certificate/c", "EXTLB": "ext.example",
		},
	}}
	var b strings.Builder
	for _, name := range names {
		r := importer.Read([]dialect.File{sample(t, name)}, o)
		b.WriteString(row(r))
		if r.Counts[dialect.Dropped]+r.Counts[dialect.Missing] > 0 {
			t.Errorf("%s: %v", name, r.Counts)
		}
	}
	golden(t, "testdata/cfn.golden", b.String())
}

// What is bare in JSON is no JSON without a value, and a text where one can stand.
func TestABarePlaceholderOfJSONIsATextUntilItHasAValue(t *testing.T) {
	name := "howto-outlier-detection__mesh_front-vn.json"
	r := importer.Read([]dialect.File{sample(t, name)}, importer.Options{})
	if len(r.Objects) != 1 || r.Counts[dialect.Opaque] != 2 || r.Counts[dialect.Missing] != 0 {
		t.Error(strings.Join(told(r), "\n"))
	}
	if d := cmp.Diff([]string{"BACKEND_VS_NAME", "NAMESPACE_NAME"}, r.Unfilled); d != "" {
		t.Error(d)
	}
}

// Whatever state a sample is in, what leaves is what would be read again: the same object
// and the same fields.
func TestWhatIsCompleteReadsBackTheSame(t *testing.T) {
	values := vars(t, "crd.vars")
	n := 0
	for _, name := range samples(t, importer.CRD) {
		first := importer.Read([]dialect.File{sample(t, name)}, importer.Options{Values: values})
		for _, m := range first.Manifests() {
			again := importer.Read([]dialect.File{{Name: "again", Content: m.Content}}, importer.Options{})
			if len(again.Objects) != 1 {
				t.Fatalf("%s: %s reads back as %d objects", name, m.Object.Name, len(again.Objects))
			}
			if d := cmp.Diff(string(m.Content), string(again.Objects[0].Encode())); d != "" {
				t.Errorf("%s: %s: %s", name, m.Object.Name, d)
			}
			for _, f := range again.Findings {
				if f.Outcome == dialect.Dropped || f.Outcome == dialect.Refused || f.Outcome == dialect.Defaulted {
					t.Errorf("%s: %s: %s", name, m.Object.Name, f)
				}
			}
			n++
		}
	}
	if n < 20 {
		t.Errorf("only %d objects are complete", n)
	}
}

// Without values nothing of a template is applied whose number, list or name is not known,
// and the placeholders are named.
func TestSamplesWithoutValuesAreIncompleteByName(t *testing.T) {
	for _, name := range samples(t, importer.CRD) {
		r := importer.Read([]dialect.File{sample(t, name)}, importer.Options{})
		for _, o := range r.Objects {
			if strings.Contains(o.Name+o.Mesh, "$") && o.State == importer.Complete {
				t.Errorf("%s: %s %s is complete", name, o.Kind, o.Name)
			}
		}
		for _, f := range r.Findings {
			if f.Outcome == dialect.Refused && f.Object == "" {
				t.Errorf("%s", f) // a template that was no YAML
			}
		}
	}
}
