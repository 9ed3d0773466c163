package storetest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signet.example/store"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func tokenUsedOnce(t *testing.T, b Backend) {
	hash := []byte("hash\x00of a token")
	if err := b.PutToken(t.Context(), hash, "edge's", noon.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := b.PutToken(t.Context(), hash, "other", noon.Add(time.Hour)); !errors.Is(err, store.ErrConflict) {
		t.Errorf("the same token again: %v", err)
	}
	const users = 200
	var won atomic.Int32
	var wg sync.WaitGroup
	start := make(chan struct{})
	for range users {
		wg.Go(func() {
			<-start
			switch group, err := b.UseToken(t.Context(), hash, noon); {
			case err == nil && group == "edge's":
				won.Add(1)
			case !errors.Is(err, store.ErrToken):
				t.Errorf("group %q, err %v", group, err)
			}
		})
	}
	close(start)
	wg.Wait()
	if n := won.Load(); n != 1 {
		t.Errorf("%d of %d uses succeeded, want exactly 1", n, users)
	}
}

func tokenExpires(t *testing.T, b Backend) {
	if err := b.PutToken(t.Context(), []byte("h"), "g", noon); err != nil {
		t.Fatal(err)
	}
	for _, hash := range []string{"h", "unknown", ""} {
		if _, err := b.UseToken(t.Context(), []byte(hash), noon); !errors.Is(err, store.ErrToken) {
			t.Errorf("token %q: %v", hash, err)
		}
	}
}

func evidenceUsedOnce(t *testing.T, b Backend) {
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			first, err := b.UseOnce(t.Context(), []byte("a\x00b"), noon, noon.Add(time.Minute))
			if err != nil {
				t.Error(err)
			}
			if first {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if n := won.Load(); n != 1 {
		t.Errorf("%d of 50 were the first", n)
	}
	use := func(hash string, now time.Time, want bool) {
		t.Helper()
		for range 2 { // to look uses nothing up
			if used, err := b.Used(t.Context(), []byte(hash), now); used == want || err != nil {
				t.Errorf("%s at %s: used %t, %v", hash, now, used, err)
			}
		}
		if first, err := b.UseOnce(t.Context(), []byte(hash), now, now.Add(time.Minute)); first != want || err != nil {
			t.Errorf("%s at %s: %t, %v", hash, now, first, err)
		}
	}
	use("another", noon, true)
	use("a\x00b", noon.Add(time.Minute), false) // it has not ended before then
	for n := range 10 {
		use(fmt.Sprint(n), noon.Add(2*time.Minute), true) // makes room
	}
	use("a\x00b", noon.Add(2*time.Minute), true) // nobody asks for what has ended: that it is forgotten shows here
}

func agent(id, key string) store.Agent {
	return store.Agent{ID: id, Group: "g", Hostname: "h", HostKey: []byte(key), Joined: noon, Address: "192.0.2.1"}
}

func joinWakes(t *testing.T, b Backend) {
	before, next := b.Joined()
	if err := b.PutAgent(t.Context(), agent("a", "k")); err != nil {
		t.Fatal(err)
	}
	<-next
	n, next := b.Joined()
	if n != before+1 {
		t.Errorf("%d joined, %d before", n, before)
	}
	if err := b.PutAgent(t.Context(), agent("b", "k")); !errors.Is(err, store.ErrConflict) {
		t.Error(err)
	}
	if err := b.BanAgent(t.Context(), "tester", "a", ""); err != nil {
		t.Fatal(err)
	}
	select {
	case <-next:
		t.Error("nobody joined")
	default:
	}
}

func banStays(t *testing.T, b Backend) {
	if err := b.PutAgent(t.Context(), agent("a", "k")); err != nil {
		t.Fatal(err)
	}
	if err := b.BanAgent(t.Context(), "tester", "a", "lost"); err != nil {
		t.Fatal(err)
	}
	if err := b.PutAgent(t.Context(), agent("a", "k2")); err != nil {
		t.Fatal(err)
	}
	want := agent("a", "k2")
	want.Banned, want.BanReason = true, "lost"
	got, err := b.AgentByKey(t.Context(), []byte("k2"))
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("err %v (-want +got):\n%s", err, d)
	}
	changes, err := b.Changes(t.Context(), 0)
	if err != nil || len(changes) != 1 || changes[0].Kind != store.KindBan || changes[0].Name != "a" {
		t.Errorf("changes %+v, %v", changes, err)
	}
	if err := b.BanAgent(t.Context(), "tester", "nobody", ""); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("ban of nobody: %v", err)
	}
}

