package sds_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"signet.example/sds"
)

func withHeader(t *testing.T, kv ...string) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, kv...)
}

func good(t *testing.T) context.Context { return withHeader(t, "workload.spiffe.io", "true") }

func fetch(t *testing.T, a *api, ctx context.Context) grpc.ServerStreamingClient[workload.X509SVIDResponse] {
	t.Helper()
	stream, err := a.FetchX509SVID(ctx, &workload.X509SVIDRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func wantCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if status.Code(err) != want {
		t.Errorf("got %v, want %v", err, want)
	}
}

// WEP-05, WEP-06, WEP-15, A17.
func TestACallWithoutTheExactHeaderIsInvalidBeforeAnyWork(t *testing.T) {
	for name, kv := range map[string][]string{
		"none": nil, "upper case": {"workload.spiffe.io", "TRUE"}, "space": {"workload.spiffe.io", "true false"},
		"empty": {"workload.spiffe.io", ""}, "twice": {"workload.spiffe.io", "true", "workload.spiffe.io", "true"},
		"false": {"workload.spiffe.io", "false"}, "another name": {"workload-spiffe-io", "true"},
	} {
		t.Run(name, func(t *testing.T) {
			a := serve(t)
			a.source.updates <- sds.Update{}
			ctx := withHeader(t, kv...)
			_, err := fetch(t, a, ctx).Recv()
			wantCode(t, err, codes.InvalidArgument)
			bundles, err := a.FetchX509Bundles(ctx, &workload.X509BundlesRequest{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = bundles.Recv()
			wantCode(t, err, codes.InvalidArgument)
			_, err = a.FetchJWTSVID(ctx, &workload.JWTSVIDRequest{})
			wantCode(t, err, codes.InvalidArgument)
			_, err = a.ValidateJWTSVID(ctx, &workload.ValidateJWTSVIDRequest{})
			wantCode(t, err, codes.InvalidArgument)
			if n := a.attested.Load(); n != 0 {
				t.Errorf("the caller was attested %d times", n)
			}
		})
	}
}

func TestTheJWTAndWITProfilesAreUnimplemented(t *testing.T) {
	a := serve(t)
	ctx := good(t)
	_, err := a.FetchJWTSVID(ctx, &workload.JWTSVIDRequest{Audience: []string{"x"}})
	wantCode(t, err, codes.Unimplemented)
	_, err = a.ValidateJWTSVID(ctx, &workload.ValidateJWTSVIDRequest{})
	wantCode(t, err, codes.Unimplemented)
	jwt, err := a.FetchJWTBundles(ctx, &workload.JWTBundlesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = jwt.Recv()
	wantCode(t, err, codes.Unimplemented)
	wit, err := a.FetchWITSVID(ctx, &workload.WITSVIDRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = wit.Recv()
	wantCode(t, err, codes.Unimplemented)
}

// WAPI-18, WEP-17, F1: Unavailable and not PermissionDenied in an outage.
func TestTheSourcesErrorsHaveTheSpecsCodes(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want codes.Code
	}{
		"no identity": {sds.ErrNoIdentity, codes.PermissionDenied},
		"unavailable": {sds.ErrUnavailable, codes.Unavailable},
		"else":        {errors.New("disk on fire"), codes.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			a := serve(t)
			a.source.end <- c.err
			_, err := fetch(t, a, good(t)).Recv()
			wantCode(t, err, c.want)
			if status.Convert(err).Message() == "disk on fire" {
				t.Error("the caller is told the agent's insides")
			}
			a.source.end <- c.err
			bundles, err := a.FetchX509Bundles(good(t), &workload.X509BundlesRequest{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = bundles.Recv()
			wantCode(t, err, c.want)
		})
	}
}

func TestAPeerThatCannotBeAttestedGetsNothing(t *testing.T) {
	a := serve(t)
	a.refuse.Store(true)
	a.source.updates <- sds.Update{SVIDs: []sds.SVID{newAuthority(t).svid(t, "/shop/web")}}
	_, err := fetch(t, a, good(t)).Recv()
	wantCode(t, err, codes.PermissionDenied)
}

func TestASourceThatDoesNotAttestAnewCannotSend(t *testing.T) {
	a := serve(t)
	a.source.careless = true
	ca := newAuthority(t)
	a.source.updates <- sds.Update{SVIDs: []sds.SVID{ca.svid(t, "/shop/web")}, Bundles: ca.bundles()}
	_, err := fetch(t, a, good(t)).Recv()
	wantCode(t, err, codes.Internal)
}

func TestEachAnswerNeedsAnAttestationOfItsOwn(t *testing.T) {
	a, ca := serve(t), newAuthority(t)
	a.source.careless = true
	a.source.first = &sds.Update{SVIDs: []sds.SVID{ca.svid(t, "/shop/web")}, Bundles: ca.bundles()}
	stream := fetch(t, a, good(t))
	recv(t, stream)
	a.source.updates <- sds.Update{SVIDs: []sds.SVID{ca.svid(t, "/shop/web")}, Bundles: ca.bundles()}
	_, err := stream.Recv()
	wantCode(t, err, codes.Internal)
}

// Workload API 4.5: what is mandatory is there, or there is no answer.
func TestAnUpdateThatLacksSomethingIsNoAnswer(t *testing.T) {
	ca := newAuthority(t)
	svid, bare := ca.svid(t, "/shop/web"), ca.svid(t, "/shop/web")
	bare.Chain = nil
	for name, c := range map[string]struct {
		update        sds.Update
		svid, bundles codes.Code
	}{
		"no identity":         {sds.Update{Bundles: ca.bundles()}, codes.PermissionDenied, codes.PermissionDenied},
		"no bundle":           {sds.Update{SVIDs: []sds.SVID{svid}}, codes.Unavailable, codes.Unavailable},
		"another's bundle":    {sds.Update{SVIDs: []sds.SVID{svid}, Bundles: map[string][][]byte{"spiffe://other.example": {ca.cert.Raw}}}, codes.Unavailable, codes.Unavailable},
		"a bundle of nothing": {sds.Update{SVIDs: []sds.SVID{svid}, Bundles: map[string][][]byte{td.IDString(): {}}}, codes.Unavailable, codes.Unavailable},
		"no chain":            {sds.Update{SVIDs: []sds.SVID{bare}, Bundles: ca.bundles()}, codes.Unavailable, codes.OK},
	} {
		a := serve(t)
		a.source.first = &c.update
		_, err := fetch(t, a, good(t)).Recv()
		if status.Code(err) != c.svid {
			t.Errorf("%s: SVIDs: %v", name, err)
		}
		bundles, err := a.FetchX509Bundles(good(t), &workload.X509BundlesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bundles.Recv(); status.Code(err) != c.bundles {
			t.Errorf("%s: bundles: %v", name, err)
		}
	}
}

// WAPI-05, 09, 10, 16.
func TestEachMessageIsFullAndAbsenceTakesAway(t *testing.T) {
	a, ca := serve(t), newAuthority(t)
	one, two := ca.svid(t, "/shop/web"), ca.svid(t, "/shop/api")
	one.Hint, two.Hint = "same", "same"
	bundles := ca.bundles()
	bundles["spiffe://other.example"] = [][]byte{newAuthority(t).cert.Raw}
	stream := fetch(t, a, good(t))

	a.source.updates <- sds.Update{SVIDs: []sds.SVID{one, two}, Bundles: bundles}
	m := recv(t, stream)
	if len(m.GetSvids()) != 2 || len(m.GetFederatedBundles()) != 1 {
		t.Fatalf("got %d SVIDs and %d federated bundles", len(m.GetSvids()), len(m.GetFederatedBundles()))
	}
	if m.GetSvids()[0].GetHint() != "same" || m.GetSvids()[1].GetHint() != "" {
		t.Error("a hint is not unique in its message")
	}
	a.source.updates <- sds.Update{SVIDs: []sds.SVID{two}, Bundles: ca.bundles()}
	m = recv(t, stream)
	if len(m.GetSvids()) != 1 || len(m.GetFederatedBundles()) != 0 || m.GetSvids()[0].GetSpiffeId() != two.ID.String() {
		t.Errorf("what was taken away is still there: %d SVIDs", len(m.GetSvids()))
	}
	a.source.updates <- sds.Update{Bundles: ca.bundles()}
	_, err := stream.Recv()
	wantCode(t, err, codes.PermissionDenied) // WAPI-19: all is taken away
}

func recv(t *testing.T, stream grpc.ServerStreamingClient[workload.X509SVIDResponse]) *workload.X509SVIDResponse {
	t.Helper()
	m, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAnEqualUpdateIsNotSentAgain(t *testing.T) {
	a, ca := serve(t), newAuthority(t)
	one, two := ca.svid(t, "/shop/web"), ca.svid(t, "/shop/web")
	stream := fetch(t, a, good(t))
	for range 3 {
		a.source.updates <- sds.Update{SVIDs: []sds.SVID{one}, Bundles: ca.bundles()}
	}
	a.source.updates <- sds.Update{SVIDs: []sds.SVID{two}, Bundles: ca.bundles()}
	recv(t, stream)
	if got := recv(t, stream).GetSvids()[0].GetX509Svid(); string(got) != string(two.Chain[0]) {
		t.Error("the second message is not the rotated SVID")
	}
}

func TestGoSpiffesClientTakesSVIDAndBundles(t *testing.T) {
	a, ca := serve(t), newAuthority(t)
	svid := ca.svid(t, "/shop/web")
	a.source.first = &sds.Update{SVIDs: []sds.SVID{svid}, Bundles: ca.bundles()}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got, err := workloadapi.FetchX509Context(ctx, workloadapi.WithAddr(a.address))
	if err != nil {
		t.Fatal(err)
	}
	if got.DefaultSVID().ID != svid.ID {
		t.Errorf("got %s", got.DefaultSVID().ID)
	}
	bundles, err := workloadapi.FetchX509Bundles(ctx, workloadapi.WithAddr(a.address))
	if err != nil {
		t.Fatal(err)
	}
	if b, ok := bundles.Get(td); !ok || len(b.X509Authorities()) != 1 {
		t.Error("no bundle of the trust domain")
	}
}

// A client that knows nothing of us follows what we say, by the standard's rules for clients.
func TestGoSpiffesClientDropsWhatIsTakenAwayAndComesBackByItself(t *testing.T) {
	a, ca := serve(t), newAuthority(t)
	one, two := ca.svid(t, "/shop/web"), ca.svid(t, "/shop/web")
	other := spiffeid.RequireTrustDomainFromString("other.example")
	both := ca.bundles()
	both[other.IDString()] = [][]byte{newAuthority(t).cert.Raw}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	updates := make(chan *workloadapi.X509Context, 8)
	watched := make(chan error, 1)
	go func() {
		watched <- workloadapi.WatchX509Context(ctx, contexts(updates), workloadapi.WithAddr(a.address))
	}()
	next := func() *workloadapi.X509Context {
		t.Helper()
		select {
		case u := <-updates:
			return u
		case <-ctx.Done():
			t.Fatal("the client is told nothing")
			return nil
		}
	}
	a.source.updates <- sds.Update{SVIDs: []sds.SVID{one, ca.svid(t, "/shop/api")}, Bundles: both}
	if u := next(); len(u.SVIDs) != 2 || !u.Bundles.Has(other) {
		t.Errorf("first it has %d SVIDs, and another's bundle: %t", len(u.SVIDs), u.Bundles.Has(other))
	}
	a.source.updates <- sds.Update{SVIDs: []sds.SVID{one}, Bundles: ca.bundles()}
	if u := next(); len(u.SVIDs) != 1 || u.Bundles.Has(other) {
		t.Errorf("what was taken away it has still: %d SVIDs, another's bundle: %t", len(u.SVIDs), u.Bundles.Has(other))
	}
	a.source.end <- sds.ErrUnavailable
	a.source.updates <- sds.Update{SVIDs: []sds.SVID{two}, Bundles: ca.bundles()}
	if u := next(); !bytes.Equal(u.DefaultSVID().Certificates[0].Raw, two.Chain[0]) {
		t.Error("after its stream ended it does not have the newest")
	}
	cancel()
	if err := <-watched; status.Code(err) != codes.Canceled {
		t.Error(err)
	}
}

// contexts passes on what a client of go-spiffe is told.
type contexts chan *workloadapi.X509Context

func (c contexts) OnX509ContextUpdate(u *workloadapi.X509Context) { c <- u }

// OnX509ContextWatchError is told when a stream ends: the client makes another.
func (c contexts) OnX509ContextWatchError(error) {}

func TestAClientFindsTheEndpointByItsEnvironment(t *testing.T) {
	a, ca := serve(t), newAuthority(t)
	svid := ca.svid(t, "/shop/web")
	a.source.first = &sds.Update{SVIDs: []sds.SVID{svid}, Bundles: ca.bundles()}
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", a.address)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if got, err := workloadapi.FetchX509SVID(ctx); err != nil || got.ID != svid.ID {
		t.Errorf("got %v, %v", got, err)
	}
}
