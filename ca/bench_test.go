package ca_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet.example/ca"
)

// BenchmarkIssue issues with 1, 8 and 64 callers, each certificate with its two
// durable records on a real disk, and beside it in the same run the raw loop that
// no CA can do without: parse a CSR, check its signature, create, read back.
// "x-of-raw" is issuance as a part of the raw rate.
func BenchmarkIssue(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			w := newWorld(b, ca.Profiles{})
			requests := make([]ca.Request, 256)
			for n := range requests {
				requests[n] = request(b, fmt.Sprintf("/bench/w%d", n))
			}
			b.ResetTimer()
			raw := drive(b, callers, func(n int) error {
				return rawIssue(requests[n%len(requests)], w.authority.Issuing(), w.authority.ForTestKey())
			})
			issue := drive(b, callers, func(n int) error {
				return w.issuer.Issue(b.Context(), []ca.Request{requests[n%len(requests)]})[0].Err
			})
			b.ReportMetric(0, "ns/op") // two loops: the sum says nothing
			b.ReportMetric(raw.rate, "raw/s")
			b.ReportMetric(issue.rate, "issue/s")
			b.ReportMetric(issue.rate/raw.rate, "x-of-raw")
			b.ReportMetric(issue.quantile(0.5), "p50-ms")
			b.ReportMetric(issue.quantile(0.99), "p99-ms")
		})
	}
}

// BenchmarkIssueBatch is what an agent's batch costs, for each certificate.
func BenchmarkIssueBatch(b *testing.B) {
	w := newWorld(b, ca.Profiles{})
	batch := make([]ca.Request, 64)
	for n := range batch {
		batch[n] = request(b, fmt.Sprintf("/bench/w%d", n))
	}
	start := time.Now()
	b.ResetTimer()
	for range b.N {
		for _, r := range w.issuer.Issue(b.Context(), batch) {
			if r.Err != nil {
				b.Fatal(r.Err)
			}
		}
	}
	b.ReportMetric(float64(b.N*len(batch))/time.Since(start).Seconds(), "issue/s")
}

func rawIssue(r ca.Request, issuer *x509.Certificate, key crypto.Signer) error {
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		return err
	}
	if err := csr.CheckSignature(); err != nil {
		return err
	}
	serial := make([]byte, 16)
	_, _ = rand.Read(serial) // never fails
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), NotBefore: noon, NotAfter: noon.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, URIs: []*url.URL{r.ID.URL()},
	}, issuer, csr.PublicKey, key)
	if err != nil {
		return err
	}
	_, err = x509.ParseCertificate(der)
	return err
}

// driven is what one loop did.
type driven struct {
	rate  float64
	times []time.Duration // sorted
}

func (d driven) quantile(q float64) float64 {
	return float64(d.times[int(q*float64(len(d.times)-1))]) / float64(time.Millisecond)
}

// drive calls f b.N times from a number of goroutines.
func drive(b *testing.B, callers int, f func(n int) error) driven {
	b.Helper()
	times := make([]time.Duration, b.N)
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range callers {
		wg.Go(func() {
			for n := int(next.Add(1)) - 1; n < b.N; n = int(next.Add(1)) - 1 {
				begin := time.Now()
				if err := f(n); err != nil {
					b.Error(err)
					return
				}
				times[n] = time.Since(begin)
			}
		})
	}
	wg.Wait()
	rate := float64(b.N) / time.Since(start).Seconds()
	slices.Sort(times)
	return driven{rate: rate, times: times}
}
