package ca_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sys/unix"

	"signet.example/ca"
	"signet.example/test/parts"
)

// Package ca has the same story on a disk in memory.
func TestAFullDiskStopsIssuanceUntilSpaceReturns(t *testing.T) {
	disk := t.TempDir()
	parts.Disk(t, disk, "256k")
	dir := filepath.Join(disk, "ca")
	initialize(t, build(t), dir)
	a, err := ca.OpenAuthority(dir, password, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ca.OpenLog(ca.LogPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // closed below; this one is for failures
	i := ca.NewIssuer(a, l, ca.Profiles{})
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 128<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	full := false
	for n := range 1000 {
		r := i.Issue(t.Context(), []ca.Request{workload(t, n)})[0]
		if r.Err == nil {
			continue
		}
		if !errors.Is(r.Err, ca.ErrLog) || !errors.Is(r.Err, unix.ENOSPC) || r.Chain != nil {
			t.Fatalf("request %d: %v", n, r.Err)
		}
		full = true
		break
	}
	if !full {
		t.Fatal("the disk did not fill up")
	}
	if records, err := l.Read(1, 10); err != nil || len(records) != 10 {
		t.Errorf("reading stopped: %d records, %v", len(records), err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := i.Issue(t.Context(), []ca.Request{workload(t, 1)})[0].Err; err != nil {
		t.Errorf("after space came back: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := ca.OpenLog(ca.LogPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(again.Orphans()); n != 0 || again.Torn() != 0 {
		t.Errorf("%d orphans and %d torn bytes", n, again.Torn())
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func workload(t *testing.T, n int) ca.Request {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return ca.Request{
		ID: spiffeid.RequireFromPath(td, fmt.Sprintf("/full/w%d", n)), CSR: csr,
		Profile: ca.ProfileWorkload, Requester: "server",
	}
}
