package mesh_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"signet.example/internal/manifest"
	"signet.example/mesh"
)

func TestLargestRouterIsRead(t *testing.T) {
	target := "        - {virtualNodeRef: {name: n}, weight: 10}\n"
	header := "        - {name: x-header, match: {exact: value}, invert: true}\n"
	var b strings.Builder
	b.WriteString(object("VirtualRouter", "r") + "spec:\n  listeners: [{portMapping: {port: 80, protocol: http}}]\n  routes:\n")
	for i := range 50 {
		fmt.Fprintf(&b, "  - name: route-%d\n    httpRoute:\n      match:\n        prefix: /\n        headers:\n%s      action:\n        weightedTargets:\n%s", i, strings.Repeat(header, 10), strings.Repeat(target, 10))
	}
	r := parseOne(t, b.String())
	if n := len(r.Spec.(*mesh.VirtualRouterSpec).Routes); n != 50 {
		t.Errorf("has %d routes", n)
	}
	if d := diff(r, parseOne(t, string(r.Encode()))); d != "" {
		t.Error(d)
	}
}

// Whatever bytes come: no panic, an error has a place, and what is accepted
// can be written and read back.
func FuzzSplit(f *testing.F) {
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	for _, file := range append(files, "testdata/shop.yaml") {
		content, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		docs, err := mesh.Split("f.yaml", content)
		errs := manifest.AsErrors(err)
		for _, d := range docs {
			if d.Foreign() {
				continue
			}
			r, err := mesh.Parse(d)
			errs = append(errs, manifest.AsErrors(err)...)
			if err != nil {
				continue
			}
			_, _ = mesh.Unsupported(r), mesh.Warnings(r)
			if d := diff(r, parseOne(t, string(r.Encode()))); d != "" {
				t.Fatal(d)
			}
		}
		for _, e := range errs {
			if e.File != "f.yaml" || e.Line < 1 {
				t.Fatalf("has no place: %+v", e)
			}
		}
	})
}
