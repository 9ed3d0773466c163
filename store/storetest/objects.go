package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signet.example/store"
)

func revisionsHaveNoGaps(t *testing.T, b Backend) {
	const writers, each = 8, 10
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[uint64]bool{}
	for w := range writers {
		wg.Go(func() {
			for n := range each {
				revision, err := b.Apply(t.Context(), "tester", "a test", whatever, []store.Write{
					put("VirtualNode", "m", fmt.Sprint(w), fmt.Sprint(n)), put("VirtualNode", "m", "shared", fmt.Sprint(w, n)),
				})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if seen[revision] {
					t.Errorf("revision %d was given twice", revision)
				}
				seen[revision] = true
				mu.Unlock()
				if n%4 == 3 { // a failed write between must not leave a gap
					if _, err := b.Apply(t.Context(), "tester", "a test", whatever, []store.Write{{Object: store.Object{Name: "none"}, Delete: true}}); !errors.Is(err, store.ErrNotFound) {
						t.Errorf("delete of nothing: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	for r := uint64(1); r <= writers*each; r++ {
		if !seen[r] {
			t.Errorf("revision %d is missing", r)
		}
	}
	changes, err := b.Changes(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(changes) != 2*writers*each {
		t.Fatalf("%d changes, want %d", len(changes), 2*writers*each)
	}
	for i, c := range changes {
		if want := uint64(i/2 + 1); c.Revision != want {
			t.Fatalf("change %d has revision %d, want %d", i, c.Revision, want)
		}
	}
}

func failedWriteLeavesNothing(t *testing.T, b Backend) {
	apply(t, b, put("Mesh", "m", "m", "one"))
	_, err := b.Apply(t.Context(), "tester", "a test", whatever, []store.Write{
		put("Mesh", "m", "m", "two"),
		{Object: store.Object{Kind: "Mesh", Mesh: "m", Name: "nobody"}, Delete: true},
	})
	if !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("err = %v, want ErrNotFound", err)
	}
	objects, revision, err := b.Objects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []store.Object{{Kind: "Mesh", Mesh: "m", Name: "m", Manifest: []byte("one"), Revision: 1, Created: 1}}
	if d := cmp.Diff(want, objects); d != "" || revision != 1 {
		t.Errorf("revision %d, objects (-want +got):\n%s", revision, d)
	}
	if changes, _ := b.Changes(t.Context(), 1); len(changes) != 0 {
		t.Errorf("the outbox has %v", changes)
	}
	if revision, err := b.Apply(t.Context(), "tester", "a test", whatever, nil); err != nil || revision != 1 {
		t.Errorf("an empty apply gave revision %d, %v", revision, err)
	}
}

// Who checked and who was faster may be two servers of one store.
func staleWriteIsRefused(t *testing.T, b Backend) {
	basis := apply(t, b, put("Mesh", "m", "m", "one"))
	if err := b.PutAgent(t.Context(), agent("a", "k")); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{ // these have revisions, and are no objects
		b.BanAgent(t.Context(), "tester", "a", ""),
		b.PutRevision(t.Context(), store.PolicyRow{ID: "r", At: noon}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	faster, err := b.Apply(t.Context(), "tester", "a test", basis, []store.Write{put("Mesh", "m", "other", "x")})
	if err != nil {
		t.Fatal(err)
	}
	for name, w := range map[string]store.Write{
		"another object": put("Entry", "", "e", "x"), "the same": put("Mesh", "m", "other", "y"),
		"a deletion": {Object: store.Object{Kind: "Mesh", Mesh: "m", Name: "other"}, Delete: true},
	} {
		if _, err := b.Apply(t.Context(), "tester", "a test", basis, []store.Write{w}); !errors.Is(err, store.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if objects, revision, err := b.Objects(t.Context()); err != nil || revision != faster || len(objects) != 2 {
		t.Errorf("revision %d, objects %v, %v", revision, objects, err)
	}
	if _, err := b.Apply(t.Context(), "tester", "a test", faster, []store.Write{put("Mesh", "m", "other", "y")}); err != nil {
		t.Error(err)
	}
}

func deletedIsGone(t *testing.T, b Backend) {
	apply(t, b, put("Mesh", "m", "m", "x"))
	w := put("Mesh", "m", "m", "")
	w.Delete = true
	if revision := apply(t, b, w); revision != 2 {
		t.Errorf("revision %d, want 2", revision)
	}
	objects, _, err := b.Objects(t.Context())
	if err != nil || len(objects) != 0 {
		t.Errorf("objects %v, %v", objects, err)
	}
	changes, err := b.Changes(t.Context(), 1)
	if err != nil || len(changes) != 1 || !changes[0].Deleted || changes[0].Name != "m" {
		t.Errorf("changes %+v, %v", changes, err)
	}
}

func thereWas(t *testing.T, b Backend) {
	remove := func(kind, mesh, name string) store.Write {
		return store.Write{Object: store.Object{Kind: kind, Mesh: mesh, Name: name}, Delete: true}
	}
	apply(t, b, put("Mesh", "m", "m", "1"), put("Entry", "", "stays", "s"), put("Entry", "", "changes", "1"))     // 1
	apply(t, b, put("Entry", "", "changes", "2"), put("Entry", "", "changes", "3"), put("Entry", "", "new", "n")) // 2
	if err := b.PutRevision(t.Context(), store.PolicyRow{ID: "r", At: noon}); err != nil {                        // 3
		t.Fatal(err)
	}
	apply(t, b, remove("Mesh", "m", "m"), remove("Entry", "", "new")) // 4
	apply(t, b, put("Mesh", "m", "m", "again"))                       // 5
	for revision, want := range map[uint64]map[string]string{
		0: {"Mesh/m/m": "gone", "Entry//stays": "gone", "Entry//changes": "gone"},
		1: {"Mesh/m/m": "1", "Entry//changes": "1"},
		2: {"Mesh/m/m": "1", "Entry//new": "n"},
		3: {"Mesh/m/m": "1", "Entry//new": "n"},
		4: {"Mesh/m/m": "gone"},
		5: {},
	} {
		back, err := b.Back(t.Context(), revision)
		if err != nil {
			t.Fatalf("revision %d: %v", revision, err)
		}
		got := map[string]string{}
		for _, w := range back {
			got[w.Kind+"/"+w.Mesh+"/"+w.Name] = string(w.Manifest)
			if w.Delete {
				got[w.Kind+"/"+w.Mesh+"/"+w.Name] = "gone"
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("back to revision %d (-want +got):\n%s", revision, d)
		}
	}
	if _, err := b.Back(t.Context(), 6); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a revision that is not there yet: %v", err)
	}
}

func historyTells(t *testing.T, b Backend) {
	begun := time.Now()
	apply(t, b, put("Mesh", "m", "m", "1"), put("Entry", "", "e", "1"))
	if err := b.BanAgent(t.Context(), "tester", "nobody", ""); !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	if _, err := b.Apply(t.Context(), "another", "a test", whatever, []store.Write{put("Mesh", "m", "m", "2")}); err != nil {
		t.Fatal(err)
	}
	w := put("Mesh", "m", "m", "")
	w.Delete = true
	apply(t, b, w)
	apply(t, b, put("Mesh", "m", "m", "3"))
	tell := func(of store.Key, at uint64, n int) (told []string) {
		past, _, err := b.History(t.Context(), of, at, n)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range past {
			c := p.Change
			if c.At.Before(begun.Add(-time.Minute)) || c.At.After(time.Now().Add(time.Minute)) {
				t.Errorf("revision %d at %s", c.Revision, c.At)
			}
			told = append(told, fmt.Sprintf("%d %s %s new=%t deleted=%t %q after %q", c.Revision, p.Actor, c.Name, p.New, c.Deleted, c.Manifest, p.Before))
		}
		return told
	}
	all := []string{
		`4 tester m new=true deleted=false "" after ""`, `3 tester m new=false deleted=true "" after ""`, `2 another m new=false deleted=false "" after ""`,
		`1 tester m new=true deleted=false "" after ""`, `1 tester e new=true deleted=false "" after ""`,
	}
	for _, c := range []struct {
		of   store.Key
		at   uint64
		n    int
		want []string
	}{
		{store.Key{}, 0, 10, all},
		{store.Key{}, 0, 2, all[:2]},
		{store.Key{}, 2, 1, []string{`2 another m new=false deleted=false "2" after "1"`}},
		{store.Key{}, 3, 1, []string{`3 tester m new=false deleted=true "" after "2"`}},
		{store.Key{}, 5, 1, nil},
		{store.Key{Kind: "Mesh", Mesh: "m", Name: "m"}, 0, 10, all[:4]},
		{store.Key{Kind: "Mesh"}, 1, 1, []string{`1 tester m new=true deleted=false "1" after ""`}},
		{store.Key{Kind: "Entry"}, 0, 1, all[4:]},
		{store.Key{Name: "nobody"}, 0, 10, nil},
	} {
		if d := cmp.Diff(c.want, tell(c.of, c.at, c.n)); d != "" {
			t.Errorf("%+v at %d, %d (-want +got):\n%s", c.of, c.at, c.n, d)
		}
	}
}

func anyValue(t *testing.T, b Backend) {
	values := []string{
		"", "'", `"`, "';DROP TABLE objects;--", "a\x00b", "\x00", "\xff\xfe", "%s%n", "?1", "ü\u2028\n\r\x1b[31m",
		strings.Repeat("x", 64<<10), strings.Repeat("\x00'\"", 20<<10),
	}
	var writes []store.Write
	want := map[string]string{}
	for i, v := range values {
		writes = append(writes, put(v, v, fmt.Sprint(i)+v, v))
		want[fmt.Sprint(i)+v] = v
	}
	revision, err := b.Apply(t.Context(), strings.Join(values, "\x00"), strings.Join(values, "\x00"), whatever, writes)
	if err != nil {
		t.Fatal(err)
	}
	objects, _, err := b.Objects(t.Context())
	if err != nil || len(objects) != len(values) {
		t.Fatalf("%d objects, %v", len(objects), err)
	}
	for _, o := range objects {
		if v, ok := want[o.Name]; !ok || o.Kind != v || o.Mesh != v || string(o.Manifest) != v || o.Revision != revision {
			t.Errorf("object %.20q came back as %.20q %.20q %.20q", o.Name, o.Kind, o.Mesh, o.Manifest)
		}
	}
	changes, err := b.Changes(t.Context(), 0)
	if err != nil || len(changes) != len(values) {
		t.Fatalf("%d changes, %v", len(changes), err)
	}
	for i, c := range changes {
		if c.Kind != values[i] || string(c.Manifest) != values[i] {
			t.Errorf("change %d came back as %.20q %.20q", i, c.Kind, c.Manifest)
		}
	}
}

func waitWakes(t *testing.T, b Backend) {
	got := make(chan uint64, 1)
	go func() {
		revision, err := b.Wait(t.Context(), 0)
		if err != nil {
			t.Error(err)
		}
		got <- revision
	}()
	want := apply(t, b, put("Mesh", "m", "m", "x"))
	if revision := <-got; revision != want {
		t.Errorf("woken with %d, want %d", revision, want)
	}
	if changes, err := b.Changes(t.Context(), 0); err != nil || len(changes) != 1 {
		t.Errorf("after waking: %v, %v", changes, err)
	}
}

func waitEnds(t *testing.T, b Backend) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := b.Wait(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v", err)
	}
}

func createdIsKept(t *testing.T, b Backend) {
	created := func() uint64 {
		t.Helper()
		objects, _, err := b.Objects(t.Context())
		if err != nil || len(objects) != 1 {
			t.Fatalf("%+v, %v", objects, err)
		}
		return objects[0].Created
	}
	apply(t, b, put("Other", "", "x", "1"))
	apply(t, b, store.Write{Object: store.Object{Kind: "Other", Name: "x"}, Delete: true})
	first := apply(t, b, put("Entry", "", "e", "1"))
	apply(t, b, put("Entry", "", "e", "2"))
	if got := created(); got != first {
		t.Errorf("after a change: %d, want %d", got, first)
	}
	apply(t, b, store.Write{Object: store.Object{Kind: "Entry", Name: "e"}, Delete: true})
	again := apply(t, b, put("Entry", "", "e", "3"))
	if got := created(); got != again {
		t.Errorf("made anew: %d, want %d", got, again)
	}
}

func ownersAreKept(t *testing.T, b Backend) {
	owned := func(name, owner string) store.Write {
		w := put("Mesh", name, name, "x")
		w.Owner = owner
		return w
	}
	first := apply(t, b, owned("m", "a"), owned("n", ""))
	second := apply(t, b, owned("m", "b"))
	objects, _, err := b.Objects(t.Context())
	if err != nil || len(objects) != 2 || objects[0].Owner != "b" || objects[1].Owner != "" {
		t.Errorf("%+v, %v", objects, err)
	}
	changes, err := b.Changes(t.Context(), first)
	if err != nil || len(changes) != 1 || changes[0].Owner != "b" {
		t.Errorf("changes %+v, %v", changes, err)
	}
	past, _, err := b.History(t.Context(), store.Key{Name: "m"}, 0, 10)
	if err != nil || len(past) != 2 || past[0].Change.Owner != "b" || past[0].OwnerBefore != "a" || past[1].Change.Owner != "a" {
		t.Errorf("history %+v, %v", past, err)
	}
	if back, err := b.Back(t.Context(), first); err != nil || len(back) != 1 || back[0].Owner != "a" {
		t.Errorf("back from %d: %+v, %v", second, back, err)
	}
}
