package relay

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"signet.example/agent/svids"
	"signet.example/proxy"
)

// idleRelay is a relay without a server, and a proxy that it supervises.
func idleRelay(t *testing.T) (*Relay, *decided, subscriptionKey) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///nobody", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	d := &decided{}
	p := subscriptionKey{proxy.Node("m", "n"), proxy.Shape{Bind: "127.0.0.2", App: "127.0.0.1"}}
	r := aRelay(conn, d)
	r.Configure("p", p.ref, p.shape)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		_ = conn.Close() // nobody answered
	})
	return r, d, p
}

func TestAProxyThatComesWithEverNewAddressesIsServedAsLongAsItsOldViewsEnd(t *testing.T) {
	r, d, p := idleRelay(t)
	view := func(bind string) error {
		_, err := r.view(t.Context(), viewKey{subscriptionKey{proxy.Node("m", "n"), proxy.Shape{Bind: bind}}, svids.Name{}, ""})
		return err
	}
	supervised, err := r.view(t.Context(), viewKey{p, svids.Name{}, ""})
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxShapes {
		if err := view(fmt.Sprintf("10.0.0.%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := view("10.0.1.1"); status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("one more than %d: %v", maxShapes, err)
	}
	for l := range r.legsOf(t) {
		d.Stamp(l, []string{"revision"})
	}
	r.sweep(time.Now())
	if err := view("10.0.1.1"); err == nil {
		t.Error("views that were used a moment ago are gone")
	}
	r.sweep(time.Now().Add(viewIdle))
	if err := view("10.0.1.1"); err != nil {
		t.Errorf("after all others were idle: %v", err)
	}
	if got := len(r.legsOf(t)); got != 2 {
		t.Errorf("%d subscriptions, want the supervised proxy's and the new one", got)
	}
	select {
	case <-supervised.gone:
		t.Error("the view of a supervised proxy is gone")
	default:
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = d.stamps.Wait(ctx, func(s map[any][]string) bool { return len(s) == 1 })
	if err != nil {
		t.Errorf("revisions are kept for subscriptions that ended: %v", err)
	}
}

func (r *Relay) legsOf(t *testing.T) map[*subscription]bool {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	legs := map[*subscription]bool{}
	for _, l := range r.subs {
		legs[l] = true
	}
	return legs
}

func TestAnIdleViewEndsAlsoWhereAnotherOfItsSubscriptionIsUsed(t *testing.T) {
	r, _, _ := idleRelay(t)
	k := subscriptionKey{proxy.Node("m", "n"), proxy.Shape{Bind: "10.0.0.1"}}
	const idle = 20 // in whatever order they are looked at
	for i := range idle + 1 {
		v, err := r.view(t.Context(), viewKey{k, svids.Name{Entry: strconv.Itoa(i)}, ""})
		if err != nil {
			t.Fatal(err)
		}
		if i < idle {
			v.used = v.used.Add(-2 * viewIdle)
		}
	}
	r.sweep(time.Now())
	if len(r.views) != 1 || len(r.legsOf(t)) != 1 {
		t.Errorf("%d views and %d subscriptions are left, want one of each", len(r.views), len(r.legsOf(t)))
	}
}

// Whoever asks for a view holds the relay's lock: one that is stopped lets nobody wait.
func TestARelayThatHasStoppedRefusesAViewAtOnce(t *testing.T) {
	r := aRelay(nil, &decided{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Run(ctx); err != nil {
		t.Fatal(err)
	}
	bounded, end := context.WithTimeout(t.Context(), 20*time.Second)
	defer end()
	if _, err := r.view(bounded, viewKey{}); status.Code(err) != codes.Unavailable {
		t.Errorf("a view of a relay that has stopped: %v", err)
	}
}
