package store_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"signet.example/store"
)

// BenchmarkApplyManyObjects is what a whole mesh of 2,000 objects costs to write.
func BenchmarkApplyManyObjects(b *testing.B) {
	st, err := store.Create(b.Context(), filepath.Join(b.TempDir(), "store.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	writes := make([]store.Write, 2000)
	var revision uint64
	for b.Loop() {
		for i := range writes {
			writes[i].Object = store.Object{Kind: "VirtualNode", Mesh: "m", Name: fmt.Sprint(i), Manifest: make([]byte, 400)}
		}
		if revision, err = st.Apply(b.Context(), "a", "b", revision, writes); err != nil {
			b.Fatal(err)
		}
	}
}
