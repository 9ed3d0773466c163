package relay

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"golang.org/x/sys/unix"

	"signet.example/agent/resources"
	"signet.example/agent/resources/resourcestest"
	"signet.example/agent/svids/svidstest"
	"signet.example/api"
	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/internal/unixsock"
	"signet.example/proxy"
)

// Bindings of one virtual node may differ in what shows only of a process, as while Envoy
// is upgraded: which of them fits is known when it has attested.
func TestASupervisedProxyRunsByTheBindingThatItsProcessWasAttestedTo(t *testing.T) {
	r, _, p := idleRelay(t)
	ours, theirs, err := unixsock.Pair(unix.SOCK_STREAM, "peer")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = ours.Close(), theirs.Close() }()
	attestor := &attestation.Attestor{Supervised: func(int, int) (string, bool) { return "p", true }}
	peer, err := attestor.Peer(ours)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = peer.Close() }()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	user := fmt.Sprintf("unix:uid:%d", os.Geteuid())
	binding := func(name, program string) *api.Entry {
		return &api.Entry{
			Name: name, SpiffeId: "spiffe://test.example/m/" + p.ref.Name, Selectors: []string{user, "unix:path:" + program},
			VirtualNode: &api.VirtualNodeRef{Mesh: p.ref.Mesh, Name: p.ref.Name},
		}
	}
	before, now := binding("a", "/opt/envoy-of-before"), binding("b", program)
	bind := func(entries ...*api.Entry) {
		s := resources.New(svidstest.Domain, resourcestest.Set(t, entries...), nil, nil, resources.OfProcesses)
		r.config.State.Set(s)
		r.review(s)
	}
	bind(before, now)
	has := identity.Selectors{{Type: "unix", Value: fmt.Sprintf("uid:%d", os.Geteuid())}, {Type: "signet", Value: "proxy:p"}}
	held, err := r.ForProxy(t.Context(), "p", has)
	if err != nil {
		t.Fatal(err)
	}
	given := r.ViewOf("p")
	set := listenersAt(t, "127.0.0.2:8080")
	if err := given.put(set, ""); err != nil {
		t.Fatal(err)
	}
	release, err := held.Claim("p")
	if err != nil {
		t.Fatal(err)
	}

	g := &guard{peer: peer, relay: r}
	if _, err := r.View(context.WithValue(t.Context(), guardKey{}, g), &corev3.Node{Id: p.ref.String()}); err != nil {
		t.Fatal(err)
	}
	attested := r.ViewOf("p")
	if as := attested.BoundAs().Entry; as != "b" {
		t.Errorf("it is reported as bound by %q", as)
	}
	if given.claimant != "" || attested.claimant != "p" {
		t.Errorf("%q listens by the one, %q by the other", given.claimant, attested.claimant)
	}
	if err := r.addresses.claim("another", needed(set, proxy.Shape{})); err == nil {
		t.Error("another proxy listens where it does")
	}
	if err := r.addresses.claim("another", needed(listenersAt(t, "127.0.0.2:9090"), proxy.Shape{})); err != nil {
		t.Fatal(err)
	}
	if err := attested.put(listenersAt(t, "127.0.0.2:8080", "127.0.0.2:9090"), ""); err != nil {
		t.Fatal(err)
	}
	if got := needed(attested.published.Load(), proxy.Shape{}); len(got) != 1 || attested.LeftOut() == nil {
		t.Errorf("it listens on %v, where another proxy does, too", got)
	}

	bind(now)
	if !ended(given.gone) || ended(held.Gone()) {
		t.Error("it ends with a binding that it does not run by")
	}
	bind()
	if !ended(held.Gone()) {
		t.Error("it goes on without its binding")
	}
	release()
	if err := r.addresses.claim("another", needed(set, proxy.Shape{})); err != nil {
		t.Errorf("after it ended: %v", err)
	}
	other := binding("binding/c", program)
	other.Selectors = []string{user, "signet:proxy:q"}
	bind(other)
	if _, err := r.ForProxy(t.Context(), "p", has); err == nil || !strings.HasSuffix(err.Error(), "; binding c asks for signet:proxy:q, which it has not") {
		t.Errorf("of a binding for another proxy: %v", err)
	}
	bind(before, now)
	again, err := r.ForProxy(t.Context(), "p", has)
	if err != nil || ended(again.Gone()) {
		t.Errorf("bound again: %v, %v", again, err)
	}
}
