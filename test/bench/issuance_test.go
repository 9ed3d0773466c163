//go:build bench

package bench

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet.example/test/meshtest"
)

const record = "apiVersion: signet.example/v1alpha1\nkind: Entry\nmetadata: {name: bench}\nspec: {group: hosts, spiffeID: \"spiffe://test.example/test/bench\", selectors: [\"unix:uid:1\"]}\n"

// TestBenchIssuance measures certificates per second through the whole path
// (mTLS, authorization, the signer's check, lint, two durable records,
// signature, verification) beside the raw loop: parse a CSR, verify its proof,
// create the certificate, parse it.
func TestBenchIssuance(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{NoAgent: true, Lifetime: time.Hour, Manifests: record})
	var rows []row
	for _, callers := range []int{1, 8, 64} {
		raw := rate(t, callers, rawLoop(t))
		hosts := make([]*meshtest.Host, min(callers, 8))
		for i := range hosts {
			hosts[i] = w.JoinHost()
		}
		csrs := pool(t, 256)
		var next atomic.Int64
		one := rate(t, callers, func() error {
			n := next.Add(1)
			_, err := hosts[n%int64(len(hosts))].Issue(t.Context(), "bench", csrs[n%256])
			return err
		})
		batch := rate(t, callers, func() error {
			n := next.Add(1)
			got, err := hosts[n%int64(len(hosts))].Issue(t.Context(), "bench", csrs[:50]...)
			if err == nil && len(got) != 50 {
				err = fmt.Errorf("%d of 50", len(got))
			}
			return err
		})
		rows = append(rows,
			row{fmt.Sprintf("issued, %d callers", callers), fmt.Sprintf("%.0f/s, p50 %s, p99 %s", one.perSecond, ms(one.p50), ms(one.p99)),
				fmt.Sprintf("raw loop %.0f/s", raw.perSecond), fmt.Sprintf("%.2f", one.perSecond/raw.perSecond), "as a ratio, 0.47 is the best known without a record"},
			row{fmt.Sprintf("issued in batches of 50, %d callers", callers), fmt.Sprintf("%.0f/s, p99 %s", batch.perSecond*50, ms(batch.p99)),
				"", fmt.Sprintf("%.2f", batch.perSecond*50/raw.perSecond), ""})
	}
	report(t, "Issuance, mTLS to a server with its signer, every certificate recorded before and after signing", rows)
}

type rated struct {
	perSecond float64
	p50, p99  time.Duration
}

// rate runs f from n goroutines for three seconds.
func rate(t *testing.T, n int, f func() error) rated {
	t.Helper()
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	began := time.Now()
	for range n {
		wg.Go(func() {
			var mine []time.Duration
			for time.Since(began) < 3*time.Second {
				start := time.Now()
				if err := f(); err != nil {
					t.Error(err)
					return
				}
				mine = append(mine, time.Since(start))
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
		})
	}
	wg.Wait()
	return rated{float64(len(took)) / time.Since(began).Seconds(), percentile(took, 0.5), percentile(took, 0.99)}
}

func pool(t *testing.T, n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = meshtest.CSR(t, meshtest.Key(t))
	}
	return out
}

func rawLoop(t *testing.T) func() error {
	key := meshtest.Key(t)
	csr := meshtest.CSR(t, meshtest.Key(t))
	id := &url.URL{Scheme: "spiffe", Host: "test.example", Path: "/x"}
	parent := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(time.Hour)}
	return func() error {
		req, err := x509.ParseCertificateRequest(csr)
		if err != nil {
			return err
		}
		if err := req.CheckSignature(); err != nil {
			return err
		}
		leaf := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), URIs: []*url.URL{id}, NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
		der, err := x509.CreateCertificate(rand.Reader, leaf, parent, req.PublicKey.(*ecdsa.PublicKey), key)
		if err != nil {
			return err
		}
		_, err = x509.ParseCertificate(der)
		return err
	}
}
