// Package ca_test kills the certificate authority with SIGKILL while it issues,
// and fills its disk, and holds it to its promise: every certificate that a
// client ever received has a committed record.
package ca_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/ca"
)

var (
	td       = spiffeid.RequireTrustDomainFromString("mesh.example")
	password = []byte("secret")
)

// kills is 15, or 200 with SOAK=1.
func kills() int {
	if os.Getenv("SOAK") == "1" {
		return 200
	}
	return 15
}

func TestEveryReceivedCertificateHasARecordAfterAnyNumberOfKills(t *testing.T) {
	crasher := build(t)
	dir := filepath.Join(t.TempDir(), "ca")
	initialize(t, crasher, dir)
	var c counts
	read := uint64(0)
	issued := map[string][]byte{} // serial -> hash of the certificate
	for range kills() {
		after := time.Duration(rand.Int64N(int64(300 * time.Millisecond)))
		received := crash(t, crasher, dir, after)
		l, err := ca.OpenLog(ca.LogPath(dir))
		if err != nil {
			t.Fatalf("after a kill at %s: %v", after, err)
		}
		c.torn += min(l.Torn(), 1)
		c.orphans += len(l.Orphans())
		if n := len(l.Orphans()); n > 50*4 {
			t.Errorf("%d orphans: more than were under way", n)
		}
		read = index(t, l, read, issued)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		check(t, received, issued)
		c.received += len(received)
	}
	c.issued = len(issued)
	t.Logf("%d kills: %d certificates received, %d recorded as issued, %d reservations abandoned, %d torn records cut off",
		kills(), c.received, c.issued, c.orphans, c.torn)
	if c.received == 0 {
		t.Error("nothing was issued: nothing was tested")
	}
}

type counts struct{ received, issued, orphans, torn int }

// build compiles the crasher, without the race detector: under it, deriving the
// key from the password takes longer than the issuing.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "crasher")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./crasher").CombinedOutput()
	if err != nil {
		t.Fatalf("build crasher: %v\n%s", err, out)
	}
	return path
}

func initialize(t *testing.T, crasher, dir string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), crasher, "init", dir, string(password)).CombinedOutput()
	if err != nil {
		t.Fatalf("crasher init: %v\n%s", err, out)
	}
}

// crash runs the crasher, kills it some time after it is ready, and returns the
// certificates that it answered with until then.
func crash(t *testing.T, crasher, dir string, after time.Duration) [][]byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), crasher, "issue", dir, string(password))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); line != "ready\n" {
		t.Fatalf("crasher said %q, %v: %v\n%s", line, err, cmd.Wait(), stderr.String())
	}
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() }) // SIGKILL
	defer timer.Stop()
	var received [][]byte
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			break // a line without its end was not received
		}
		der, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(line)))
		if err != nil {
			t.Fatal(err)
		}
		received = append(received, der)
	}
	if err := cmd.Wait(); err == nil || stderr.Len() > 0 {
		t.Fatalf("crasher ended by itself: %v\n%s", err, stderr.String())
	}
	return received
}

// index adds the records after a sequence number to what is known as issued, and
// holds each reservation to having an end.
func index(t *testing.T, l *ca.Log, after uint64, issued map[string][]byte) uint64 {
	t.Helper()
	open := map[string]bool{}
	for after < l.Size() {
		records, err := l.Read(after+1, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			switch r.Kind {
			case ca.KindReserved:
				open[r.Serial] = true
			case ca.KindIssued:
				issued[r.Serial] = r.Certificate
				delete(open, r.Serial)
			case ca.KindAbandoned:
				delete(open, r.Serial)
			}
			after = r.Sequence
		}
	}
	for serial := range open {
		t.Errorf("serial %s is neither issued nor abandoned", serial)
	}
	return after
}

func check(t *testing.T, received [][]byte, issued map[string][]byte) {
	t.Helper()
	for _, der := range received {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(der)
		if !bytes.Equal(issued[ca.SerialText(c.SerialNumber)], sum[:]) {
			t.Errorf("a client has %s, serial %x: no record of it", c.URIs[0], c.SerialNumber)
		}
	}
}
