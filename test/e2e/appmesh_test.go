package e2e

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/test/meshtest"
	"signet.example/test/samples"
)

var update = flag.Bool("update", false, "rewrite golden files; review the diff")

// fewest are how many of the five walkthroughs, and their variants, are applied.
const fewest = 5

func TestWalkthroughsOfAppMeshAreAppliedOrRefusedByField(t *testing.T) {
	applied := 0
	for _, s := range samples.Five() {
		name, _, _ := strings.Cut(s.File, ".")
		if walk(t, name, s.Content(t)) {
			applied++
		}
		if s.Strip != "" {
			content, _ := s.Stripped(t)
			if walk(t, name+"_stripped", content) {
				applied++
			}
		}
	}
	t.Logf("%d of the walkthroughs were applied", applied)
	if applied < fewest {
		t.Errorf("only %d were applied, want %d at least", applied, fewest)
	}
}

// walk applies one walkthrough to a server of its own and compares what is said
// with the golden file.
func walk(t *testing.T, name, content string) bool {
	ok := false
	t.Run(name, func(t *testing.T) {
		w := meshtest.Start(t, meshtest.Options{TrustDomain: "example.org", NoAgent: true, Policy: map[string]string{"none": ""}})
		file := manifest(t, w, "walkthrough.yaml", content)
		out, code := w.CLI("apply", "-f", file, "--skip-foreign")
		var got strings.Builder
		fmt.Fprintf(&got, "$ signet apply -f walkthrough.yaml --skip-foreign\n%sexit code %d\n", strings.ReplaceAll(out, filepath.Dir(file)+"/", ""), code)
		if ok = code == 0; ok {
			readBack(t, w, content, &got)
		} else if stored, _ := w.CLI("get", "all"); strings.Contains(strings.ToLower(stored), "virtual") {
			t.Errorf("what was refused is stored in part:\n%s", stored)
		}
		golden(t, filepath.Join("testdata", "appmesh", name+".golden"), got.String())
	})
	return ok
}

// readBack compares what was written with what is read, field by field, by
// another reader than ours, and lists the defaults that were added.
func readBack(t *testing.T, w *meshtest.World, content string, got *strings.Builder) {
	t.Helper()
	yaml, stderr, code := w.CLISplit("get", "all", "-o", "yaml")
	if code != 0 {
		t.Fatalf("get: exit %d: %s", code, stderr)
	}
	in, back := samples.Documents(t, content), samples.Documents(t, yaml)
	_, _ = fmt.Fprintln(got, "\n# defaults that reading back shows")
	for _, key := range slices.Sorted(maps.Keys(in)) {
		written, read := in[key], back[key]
		if !strings.Contains(written["apiVersion"], "appmesh.k8s.aws/") {
			continue // of other API groups: skipped and counted
		}
		if read == nil {
			t.Errorf("%s was applied and is not there", key)
			continue
		}
		for _, path := range slices.Sorted(maps.Keys(written)) {
			if read[path] != written[path] {
				t.Errorf("%s: %s was %q, came back %q", key, path, written[path], read[path])
			}
		}
		for _, path := range slices.Sorted(maps.Keys(read)) {
			if _, ok := written[path]; ok {
				continue
			}
			if !samples.Defaults.MatchString(path) {
				t.Errorf("%s: %s came from nowhere", key, path)
			}
			_, value, _ := strings.Cut(read[path], " ")
			_, _ = fmt.Fprintf(got, "%s %s: %s\n", key, path, value)
		}
	}
	for key, read := range back {
		if strings.Contains(read["apiVersion"], "appmesh.k8s.aws/") && in[key] == nil {
			t.Errorf("%s was not in the input", key)
		}
	}
	again := manifest(t, w, "again.yaml", yaml)
	// Nothing on standard output; what has no effect is warned of each time.
	for _, args := range [][]string{{"diff", "-f", again}, {"diff", "-f", filepath.Join(w.Dir, "walkthrough.yaml"), "--skip-foreign"}} {
		out, warnings, code := w.CLISplit(args...)
		if out != "" || code != 0 {
			t.Errorf("signet %v: exit %d:\n%s", args, code, out)
		}
		for line := range strings.Lines(warnings) {
			if !strings.HasPrefix(line, "warning: ") && !strings.HasPrefix(line, "  the same at ") {
				t.Errorf("signet %v: %s", args, line)
			}
		}
	}
	out, stderr, code := w.CLISplit("apply", "-f", again)
	if code != 0 || out == "" {
		t.Errorf("apply of what was read back: exit %d: %s", code, stderr)
	}
	for line := range strings.Lines(out) {
		if !strings.HasSuffix(line, " unchanged\n") {
			t.Errorf("apply of what was read back: %s", line)
		}
	}
}

func manifest(t *testing.T, w *meshtest.World, name, content string) string {
	t.Helper()
	path := filepath.Join(w.Dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			t.Fatal(err)
		}
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