func deletedAgentIsForgotten(t *testing.T, b Backend) {
	for _, id := range []string{"a", "b"} {
		if err := b.PutAgent(t.Context(), agent(id, "key of "+id)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.BanAgent(t.Context(), "tester", "b", ""); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteAgent(t.Context(), "tester", "a"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b"} {
		if err := b.DeleteAgent(t.Context(), "tester", id); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("delete %s: %v", id, err)
		}
	}
	if _, err := b.AgentByKey(t.Context(), []byte("key of a")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the deleted one: %v", err)
	}
	if a, err := b.AgentByKey(t.Context(), []byte("key of b")); err != nil || !a.Banned {
		t.Errorf("the banned one: %+v, %v", a, err)
	}
	changes, err := b.Changes(t.Context(), 1)
	if err != nil || len(changes) != 1 || changes[0].Kind != store.KindAgent || changes[0].Name != "a" || !changes[0].Deleted {
		t.Errorf("changes %+v, %v", changes, err)
	}
}

func hostKeyIsOneAgents(t *testing.T, b Backend) {
	if err := b.PutAgent(t.Context(), agent("a", "k")); err != nil {
		t.Fatal(err)
	}
	if err := b.PutAgent(t.Context(), agent("b", "k")); !errors.Is(err, store.ErrConflict) {
		t.Errorf("the same host key: %v", err)
	}
	if _, err := b.AgentByKey(t.Context(), []byte("other")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("unknown host key: %v", err)
	}
	agents, err := b.Agents(t.Context())
	if d := cmp.Diff([]store.Agent{agent("a", "k")}, agents); d != "" || err != nil {
		t.Errorf("err %v (-want +got):\n%s", err, d)
	}
}

func evidenceIsOneAgents(t *testing.T, b Backend) {
	by := func(id, key, method string, evidence []byte, selectors ...string) store.Agent {
		a := agent(id, key)
		a.Group, a.Method, a.Selectors, a.Evidence = "", method, selectors, evidence
		return a
	}
	first := by("a", "ka", "m", []byte("e\x00"), "m:x:1", "m:y: two")
	for _, a := range []store.Agent{
		first, by("b", "kb", "other", []byte("e\x00")), by("c", "kc", "join_token", nil), by("d", "kd", "join_token", nil),
	} {
		if err := b.PutAgent(t.Context(), a); err != nil {
			t.Errorf("%s: %v", a.ID, err)
		}
	}
	if err := b.PutAgent(t.Context(), by("e", "ke", "m", []byte("e\x00"))); !errors.Is(err, store.ErrConflict) {
		t.Errorf("the same evidence: %v", err)
	}
	again := by("a", "another key", "m", []byte("e\x00"), "m:x:2")
	if err := b.PutAgent(t.Context(), again); err != nil {
		t.Error(err)
	}
	got, err := b.AgentByKey(t.Context(), []byte("another key"))
	if d := cmp.Diff(again, got); d != "" || err != nil {
		t.Errorf("err %v (-want +got):\n%s", err, d)
	}
	if _, err := b.AgentByKey(t.Context(), first.HostKey); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the key that it had before: %v", err)
	}
}

