package manifest_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signet.example/internal/manifest"
)

// format stands for that of a program that reads two groups.
var format = &manifest.Format{Versions: []string{"appmesh.k8s.aws/v1beta2", "signet.example/v1alpha1"}}

// binding stands for the specs that other packages decode.
type binding struct {
	Group     string                 `yaml:"group"`
	Selectors []string               `json:"selectors"`
	Limit     *int                   `yaml:"limit,omitempty"`
	Node      *struct{ M, N string } `yaml:"virtualNode,omitempty"`
	TTL       duration               `yaml:"ttl"`
	Tags      map[string]string      `yaml:"tags"`
}

type duration struct{ time.Duration }

func (d *duration) UnmarshalText(b []byte) (err error) {
	if d.Duration, err = time.ParseDuration(string(b)); err != nil {
		return fmt.Errorf("is not a duration such as 1h")
	}
	return nil
}

func signetDoc(t *testing.T, spec string) *manifest.Document {
	t.Helper()
	docs, err := format.Split("b.yaml", []byte("apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: b}\n"+spec))
	if err != nil {
		t.Fatal(err)
	}
	return docs[0]
}

func TestDecodeFillsSpecsOfOtherOwners(t *testing.T) {
	var got binding
	err := signetDoc(t, "spec: {group: g, selectors: [a, b], limit: 3, virtualNode: {m: x, n: y}, ttl: 90m, tags: {k: v}}").Decode(&got)
	if err != nil {
		t.Fatal(err)
	}
	three := 3
	want := binding{
		Group: "g", Selectors: []string{"a", "b"}, Limit: &three, Node: &struct{ M, N string }{"x", "y"},
		TTL: duration{90 * time.Minute}, Tags: map[string]string{"k": "v"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestDecodeNamesEveryMistake(t *testing.T) {
	err := signetDoc(t, "spec:\n  group: 1\n  selectors:\n  - a\n  - ~\n  ttl: long\n  virtualNode: x\n  limit: 1.5\n  tags: {a: }\n  grup: x\n").Decode(&binding{})
	var got []string
	for _, e := range manifest.AsErrors(err) {
		got = append(got, e.Error())
	}
	want := []string{
		"b.yaml:5:10: spec.group: must be a string, is a whole number: quote it",
		"b.yaml:8:5: spec.selectors[1]: is empty",
		"b.yaml:9:8: spec.ttl: is not a duration such as 1h",
		"b.yaml:10:16: spec.virtualNode: must be a mapping, is a string",
		"b.yaml:11:10: spec.limit: must be a whole number, is a number",
		`b.yaml:12:10: spec.tags["a"]: is empty`,
		"b.yaml:13:3: spec.grup: unknown field; did you mean group?",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestAbsentAndNullSpecsAreEmpty(t *testing.T) {
	for _, spec := range []string{"", "spec:", "spec: {}", "spec: ~"} {
		var got binding
		if err := signetDoc(t, spec).Decode(&got); err != nil || got.Group != "" {
			t.Errorf("%q: %v", spec, err)
		}
	}
}

// What refers to nothing, and what an API server wrote, is known by a field of the
// error: who decides by it does not read the message.
func TestAnErrorSaysByFieldsWhatIsDecidedByIt(t *testing.T) {
	d := signetDoc(t, "spec:\n  group: g\nstatus: {}\n")
	e := d.DanglingError("spec.group", "Entry b names NodeGroup g", " in this mesh")
	if e.Dangling != "Entry b names NodeGroup g" || e.Msg != e.Dangling+", which does not exist in this mesh" || e.Line != 5 {
		t.Errorf("%+v", e)
	}
	if ignored := d.Ignored(); len(ignored) != 1 || !ignored[0].Exported || e.Exported {
		t.Errorf("%+v", ignored)
	}
}

func TestFieldErrorPointsAtTheFieldOrTheNearestAbove(t *testing.T) {
	d := signetDoc(t, "spec:\n  group: g\n  selectors:\n  - a\n  - b\n")
	for path, want := range map[string]string{
		"spec.selectors[1]":  "b.yaml:8:5",
		"spec.selectors[9]":  "b.yaml:6:3",
		"spec.selectors[-1]": "b.yaml:6:3",
		"spec.group":         "b.yaml:5:10",
		"spec.ttl":           "b.yaml:4:1",
		"spec.group.x":       "b.yaml:5:10",
		"kind":               "b.yaml:2:7",
		"":                   "b.yaml:1:1",
		".":                  "b.yaml:1:1",
		"[":                  "b.yaml:1:1",
	} {
		got := d.FieldError(path, "no").Error()
		full := want + ": " + path + ": no"
		if path == "" {
			full = want + ": no"
		}
		if got != full {
			t.Errorf("%q: got %s, want %s", path, got, full)
		}
	}
}

func TestADocumentThatWasForgottenIsReadAgainWhereItIsAsked(t *testing.T) {
	for _, spec := range []string{
		"spec:\n  group: g\n  selectors:\n  - a\n", // without the parser
		"spec:\n  group: 'g'  # by the parser\n  none: x\nstatus: {}\n",
	} {
		said := func(d *manifest.Document) []any {
			var b binding
			return []any{
				fmt.Sprint(d.Decode(&b)), b, d.FieldError("spec.group", "no").Error(), d.FieldError("spec.selectors[0]", "no").Error(),
				d.Has("spec.group"), d.Has("spec.ttl"), d.Ignored().Error(), slices.Collect(d.Leaves()),
			}
		}
		d := signetDoc(t, spec)
		want := said(d)
		d.Forget()
		if diff := cmp.Diff(want, said(d)); diff != "" {
			t.Error(diff)
		}
	}
}

// One run tells all: what cannot be read hides nothing that can.
func TestWhatIsBrokenInADocumentHidesNoOtherMistake(t *testing.T) {
	d := signetDoc(t, "spec:\n  group: a\n  group: b\n  selectors: !x []\n  limit: 010\n  ttl: *none\n  virtualNode: {<<: 1, m: 2}\n  tags: x\n")
	var got []string
	for _, e := range manifest.AsErrors(d.Decode(&binding{})) {
		got = append(got, e.Error())
	}
	want := []string{
		"b.yaml:6:3: spec.group: was given before, in line 5",
		"b.yaml:7:14: spec.selectors: has a YAML tag, which is not accepted",
		`b.yaml:8:10: spec.limit: number "010": write it in decimal without leading zeros, or in quotes where it is text, such as a mode`,
		"b.yaml:9:8: spec.ttl: alias *none has no anchor before it",
		"b.yaml:10:17: spec.virtualNode: merge keys (<<) are not accepted: write the fields out",
		"b.yaml:10:27: spec.virtualNode.m: must be a string, is a whole number: quote it",
		"b.yaml:11:9: spec.tags: must be a mapping, is a string",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestAMistakeThatMayFollowFromAnotherIsNotTold(t *testing.T) {
	known := manifest.Errors{{Field: "spec.routes[1].match", Msg: "known"}}
	var got []string
	for _, e := range known.With(manifest.Errors{
		{Field: "spec.routes[1].match"},
		{Field: "spec.routes[1].match.headers[0]"},
		{Field: "spec.routes[1]"},
		{Field: "spec"},
		{Field: ""},
		{Field: "spec.routes[10].match"},
		{Field: "spec.routes[1].matches"},
		{Field: "metadata.name"},
	}) {
		got = append(got, e.Field)
	}
	if d := cmp.Diff([]string{"spec.routes[1].match", "spec.routes[10].match", "spec.routes[1].matches", "metadata.name"}, got); d != "" {
		t.Error(d)
	}
}
