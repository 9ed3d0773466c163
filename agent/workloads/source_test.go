package workloads

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/agent/svids"
)

func TestAnSVIDThatHasEndedIsNotServed(t *testing.T) {
	now := time.Now()
	w := svids.Name{Entry: "entry/web", ID: spiffeid.RequireFromString("spiffe://test.example/web")}
	for left, served := range map[time.Duration]int{time.Minute: 1, -time.Second: 0} {
		s := &svids.SVID{Entry: w.Entry, ID: w.ID, Issued: now.Add(-time.Hour), Leaf: &x509.Certificate{NotAfter: now.Add(left)}}
		if n := len(good(map[string]*svids.SVID{w.Entry: s}, []svids.Name{w})); n != served {
			t.Errorf("%s before its end: %d served", left, n)
		}
	}
}
