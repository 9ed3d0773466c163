package server_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"signet.example/api"
)

// TestAnApplyParsesTheUsersTextOnceAndTheStoredFormOnce counts in the profile of
// allocations how often a text of a size is taken apart: each time begins with one copy
// of the whole of it.
func TestAnApplyParsesTheUsersTextOnceAndTheStoredFormOnce(t *testing.T) {
	r := newRig(t)
	r.apply("apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: m}\n---\n" +
		"apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: n}\nspec: {listeners: [{portMapping: {port: 80, protocol: http}}], serviceDiscovery: {dns: {hostname: n.internal}}}\n")
	router := func(weight int) string {
		var b strings.Builder
		b.WriteString(strings.Repeat("# what a user writes is longer than what is stored\n", 1000))
		b.WriteString("apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualRouter\nmetadata: {name: r}\nspec:\n  listeners: [{portMapping: {port: 80, protocol: http}}]\n  routes:\n")
		for i := range 50 {
			fmt.Fprintf(&b, "    - {name: route%d, httpRoute: {match: {prefix: /%d}, action: {weightedTargets: [{virtualNodeRef: {name: n}, weight: %d}]}}}\n", i, i, weight)
		}
		return b.String()
	}
	get := func() *api.Object {
		got, err := r.admin.Get(t.Context(), &api.GetRequest{Kind: "VirtualRouter", Name: "r"})
		if err != nil || len(got.GetObjects()) != 1 {
			t.Fatalf("get: %v, %v", got, err)
		}
		return got.GetObjects()[0]
	}
	r.apply(router(1))
	text, stored := len(router(1)), len(get().GetYaml())
	if float64(text) < 1.5*float64(stored) {
		t.Fatalf("texts of %d and %d bytes: too alike to be told apart", text, stored)
	}
	rate := runtime.MemProfileRate
	runtime.MemProfileRate = 1
	defer func() { runtime.MemProfileRate = rate }()
	for _, c := range []struct {
		name         string
		weight       int
		dry          bool
		text, stored int64
	}{
		{"nothing changes", 1, false, 1, 0},
		{"it is only tried", 2, true, 1, 1},
		{"it changes", 3, false, 1, 1},
	} {
		before := parses(text, stored)
		if _, err := r.admin.Apply(t.Context(), &api.ApplyRequest{DryRun: c.dry, Sources: []*api.Source{{File: "r.yaml", Content: []byte(router(c.weight))}}}); err != nil {
			t.Fatal(err)
		}
		get() // whoever reads next does not parse it again
		after := parses(text, stored)
		if of, back := after[0]-before[0], after[1]-before[1]; of != c.text || back != c.stored {
			t.Errorf("%s: the text was parsed %d times and the stored form %d, want %d and %d", c.name, of, back, c.text, c.stored)
		}
	}
}

// parses is how often texts of about these sizes were taken apart since the profile
// sees each allocation.
func parses(sizes ...int) []int64 {
	runtime.GC() // a profile is complete up to the collection before the last
	runtime.GC()
	records := make([]runtime.MemProfileRecord, 1000)
	for {
		n, ok := runtime.MemProfile(records, true)
		if ok {
			records = records[:n]
			break
		}
		records = make([]runtime.MemProfileRecord, n+n/4)
	}
	out := make([]int64, len(sizes))
	for _, record := range records {
		if record.AllocObjects == 0 {
			continue
		}
		size := int(record.AllocBytes / record.AllocObjects)
		for i, want := range sizes {
			if size >= want && size < want+want/4 && takesApart(record.Stack()) {
				out[i] += record.AllocObjects
			}
		}
	}
	return out
}

// takesApart reports whether a stack is that of the copy which manifest makes of a text.
func takesApart(stack []uintptr) bool {
	frames := runtime.CallersFrames(stack)
	for {
		f, more := frames.Next()
		if !strings.HasPrefix(f.Function, "runtime.") {
			return f.Function == "signet.example/internal/manifest.pieces"
		}
		if !more {
			return false
		}
	}
}

func TestAnApplyWithTooManyMistakesIsNotReadToItsEnd(t *testing.T) {
	r := newRig(t)
	foreign := strings.Repeat("---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n", 5000)
	_, err := r.admin.Apply(t.Context(), &api.ApplyRequest{Sources: []*api.Source{{File: "a.yaml", Content: []byte(foreign)}, {File: "b.yaml", Content: []byte(foreign)}}})
	if err == nil || strings.Count(err.Error(), "\n") > 1100 || !strings.Contains(err.Error(), "too many mistakes; the rest is not read") || strings.Contains(err.Error(), "b.yaml") {
		t.Errorf("%.300v", err)
	}
}
