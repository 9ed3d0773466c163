package mesh_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/internal/manifest"
	"signet.example/mesh"
)

var update = flag.Bool("update", false, "rewrite the expectations under testdata; review the diff")

// mistakes is what reading a file says, a line each, without the file's name.
func mistakes(file string, content []byte) []string {
	docs, err := mesh.Split(file, content)
	all := manifest.AsErrors(err)
	for _, d := range docs {
		_, err := mesh.Parse(d)
		all = append(all, manifest.AsErrors(err)...)
	}
	var out []string
	for _, e := range all {
		out = append(out, strings.TrimPrefix(e.Error(), file+":"))
	}
	return out
}

// Each file begins with the messages it is refused with, a comment line each.
func TestEachMistakeIsToldByPlaceAndField(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 60 {
		t.Fatalf("found %d files, %v", len(files), err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		body := string(content)
		for strings.HasPrefix(body, "# ") {
			line, rest, _ := strings.Cut(body, "\n")
			want, body = append(want, strings.TrimPrefix(line, "# ")), rest
		}
		got := mistakes(file, content)
		if *update {
			writeBad(t, file, body)
			continue
		}
		if len(got) == 0 {
			t.Errorf("%s is accepted", file)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s:\n%s", file, d)
		}
	}
}

// writeBad puts the messages on top, which moves the lines that they name.
func writeBad(t *testing.T, file, body string) {
	head := strings.Repeat("# \n", len(mistakes(file, []byte(body))))
	got := mistakes(file, []byte(head+body))
	if err := os.WriteFile(file, []byte("# "+strings.Join(got, "\n# ")+"\n"+body), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestErrorShowsItsSourceWithACaret(t *testing.T) {
	content, err := os.ReadFile("testdata/bad/port-too-large.yaml")
	if err != nil {
		t.Fatal(err)
	}
	docs, err := mesh.Split("bad.yaml", content)
	if err != nil {
		t.Fatal(err)
	}
	_, err = mesh.Parse(docs[0])
	var e *manifest.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v", err)
	}
	want := "   8 |   - portMapping:\n   9 |       port: 70000\n     |             ^\n"
	if e.Excerpt != want {
		t.Errorf("got\n%s\nwant\n%s", e.Excerpt, want)
	}
}
