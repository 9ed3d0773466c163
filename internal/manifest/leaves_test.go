package manifest_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/internal/manifest"
)

// angled takes <NAME> for a placeholder.
var angled = &manifest.Format{Versions: format.Versions, Unfilled: func(text string) (string, []string) {
	_, rest, ok := strings.Cut(text, "<")
	if !ok {
		return text, nil
	}
	name, _, _ := strings.Cut(rest, ">")
	return "${" + name + "}", []string{name}
}}

func TestTheLeavesOfADocumentAreWhatWasGiven(t *testing.T) {
	docs, err := format.Split("f.yaml", []byte("apiVersion: signet.example/v1alpha1\nkind: K\nmetadata: {name: n}\nspec:\n  a: [1, {b: x}]\n  c:\n  d: {}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []manifest.Leaf{
		{Path: "apiVersion", Line: 1, Column: 13, Text: "signet.example/v1alpha1"},
		{Path: "kind", Line: 2, Column: 7, Text: "K"},
		{Path: "metadata.name", Line: 3, Column: 18, Text: "n"},
		{Path: "spec.a[0]", Line: 5, Column: 7, Text: "1"},
		{Path: "spec.a[1].b", Line: 5, Column: 14, Text: "x"},
		{Path: "spec.d", Line: 7, Column: 6},
	}
	if d := cmp.Diff(want, slices.Collect(docs[0].Leaves())); d != "" {
		t.Error(d)
	}
}

func TestWhatIsWrongBecauseAPlaceholderHasNoValueSaysSo(t *testing.T) {
	const text = "apiVersion: signet.example/v1alpha1\nkind: K\nmetadata: {name: n, labels: {a: <L>}}\nspec:\n  group: <G>\n  limit: <N>\n  selectors: <S>\n"
	docs, err := angled.Split("f.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var b binding
	got := map[string][]string{}
	for _, e := range manifest.AsErrors(docs[0].Decode(&b)) {
		got[e.Field] = e.Unfilled
	}
	if d := cmp.Diff(map[string][]string{"spec.limit": {"N"}, "spec.selectors": {"S"}}, got); d != "" {
		t.Error(d)
	}
	if b.Group != "${G}" || docs[0].Labels["a"] != "${L}" {
		t.Errorf("%q and %q are not what was written", b.Group, docs[0].Labels["a"])
	}
	if e := docs[0].FieldError("spec.group", "is no group"); !slices.Equal(e.Unfilled, []string{"G"}) {
		t.Errorf("%v", e.Unfilled)
	}
	if _, err := angled.Split("f.yaml", []byte("apiVersion: signet.example/v1alpha1\nkind: K\nmetadata: {name: n}\nspec: {<K>: 1}\n")); err != nil {
		t.Fatal(err)
	}
}
