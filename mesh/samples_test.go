package mesh_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/internal/manifest"
	"signet.example/mesh"
	"signet.example/mesh/graphtest"
	"signet.example/test/samples"
)

// verdict is the golden table's row: "applied", or what is refused by field.
func verdict(t *testing.T, content string) (table []string, applied []*mesh.Resource) {
	t.Helper()
	docs, err := mesh.Split("", []byte(content))
	if err != nil {
		t.Fatal(err)
	}
	foreign, refused := 0, false
	for _, d := range docs {
		if d.Foreign() {
			foreign++
			continue
		}
		r, err := mesh.Parse(d)
		errs := manifest.AsErrors(err)
		if err == nil {
			errs = mesh.Unsupported(r)
			applied = append(applied, r)
		}
		row := "applied"
		if len(errs) > 0 {
			row, refused = "refused: "+strings.Join(fieldsOf(errs), ", "), true
		}
		table = append(table, fmt.Sprintf("%s %s: %s", d.Kind, d.Name, row))
	}
	whole := "=> refused" // a call is applied whole or not at all
	if !refused {
		graphtest.Joined(t, applied)
		whole = "=> applied"
	}
	return append(table, fmt.Sprintf("%s; %d of other groups", whole, foreign)), applied
}

func TestWalkthroughsAreAppliedOrRefusedByField(t *testing.T) {
	var got strings.Builder
	for _, s := range samples.Five() {
		content := s.Content(t)
		table, applied := verdict(t, content)
		fmt.Fprintf(&got, "# %s\n%s\n\n", s.File, strings.Join(table, "\n"))
		readBack(t, content, applied)
		if s.Strip == "" {
			continue
		}
		content, line := s.Stripped(t)
		table, applied = verdict(t, content)
		fmt.Fprintf(&got, "# %s without the client policy's %q\n%s\n\n", s.File, line, strings.Join(table, "\n"))
		readBack(t, content, applied)
	}
	golden(t, "testdata/samples.golden", got.String())
}

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

// readBack compares what was written with what comes back, field by field, by
// another reader than ours.
func readBack(t *testing.T, content string, applied []*mesh.Resource) {
	t.Helper()
	inputs := samples.Documents(t, content)
	for _, r := range applied {
		out := r.Encode()
		in, back := inputs[string(r.Kind)+"/"+r.ObjectName], samples.Leaves(t, string(out))
		for path, value := range in {
			if back[path] != value {
				t.Errorf("%s %s: %s was %q, came back %q", r.Kind, r.ObjectName, path, value, back[path])
			}
		}
		for path := range back {
			if _, ok := in[path]; !ok && !samples.Defaults.MatchString(path) {
				t.Errorf("%s %s: %s came from nowhere", r.Kind, r.ObjectName, path)
			}
		}
	}
}

// Every CRD walkthrough, not only the five of the table, is understood; the
// golden file lists the few that are not App Mesh's form, or still templates.
func TestEveryCRDSampleIsReadable(t *testing.T) {
	entries, err := os.ReadDir(shared(t, "appmesh", "samples"))
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	var got strings.Builder
	for _, e := range entries {
		raw, err := os.ReadFile(shared(t, "appmesh", "samples", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(raw), "apiVersion: "+mesh.GroupVersion) {
			continue
		}
		files++
		docs, err := mesh.Split(e.Name(), []byte(samples.Placeholder.ReplaceAllString(string(raw), "x")))
		if err != nil {
			fmt.Fprintln(&got, err)
		}
		for _, d := range docs {
			if d.Foreign() {
				continue
			}
			if _, err := mesh.Parse(d); err != nil {
				fmt.Fprintln(&got, err)
			}
		}
	}
	if files < 19 {
		t.Errorf("read %d files, want 19", files)
	}
	golden(t, "testdata/unreadable.golden", got.String())
}
