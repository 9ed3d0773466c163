package svids

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Whoever reaches the port reads it: an operator has `signet check` for names.
func TestHealthSaysHowManyAndNamesNobody(t *testing.T) {
	now := time.Now()
	svid := func(path string, issued time.Duration) *SVID {
		return &SVID{
			ID: spiffeid.RequireFromString("spiffe://secret.example/" + path), Issued: now.Add(-issued), Due: now.Add(12*time.Minute - issued),
			Leaf: &x509.Certificate{NotAfter: now.Add(time.Hour - issued)},
		}
	}
	held := map[string]*SVID{"a": svid("shop/web", 20*time.Minute), "b": svid("shop/orders", 40*time.Minute), "c": svid("shop/cart", 31*time.Minute)}
	err := Overdue(held, now)
	if err == nil || !strings.HasPrefix(err.Error(), "2 of 3 certificates were to be renewed and are not") || strings.Contains(err.Error(), "secret.example") || strings.Contains(err.Error(), "orders") {
		t.Errorf("it says %v", err)
	}
	delete(held, "b")
	delete(held, "c")
	if err := Overdue(held, now); err != nil {
		t.Errorf("one that is renewed in time: %v", err)
	}
}
