package ca_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"strings"
	"testing"

	"signet.example/ca"
)

func FuzzLog(f *testing.F) {
	content, err := ca.ForTestNewLog(td, noon)
	if err != nil {
		f.Fatal(err)
	}
	d := &memDisk{content: content}
	l, err := ca.ForTestStartLog(d, bytes.NewReader(bytes.Clone(content)))
	if err != nil {
		f.Fatal(err)
	}
	if err := errors.Join(l.Append(f.Context(), reserved(0), issued(0), reserved(1)), l.Close()); err != nil {
		f.Fatal(err)
	}
	f.Add(d.content)
	f.Add(d.content[:len(d.content)-20])
	f.Add(append(bytes.Clone(d.content), "{}\n"...))
	f.Fuzz(func(t *testing.T, content []byte) {
		whole, last, err := ca.ForTestRecover(content)
		if err != nil {
			if !errors.Is(err, ca.ErrCorrupt) {
				t.Errorf("not called corrupt: %v", err)
			}
			return
		}
		if len(whole) > len(content)+1 || !bytes.HasPrefix(append(bytes.Clone(content), '\n'), whole) {
			t.Errorf("repair changed more than the end")
		}
		again, seq, err := ca.ForTestRecover(whole)
		if err != nil || seq != last || !bytes.Equal(again, whole) {
			t.Errorf("a log that was recovered is not whole: record %d, then %d, %v", last, seq, err)
		}
	})
}

// FuzzSealedLog is FuzzLog behind the hashes.
func FuzzSealedLog(f *testing.F) {
	f.Add([]byte(`{"seq":1,"kind":"reserved","serial":"1","spiffe_id":"x","spki_sha256":"` + strings.Repeat("00", 32) + `"}
{"seq":2,"kind":"issued","serial":"1","spiffe_id":"x","spki_sha256":"` + strings.Repeat("00", 32) + `"}`))
	f.Add([]byte(`{"seq":1,"kind":"authority","spki_sha256":"00","certificate_sha256":null}`))
	f.Fuzz(func(t *testing.T, bodies []byte) {
		_, last, err := ca.ForTestRecover(ca.ForTestSeal(bytes.Split(bodies, []byte("\n"))))
		if err != nil && !errors.Is(err, ca.ErrCorrupt) {
			t.Errorf("not called corrupt: %v", err)
		}
		if n := uint64(bytes.Count(bodies, []byte("\n")) + 1); last > n { //nolint:gosec // a count
			t.Errorf("%d records in %d lines", last, n)
		}
	})
}

func FuzzCSR(f *testing.F) {
	for _, key := range []any{newKey(f), edKey(f), rsaKey(f, 2048)} {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der, true)
	}
	f.Add([]byte{0x30, 0x80}, false)
	f.Fuzz(func(t *testing.T, der []byte, rsa bool) {
		err := ca.ForTestParse(der, rsa)
		if err != nil && !errors.Is(err, ca.ErrInvalid) {
			t.Errorf("the CSR's fault is not called so: %v", err)
		}
		if err == nil {
			csr, err := x509.ParseCertificateRequest(der)
			if err != nil || csr.CheckSignature() != nil {
				t.Errorf("taken without proof: %v", err)
			}
			if k, ok := csr.PublicKey.(*ecdsa.PublicKey); ok && k.Curve.Params().BitSize > 384 {
				t.Errorf("taken with curve %s", k.Curve.Params().Name)
			}
		}
	})
}
