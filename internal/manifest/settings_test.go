package manifest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signet.example/internal/manifest"
)

type settings struct {
	Name  string        `yaml:"name"`
	Grace time.Duration `yaml:"grace"`
	Limit int64         `yaml:"limit"`
	UID   *uint32       `yaml:"uid"`
	Parts []struct {
		User string `yaml:"user"`
	} `yaml:"parts"`
	Hook func() `yaml:"-"`
}

func TestSettingsAreReadOverWhatTheyWere(t *testing.T) {
	got := settings{Name: "before", Limit: 7}
	content := "# none\n---\ngrace: 1m30s\nuid: 5\nparts:\n  - user: 1000\n  - user: 1000:1000\nlimit:\n"
	if err := manifest.DecodeSettings("f.yaml", []byte(content), &got); err != nil {
		t.Fatal(err)
	}
	uid := uint32(5)
	want := settings{Name: "before", Grace: 90 * time.Second, Limit: 7, UID: &uid}
	want.Parts = []struct {
		User string `yaml:"user"`
	}{{"1000"}, {"1000:1000"}}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b func()) bool { return a == nil && b == nil })); d != "" {
		t.Error(d)
	}
	if err := manifest.DecodeSettings("empty.yaml", nil, &got); err != nil || got.Name != "before" {
		t.Errorf("an empty file: %v, %v", got, err)
	}
}

func TestEveryMistakeInSettingsHasItsPlace(t *testing.T) {
	for content, want := range map[string]string{
		"naem: a\nlimit: x\n":     "f.yaml:1:1: naem: unknown field; did you mean name?\nf.yaml:2:8: limit: must be a whole number, is a string: write it without quotes",
		"grace: 5\n":              `f.yaml:1:8: grace: "5" is not a duration such as 30s, 10m or 1h`,
		"grace: [1]\n":            "f.yaml:1:8: grace: must be a string, is a list",
		"- a\n":                   "f.yaml:1:1: must be a mapping, is a list",
		"name: a\n---\nname: b\n": "f.yaml:3:1: a second document: one is read",
		"name: a\nname: b\n":      "f.yaml:2:1: name: was given before, in line 1",
		"name: 0660\n":            `f.yaml:1:7: name: number "0660": write it in decimal without leading zeros, or in quotes where it is text`,
		"hook: a\n":               "f.yaml:1:1: hook: unknown field",
		"name: [\n":               "f.yaml:1:7: ",
	} {
		err := manifest.DecodeSettings("f.yaml", []byte(content), new(settings))
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: want %s: %v", content, want, err)
		}
	}
}

func FuzzDecodeSettings(f *testing.F) {
	f.Add([]byte("name: a\nparts: [{user: 1}]\n"))
	f.Add([]byte("grace: 1h\n---\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, e := range manifest.AsErrors(manifest.DecodeSettings("f.yaml", content, new(settings))) {
			if e.Line < 1 {
				t.Errorf("%q has no place", e)
			}
		}
	})
}
