package importer_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/mesh/dialect"
	"signet.example/mesh/importer"
	"signet.example/test/samples"
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
	names := samples.Of(t, importer.CRD)
	if len(names) != 19 {
		t.Errorf("%d samples: %v", len(names), names)
	}
	var b strings.Builder
	dropped := 0
	for _, name := range names {
		r := samples.Import(t, importer.CRD, name)
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

func TestTheSamplesOfTheCLIComeInAndNothingIsDropped(t *testing.T) {
	names := samples.Of(t, importer.AWS)
	if len(names) != 8 {
		t.Errorf("%d samples: %v", len(names), names)
	}
	var b strings.Builder
	for _, name := range names {
		r := samples.Import(t, importer.AWS, name)
		b.WriteString(row(r))
		if r.Counts[dialect.Dropped]+r.Counts[dialect.Opaque]+r.Counts[dialect.Missing] > 0 || len(r.Unfilled) > 0 {
			t.Errorf("%s: %v %v", name, r.Counts, r.Unfilled)
		}
	}
	golden(t, "testdata/aws.golden", b.String())
}

func TestTheSamplesOfCloudFormationComeInAndNothingIsDropped(t *testing.T) {
	names := samples.Of(t, importer.CloudFormation)
	if len(names) != 13 {
		t.Errorf("%d samples: %v", len(names), names)
	}
	var b strings.Builder
	for _, name := range names {
		r := samples.Import(t, importer.CloudFormation, name)
		b.WriteString(row(r))
		if r.Counts[dialect.Dropped]+r.Counts[dialect.Missing] > 0 {
			t.Errorf("%s: %v", name, r.Counts)
		}
	}
	golden(t, "testdata/cfn.golden", b.String())
}

// What is bare in JSON is no JSON without a value, and a text where one can stand; where a
// node is to be found by it, its object waits for the value.
func TestABarePlaceholderOfJSONIsATextUntilItHasAValue(t *testing.T) {
	name := "howto-outlier-detection__mesh_front-vn.json"
	r := importer.Read([]dialect.File{samples.File(t, name)}, importer.Options{})
	if len(r.Objects) != 1 || r.Counts[dialect.Opaque] != 1 || r.Counts[dialect.Missing] != 1 {
		t.Error(strings.Join(told(r), "\n"))
	}
	if d := cmp.Diff([]string{"BACKEND_VS_NAME", "NAMESPACE_NAME"}, r.Unfilled); d != "" {
		t.Error(d)
	}
}

// Whatever state a sample is in, what leaves is what would be read again: the same object
// and the same fields.
func TestWhatIsCompleteReadsBackTheSame(t *testing.T) {
	n := 0
	for _, name := range samples.Of(t, importer.CRD) {
		first := samples.Import(t, importer.CRD, name)
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
	for _, name := range samples.Of(t, importer.CRD) {
		r := importer.Read([]dialect.File{samples.File(t, name)}, importer.Options{})
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
