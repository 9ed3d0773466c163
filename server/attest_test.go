package server_test

import (
	"crypto/tls"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"

	"signet.example/api"
)

func TestAnAgentJoinsWithATokenAndGetsTheIdentitiesOfItsGroup(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	h := r.join("front")
	if !strings.HasPrefix(h.id, "web-01-") {
		t.Errorf("agent id %q is not made of the hostname", h.id)
	}
	if got := leafID(t, h.svid.Certificate); got != h.spiffeID() {
		t.Errorf("agent SVID is %s", got)
	}
	res, err := h.issue("job", "binding/web", "")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"spiffe://test.example/batch/job", "spiffe://test.example/shop/web", h.spiffeID()} {
		if res[i].GetError() != "" || leafID(t, res[i].GetChain()) != want {
			t.Errorf("result %d: %q %q, want %s", i, leafID(t, res[i].GetChain()), res[i].GetError(), want)
		}
	}
}

func TestATokenIsGoodOnceHoweverManyTryAtATime(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	token := r.token("front")
	var joined atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		h := newHost(r)
		wg.Go(func() {
			if err := h.attest(token); err == nil {
				joined.Add(1)
			} else {
				wantCode(t, err, codes.PermissionDenied, "token")
			}
		})
	}
	wg.Wait()
	if n := joined.Load(); n != 1 {
		t.Errorf("%d agents joined with one token", n)
	}
}

func TestAHostKeyThatJoinedAttestsAgainWithoutAToken(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	h := r.join("front")
	first := h.id
	if err := h.attest(""); err != nil {
		t.Fatal(err)
	}
	if h.id != first {
		t.Errorf("id %s became %s", first, h.id)
	}
	wantCode(t, newHost(r).attest(""), codes.Unauthenticated, "join with a new token")
}

func TestARequestThatCannotSucceedDoesNotCostTheToken(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	token := r.token("front")
	h := newHost(r)
	_, err := api.NewAgentAPIClient(dial(t, r.addr.Agents, h.hostKey, nil)).Attest(t.Context(), &api.AttestRequest{
		Evidence: &api.AttestRequest_JoinToken{JoinToken: strings.Split(token, ".")[1]}, Csr: []byte("no request"),
	})
	wantCode(t, err, codes.InvalidArgument)
	if err := h.attest(token); err != nil {
		t.Errorf("the token was spent: %v", err)
	}
}

func TestAnEntryOfAnotherGroupLooksLikeOneThatDoesNotExist(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	h := r.join("front")
	res, err := h.issue("secret", "no-such-entry", "binding/orders", "../job", "job")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if res[i].GetError() == "" || res[i].GetError() != res[1].GetError() || len(res[i].GetChain()) > 0 {
			t.Errorf("answer %d: %q", i, res[i].GetError())
		}
	}
	if res[4].GetError() != "" {
		t.Errorf("its own entry: %s", res[4].GetError())
	}
}

func TestWhoMayCallWhat(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	h := r.join("front")
	key := newKey(t)
	resp, err := h.api().Issue(t.Context(), &api.IssueRequest{Requests: []*api.SVIDRequest{{Entry: "job", Csr: newCSR(t, key)}}})
	if err != nil {
		t.Fatal(err)
	}
	workload := tls.Certificate{Certificate: resp.GetResults()[0].GetChain(), PrivateKey: key}
	for name, c := range map[string]struct {
		cert tls.Certificate
		want codes.Code
	}{
		"nobody":            {tls.Certificate{}, codes.Unavailable}, // the handshake fails
		"a host key":        {h.hostKey, codes.Unauthenticated},
		"a workload's SVID": {workload, codes.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, r.addr.Agents, c.cert, nil)
			_, err := api.NewAgentAPIClient(conn).Issue(t.Context(), &api.IssueRequest{})
			wantCode(t, err, c.want)
			session, err := api.NewAgentAPIClient(conn).Session(t.Context())
			if err == nil {
				_, err = session.Recv()
			}
			wantCode(t, err, c.want)
			stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(t.Context())
			if err == nil {
				_, err = stream.Recv()
			}
			wantCode(t, err, c.want)
		})
	}
	t.Run("an agent's SVID is no host key", func(t *testing.T) {
		_, err := h.api().Attest(t.Context(), &api.AttestRequest{Csr: newCSR(t, key)})
		wantCode(t, err, codes.Unauthenticated)
	})
	t.Run("the admin API is not there", func(t *testing.T) {
		_, err := api.NewAdminClient(h.conn).Check(t.Context(), &api.CheckRequest{})
		wantCode(t, err, codes.Unimplemented)
	})
	t.Run("state of the world is not for agents", func(t *testing.T) {
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(h.conn).StreamAggregatedResources(t.Context())
		if err == nil {
			_, err = stream.Recv()
		}
		wantCode(t, err, codes.PermissionDenied)
	})
}
