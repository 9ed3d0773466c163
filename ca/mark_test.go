package ca_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signet.example/ca"
)

func marked(log string) string { return filepath.Join(filepath.Dir(log), filepath.Base(log)+".mark") }

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestALogWhoseEndWasCutOffIsRefused cuts a real file behind each of its records.
func TestALogWhoseEndWasCutOffIsRefused(t *testing.T) {
	path := newLog(t)
	l := openLog(t, path)
	fill(t, l, 4)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	whole := read(t, path)
	lines := bytes.SplitAfter(whole, []byte("\n"))
	lines = lines[:len(lines)-1]
	for n := 1; n < len(lines); n++ {
		write(t, path, bytes.Join(lines[:n], nil))
		if l, err := ca.OpenLog(path); !errors.Is(err, ca.ErrCut) || !strings.Contains(err.Error(), "had record 8") {
			t.Errorf("cut behind record %d: %v, %v", n-1, l, err)
		}
	}
	write(t, path, whole)
	l = openLog(t, path)
	if l.Head().Sequence != 8 || l.Unmarked() {
		t.Errorf("the whole log: %d records, unmarked %v", l.Head().Sequence, l.Unmarked())
	}
}

// TestALogThatIsAsLongAndNotTheSameIsRefused: the hashes of a chain can be computed
// by whoever can write.
func TestALogThatIsAsLongAndNotTheSameIsRefused(t *testing.T) {
	path, forged := newLog(t), ""
	l := openLog(t, path)
	beginning := read(t, path)
	fill(t, l, 2)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	forged = filepath.Join(t.TempDir(), "log")
	write(t, forged, beginning)
	l = openLog(t, forged)
	for n := 10; n < 15; n++ {
		if err := l.Append(t.Context(), reserved(n), issued(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, path, read(t, forged))
	if _, err := ca.OpenLog(path); !errors.Is(err, ca.ErrCut) || !strings.Contains(err.Error(), "record 4 is not the one") {
		t.Errorf("another log was taken: %v", err)
	}
}

// TestACertificateIsGivenOutOnlyWhenTheMarkHasItsRecord looks at the files at the
// moment of each answer, as a power failure would leave them.
func TestACertificateIsGivenOutOnlyWhenTheMarkHasItsRecord(t *testing.T) {
	path := newLog(t)
	l := openLog(t, path)
	for n := range 5 {
		if err := l.Append(t.Context(), reserved(n)); err != nil {
			t.Fatal(err)
		}
		if err := l.Append(t.Context(), issued(n)); err != nil {
			t.Fatal(err)
		}
		mark := read(t, marked(path))
		at := filepath.Join(t.TempDir(), "log")
		content := read(t, path)
		write(t, at, content[:bytes.LastIndexByte(content[:len(content)-1], '\n')+1])
		write(t, marked(at), mark)
		if _, err := ca.OpenLog(at); !errors.Is(err, ca.ErrCut) {
			t.Errorf("certificate %d was given out before the mark had it: %v", n, err)
		}
	}
}

// TestAMarkOutlivesAWriteThatWasCutShort spoils each of its two positions.
func TestAMarkOutlivesAWriteThatWasCutShort(t *testing.T) {
	path := newLog(t)
	l := openLog(t, path)
	fill(t, l, 3)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	good := read(t, marked(path))
	for at := range 2 {
		torn := bytes.Clone(good)
		copy(torn[at*len(torn)/2:], "9999")
		write(t, marked(path), torn)
		l, err := ca.OpenLog(path)
		if err != nil {
			t.Errorf("position %d torn: %v", at, err)
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	write(t, marked(path), bytes.Repeat([]byte(" "), len(good)))
	if _, err := ca.OpenLog(path); !errors.Is(err, ca.ErrCorrupt) {
		t.Errorf("a mark without a position was taken: %v", err)
	}
	if err := os.Remove(marked(path)); err != nil {
		t.Fatal(err)
	}
	if l := openLog(t, path); !l.Unmarked() {
		t.Error("nobody is told that a mark was made anew")
	}
}

// What is missing later was taken away: so a new log is not told from that.
func TestANewLogHasItsMark(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	if err := ca.Init(dir, td, []byte("password"), time.Now()); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, ca.LogPath(dir))
	if l.Unmarked() {
		t.Error("the first start of a new signer has no mark")
	}
	if err := l.Has(ca.Position{Sequence: 1}); !errors.Is(err, ca.ErrCut) {
		t.Errorf("an empty log has a record: %v", err)
	}
}
