package ca_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"signet.example/ca"
)

func memLog(t *testing.T) (*ca.Log, *memDisk) {
	t.Helper()
	content, err := ca.ForTestNewLog(td, noon)
	if err != nil {
		t.Fatal(err)
	}
	d := &memDisk{content: content}
	l, err := ca.ForTestStartLog(d, bytes.NewReader(bytes.Clone(content)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, d
}

func reserved(n int) ca.Record {
	spki := sha256.Sum256(fmt.Append(nil, n))
	return ca.Record{
		Time: noon, Kind: ca.KindReserved, Serial: fmt.Sprintf("%036x", n+1), ID: fmt.Sprintf("spiffe://mesh.example/w/%d", n),
		Requester: "server", Profile: "workload", SPKI: spki[:], NotBefore: noon, NotAfter: noon.Add(time.Hour),
	}
}

func issued(n int) ca.Record {
	r := reserved(n)
	r.Kind = ca.KindIssued
	return r
}

func abandoned(n int) ca.Record {
	r := reserved(n)
	r.Kind = ca.KindAbandoned
	return r
}

func fill(t *testing.T, l *ca.Log, n int) {
	t.Helper()
	for k := range n {
		if err := l.Append(t.Context(), reserved(k), issued(k)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadReturnsWhatWasAppendedFromAnywhere(t *testing.T) {
	l := openLog(t, newLog(t))
	fill(t, l, 150)
	for _, from := range []uint64{0, 1, 2, 63, 64, 65, 66, 128, 129, 299, 300} {
		records, err := l.Read(from, 40)
		if err != nil {
			t.Fatal(err)
		}
		first := max(from, 1)
		if want := min(40, 300-first+1); uint64(len(records)) != want {
			t.Fatalf("from %d: %d records, want %d", from, len(records), want)
		}
		for k, r := range records {
			seq := first + uint64(k)
			if n := int(seq-1) / 2; r.Sequence != seq || r.Serial != reserved(n).Serial || (r.Kind == ca.KindIssued) != (seq%2 == 0) { //nolint:gosec // a short log
				t.Fatalf("from %d: record %d is %+v", from, seq, r)
			}
		}
	}
	if records, err := l.Read(301, 1); len(records) != 0 || err != nil {
		t.Errorf("behind the end: %v, %v", records, err)
	}
}

func TestTheLogRefusesRecordsThatContradictIt(t *testing.T) {
	l := openLog(t, newLog(t))
	fill(t, l, 1)
	stolen := issued(1)
	stolen.ID = "spiffe://mesh.example/w/other"
	for name, records := range map[string][]ca.Record{
		"issued without a reservation":    {issued(5)},
		"abandoned without one":           {abandoned(5)},
		"issued twice":                    {issued(0)},
		"a serial reserved twice":         {reserved(2), reserved(2)},
		"issued to another identity":      {reserved(1), stolen},
		"an unknown kind":                 {{Kind: "origin"}},
		"a key of another identity":       {func() ca.Record { r := reserved(0); r.Serial, r.ID = "77", "spiffe://mesh.example/x"; return r }()},
		"a reservation without a key":     {func() ca.Record { r := reserved(9); r.SPKI = nil; return r }()},
		"an authority without its hashes": {{Kind: ca.KindAuthority, Serial: "1"}},
		"a record that is far too long":   {func() ca.Record { r := reserved(10); r.Requester = strings.Repeat("x", 70<<10); return r }()},
	} {
		if err := l.Append(t.Context(), records...); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestWaitWakesOnANewRecord(t *testing.T) {
	l := openLog(t, newLog(t))
	got := make(chan uint64, 1)
	go func() {
		n, err := l.Wait(t.Context(), 0)
		if err != nil {
			t.Error(err)
		}
		got <- n
	}()
	fill(t, l, 1)
	if n := <-got; n != 2 {
		t.Errorf("woken at %d", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := l.Wait(ctx, 2); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v", err)
	}
}

func TestATornLastRecordIsCutOffAtEveryByte(t *testing.T) {
	l, d := memLog(t)
	fill(t, l, 3)
	if err := l.Append(t.Context(), reserved(3)); err != nil {
		t.Fatal(err)
	}
	whole := bytes.Clone(d.content)
	last := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	for cut := last; cut <= len(whole); cut++ {
		d := &memDisk{content: bytes.Clone(whole[:cut])}
		l, err := ca.ForTestStartLog(d, bytes.NewReader(bytes.Clone(whole[:cut])))
		if err != nil {
			t.Fatalf("cut at %d of %d: %v", cut-last, len(whole)-last, err)
		}
		// Without its newline the record is whole: it stays, and is an orphan.
		want, orphans := uint64(6), 0
		if cut >= len(whole)-1 {
			want, orphans = 8, 1
		}
		if l.Size() != want || len(l.Orphans()) != orphans {
			t.Fatalf("cut at %d of %d: size %d, %d orphans", cut-last, len(whole)-last, l.Size(), len(l.Orphans()))
		}
		if err := l.Append(t.Context(), reserved(9), issued(9)); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if again, err := ca.ForTestStartLog(d, bytes.NewReader(bytes.Clone(d.content))); err != nil {
			t.Fatalf("cut at %d: reopened: %v", cut-last, err)
		} else if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	l, d := memLog(t)
	fill(t, l, 4)
	whole := bytes.Clone(d.content)
	for at, b := range whole {
		for bit := range 8 {
			// One bit of each byte, all of a newline, where one is missed most easily.
			if os.Getenv("SOAK") != "1" && b != '\n' && bit != at%8 {
				continue
			}
			content := bytes.Clone(whole)
			content[at] ^= 1 << bit
			l, err := ca.ForTestStartLog(&memDisk{content: content}, bytes.NewReader(bytes.Clone(content)))
			if err == nil {
				_ = l.Close()
				t.Fatalf("bit %d of byte %d (%q) was taken", bit, at, b)
			}
			if !errors.Is(err, ca.ErrCorrupt) {
				t.Fatalf("bit %d of byte %d (%q): %v", bit, at, b, err)
			}
		}
	}
}

func TestCorruptionNamesTheRecord(t *testing.T) {
	l, d := memLog(t)
	fill(t, l, 4)
	content := bytes.Replace(d.content, []byte("mesh.example/w/2"), []byte("mesh.example/w/3"), 1)
	_, err := ca.ForTestStartLog(&memDisk{content: content}, bytes.NewReader(content))
	if !errors.Is(err, ca.ErrCorrupt) || !strings.Contains(err.Error(), "record 5") {
		t.Errorf("err = %v", err)
	}
	// A record taken out, or put elsewhere, breaks the chain as well.
	lines := bytes.SplitAfter(d.content, []byte("\n"))
	for name, order := range map[string][]int{"left out": {0, 1, 2, 5, 6}, "swapped": {0, 3, 4, 1, 2}, "repeated": {0, 1, 2, 1, 2}} {
		var content []byte
		for _, n := range order {
			content = append(content, lines[n]...)
		}
		if _, err := ca.ForTestStartLog(&memDisk{content: content}, bytes.NewReader(content)); !errors.Is(err, ca.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Nor does a chain that holds save a record that says it is another.
	sealed := ca.ForTestSeal([][]byte{[]byte(`{"seq":2,"kind":"authority"}`)})
	if _, _, err := ca.ForTestRecover(sealed); !errors.Is(err, ca.ErrCorrupt) || !strings.Contains(err.Error(), "record 2") {
		t.Errorf("another sequence number: %v", err)
	}
	// A bit that flips under an open log is found by whoever reads it.
	d.set(func() { d.content = content })
	if _, err := l.Read(1, 8); !errors.Is(err, ca.ErrCorrupt) {
		t.Errorf("read: %v", err)
	}
}

func TestOrphansAreListedAndAbandonedAtOpen(t *testing.T) {
	path := newLog(t)
	l := openLog(t, path)
	fill(t, l, 1)
	if err := l.Append(t.Context(), reserved(1), reserved(2)); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, path)
	if o := l.Orphans(); len(o) != 2 || o[0].Serial != reserved(1).Serial || o[1].Serial != reserved(2).Serial {
		t.Errorf("orphans %+v", o)
	}
	records, err := l.Read(5, 10)
	if err != nil || len(records) != 2 {
		t.Fatalf("records %+v, %v", records, err)
	}
	for n, r := range records {
		if r.Kind != ca.KindAbandoned || r.Serial != reserved(n+1).Serial || r.Reason == "" {
			t.Errorf("record %+v", r)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if o := openLog(t, path).Orphans(); len(o) != 0 {
		t.Errorf("orphans once more: %+v", o)
	}
}

func TestAFullDiskStopsIssuanceAndNothingElse(t *testing.T) {
	l, d := memLog(t)
	w := newWorld(t, ca.Profiles{})
	i := ca.NewIssuer(w.authority, l, ca.Profiles{})
	if err := i.Issue(t.Context(), []ca.Request{request(t, "/shop/web")})[0].Err; err != nil {
		t.Fatal(err)
	}
	size := l.Size()
	for _, space := range []int{0, 1, 100, 300, 1000} { // also room for the reservation alone
		d.set(func() { d.limited, d.space = true, space })
		r := i.Issue(t.Context(), []ca.Request{request(t, "/shop/web")})[0]
		if !errors.Is(r.Err, ca.ErrLog) || !errors.Is(r.Err, unix.ENOSPC) || r.Chain != nil {
			t.Errorf("with %d bytes: %v", space, r.Err)
		}
		if _, err := l.Read(1, 100); err != nil {
			t.Errorf("with %d bytes: read: %v", space, err)
		}
	}
	d.set(func() { d.limited = false })
	if err := i.Issue(t.Context(), []ca.Request{request(t, "/shop/web")})[0].Err; err != nil {
		t.Errorf("after space came back: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := ca.ForTestStartLog(d, bytes.NewReader(bytes.Clone(d.content)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if len(again.Orphans()) != 0 || again.Size() < size+2 {
		t.Errorf("size %d, orphans %+v", again.Size(), again.Orphans())
	}
}

func TestALogOpensOnAFullDiskAndSettlesWhenSpaceReturns(t *testing.T) {
	l, d := memLog(t)
	if err := l.Append(t.Context(), reserved(1)); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	d.set(func() { d.limited, d.space = true, 10 })
	l, err := ca.ForTestStartLog(d, bytes.NewReader(bytes.Clone(d.content)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if records, err := l.Read(1, 10); len(records) != 1 || err != nil || len(l.Orphans()) != 1 {
		t.Fatalf("records %v, %v", records, err)
	}
	d.set(func() { d.limited = false })
	if err := l.Append(t.Context(), reserved(2)); err != nil {
		t.Fatal(err)
	}
	records, err := l.Read(1, 10)
	if err != nil || len(records) != 3 || records[1].Kind != ca.KindAbandoned {
		t.Errorf("records %+v, %v", records, err)
	}
}

func TestAFailedFsyncIsFinal(t *testing.T) {
	l, d := memLog(t)
	fill(t, l, 1)
	d.set(func() { d.syncErr = unix.EIO })
	if err := l.Append(t.Context(), reserved(1)); !errors.Is(err, ca.ErrLog) || !errors.Is(err, unix.EIO) {
		t.Errorf("err = %v", err)
	}
	d.set(func() { d.syncErr = nil })
	if err := l.Append(t.Context(), reserved(2)); !errors.Is(err, ca.ErrLog) {
		t.Errorf("after a failed fsync: %v", err)
	}
	if records, err := l.Read(1, 10); len(records) != 2 || err != nil {
		t.Errorf("records %v, %v", records, err)
	}
}

func TestConcurrentAppendsShareFsyncs(t *testing.T) {
	l, d := memLog(t)
	const n = 300
	var wg sync.WaitGroup
	for k := range n {
		wg.Go(func() {
			if err := l.Append(t.Context(), reserved(k)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if l.Size() != n {
		t.Errorf("size %d", l.Size())
	}
	d.set(func() { t.Logf("%d appends took %d fsyncs", n, d.syncs) })
}

func TestOpenLogRefusesWhatIsNoLog(t *testing.T) {
	if _, err := ca.OpenLog(t.TempDir() + "/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	for _, content := range []string{"", "\n", "x", "{}\n", strings.Repeat("x", 100<<10)} {
		if _, err := ca.ForTestStartLog(&memDisk{}, strings.NewReader(content)); !errors.Is(err, ca.ErrCorrupt) {
			t.Errorf("%.10q: %v", content, err)
		}
	}
}

func TestTwoProcessesCannotShareALog(t *testing.T) {
	defer ca.ForTestLockWait(30 * time.Millisecond)()
	path := newLog(t)
	openLog(t, path)
	if _, err := ca.OpenLog(path); err == nil || !strings.Contains(err.Error(), "another signer") {
		t.Errorf("err = %v", err)
	}
}

func TestWhatAFailedWriteLeftIsCutOff(t *testing.T) {
	l, d := memLog(t)
	before := len(d.content)
	d.set(func() { d.limited, d.space = true, 1500 })
	if err := l.Append(t.Context(), reserved(1), reserved(2), reserved(3), reserved(4)); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("err = %v", err)
	}
	d.set(func() {
		if d.limited = false; len(d.content) != before {
			t.Errorf("%d bytes are left of the failed write", len(d.content)-before)
		}
	})
	if err := errors.Join(l.Append(t.Context(), reserved(5), issued(5)), l.Close()); err != nil {
		t.Fatal(err)
	}
	if _, last, err := ca.ForTestRecover(d.content); last != 2 || err != nil {
		t.Errorf("record %d, %v", last, err)
	}
}