func lastPolicyRevision(t *testing.T, b Backend) {
	if _, err := b.LastRevision(t.Context()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("before any: %v", err)
	}
	one := store.PolicyRow{ID: "r1", Source: "main", Commit: "abc", Body: []byte("x\x00y"), At: noon}
	two := one
	two.ID, two.At = "r2", noon.Add(-time.Hour) // the order is that of writing, not of clocks
	for _, r := range []store.PolicyRow{one, two} {
		if err := b.PutRevision(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	got, err := b.LastRevision(t.Context())
	if d := cmp.Diff(two, got); d != "" || err != nil {
		t.Errorf("err %v (-want +got):\n%s", err, d)
	}
	if changes, err := b.Changes(t.Context(), 1); err != nil || len(changes) != 1 || changes[0].Kind != store.KindPolicyRevision {
		t.Errorf("changes %+v, %v", changes, err)
	}
}

func auditTrail(t *testing.T, b Backend) {
	apply(t, b, put("Mesh", "m", "m", "x"))
	if err := b.Audit(t.Context(), "uid:0", "token-create", "group \"g\"\n"); err != nil {
		t.Fatal(err)
	}
	rows, err := b.AuditTrail(t.Context(), 0, 10)
	if err != nil || len(rows) != 2 {
		t.Fatalf("rows %+v, %v", rows, err)
	}
	if r := rows[0]; r.Actor != "tester" || r.Action != "apply" || r.Detail != `a test: put "Mesh" "m"/"m"` {
		t.Errorf("row %+v", r)
	}
	if r := rows[1]; r.Actor != "uid:0" || r.Action != "token-create" || r.Detail != "group \"g\"\n" || r.Sequence <= rows[0].Sequence {
		t.Errorf("row %+v", r)
	}
	if rows, err := b.AuditTrail(t.Context(), rows[0].Sequence, 1); err != nil || len(rows) != 1 || rows[0].Actor != "uid:0" {
		t.Errorf("from the first on: %+v, %v", rows, err)
	}
}

func prunedLeavesARow(t *testing.T, b Backend) {
	token := []byte("hash of a token")
	if err := b.PutToken(t.Context(), token, "g", time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	apply(t, b, put("Mesh", "m", "m", "1"))
	apply(t, b, put("Mesh", "m", "other", "old and still there"))
	apply(t, b, put("Mesh", "m", "gone", "1"))
	apply(t, b, store.Write{Object: store.Object{Kind: "Mesh", Mesh: "m", Name: "gone"}, Delete: true})
	apply(t, b, put("Mesh", "m", "m", "2"))
	apply(t, b, put("Mesh", "m", "m", "3"))
	for range 294 { // several transactions
		if err := b.Audit(t.Context(), "host key 00", "attest", "refused"); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := b.Prune(t.Context(), store.Retention{Audit: time.Now().Add(-2 * time.Hour), Changes: time.Now().Add(-time.Hour)}); err != nil || n != 0 {
		t.Fatalf("%d rows that are young are gone, %v", n, err)
	}
	now := time.Now()
	n, err := b.Prune(t.Context(), store.Retention{Audit: now, Changes: now})
	if err != nil || n < 301 {
		t.Fatalf("%d, %v", n, err)
	}
	rows, err := b.AuditTrail(t.Context(), 0, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	var told int
	for _, r := range rows {
		var count, first, last int
		if _, err := fmt.Sscanf(r.Detail, "audit: %d rows, %d to %d, ", &count, &first, &last); err == nil && r.Action == "prune" && last-first+1 == count {
			told += count
		}
	}
	if told != 300 || len(rows) > 8 || !strings.Contains(rows[0].Detail, "apply 6, attest") {
		t.Errorf("%d rows are told of: %+v", told, rows)
	}
	changes, err := b.Changes(t.Context(), 0)
	if err != nil || len(changes) != 3 || changes[0].Name != "other" || string(changes[1].Manifest) != "2" || string(changes[2].Manifest) != "3" {
		t.Errorf("the newest revision's changes are to stay, and what there was before: %+v, %v", changes, err)
	}
	if objects, _, err := b.Objects(t.Context()); err != nil || len(objects) != 2 {
		t.Errorf("%v, %v", objects, err)
	}
	if _, err := b.Back(t.Context(), 4); !errors.Is(err, store.ErrForgotten) {
		t.Errorf("before what is known: %v", err)
	}
	if back, err := b.Back(t.Context(), 5); err != nil || len(back) != 1 || string(back[0].Manifest) != "2" {
		t.Errorf("the change before the last: %+v, %v", back, err)
	}
	if past, since, err := b.History(t.Context(), store.Key{}, 0, 10); err != nil || since != 5 || len(past) != 2 || past[0].Change.Revision != 6 || past[1].Change.Revision != 5 {
		t.Errorf("since %d: %+v, %v", since, past, err)
	}
}

func logMarkGrows(t *testing.T, b Backend) {
	want := func(sequence uint64, hash string) {
		t.Helper()
		m, err := b.LogMark(t.Context())
		if err != nil || m.Sequence != sequence || string(m.Hash) != hash {
			t.Fatalf("%d %q, %v: want %d %q", m.Sequence, m.Hash, err, sequence, hash)
		}
	}
	want(0, "")
	for _, m := range []store.LogMark{{Sequence: 7, Hash: []byte("seven")}, {Sequence: 5, Hash: []byte("five")}, {Sequence: 7, Hash: []byte("another")}} {
		if err := b.PutLogMark(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		want(7, "seven")
	}
	if err := b.ResetLogMark(t.Context(), "server", "back to 3", store.LogMark{Sequence: 3, Hash: []byte("three")}); err != nil {
		t.Fatal(err)
	}
	want(3, "three")
	rows, err := b.AuditTrail(t.Context(), 0, 10)
	if err != nil || len(rows) != 1 || rows[0].Action != "accept-log" || rows[0].Detail != "back to 3" {
		t.Errorf("%+v, %v", rows, err)
	}
}
