package placeholder_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/mesh/placeholder"
)

func TestValuesAreReadAsLinesOrAsYAML(t *testing.T) {
	want := map[string]string{"MESH": "shop", "PORT": "8080", "A": "x=y z"}
	for _, text := range []string{
		"# of the walkthrough\nexport MESH=shop\n\nPORT=\"8080\"\nA='x=y z'\r\n",
		"MESH: shop\nPORT: 8080\nA: x=y z\n",
		`{"MESH": "shop", "PORT": "8080", "A": "x=y z"}`,
		`[{"ParameterKey": "MESH", "ParameterValue": "shop"}, {"ParameterKey": "PORT", "ParameterValue": "8080", "UsePreviousValue": false}, {"ParameterKey": "A", "ParameterValue": "x=y z"}]`,
	} {
		got, err := placeholder.ParseVars("vars", []byte(text))
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%q: %v %s", text, err, d)
		}
	}
	for _, text := range []string{"MESH\n", "a b: c\n", "A: [1]\n", "A: {b: c}\n", "[]", `[{"ParameterValue": "x"}]`, "A: \"\ue000\"\n", "A=" + strings.Repeat("x", 70_000)} {
		if got, err := placeholder.ParseVars("vars", []byte(text)); err == nil {
			t.Errorf("%.40q: %v", text, got)
		}
	}
}

func FuzzParseVars(f *testing.F) {
	f.Add("MESH=shop\nA: b\n")
	f.Add("{A: b}")
	f.Fuzz(func(t *testing.T, text string) {
		values, err := placeholder.ParseVars("vars", []byte(text))
		if err != nil {
			return
		}
		for name, value := range values {
			if placeholder.CheckName(name) != nil || placeholder.CheckValue(value) != nil {
				t.Errorf("%q=%q", name, value)
			}
		}
	})
}
