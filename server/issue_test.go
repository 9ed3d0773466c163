package server_test

import (
	"crypto/x509"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/api"
)

func TestAnSVIDLastsAsLongAsItsEntrySays(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	res, err := r.join("front").issue("job", "binding/web")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []time.Duration{30 * time.Minute, time.Hour} {
		c, err := x509.ParseCertificate(res[i].GetChain()[0])
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(c.NotAfter); left > want || left < want-time.Minute {
			t.Errorf("%s is good for %s, want %s", c.URIs[0], left, want)
		}
	}
}

// A batch counts as what is in it, or it would be the way round the limit.
func TestAnAgentsRequestsAreBoundedByTheSVIDsInThem(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	h := r.join("front")
	_, err := h.api().Issue(t.Context(), &api.IssueRequest{Requests: make([]*api.SVIDRequest, 257)})
	wantCode(t, err, codes.InvalidArgument, "257")
	for n := range 100 {
		_, err := h.api().Issue(t.Context(), &api.IssueRequest{Requests: make([]*api.SVIDRequest, 256)})
		if status.Code(err) == codes.ResourceExhausted {
			if n < 16 {
				t.Errorf("refused after %d batches", n)
			}
			return
		}
		wantCode(t, err, codes.OK)
	}
	t.Error("25,600 SVIDs at once were not too many")
}
