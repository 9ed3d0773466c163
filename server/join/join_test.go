package join

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/api"
	"signet.example/attestation/nodes"
	"signet.example/identity"
	"signet.example/server/fault"
	"signet.example/server/roster"
	"signet.example/store"
)

// table is everything that a Desk asks, in memory, and what it was asked.
type table struct {
	*Desk

	t      *testing.T
	did    []string // what was asked and told, in order
	weight nodes.Weight
	node   nodes.Node
	err    error // of evidence
	csr    error
	empty  []string        // the buckets that have nothing left
	late   bool            // no turn comes
	ctx    context.Context //nolint:containedctx // of the next call, where it is set
	served netip.Addr
	admit  error
	enrol  error
	stored map[string]store.Agent // by host key
	roster *roster.Roster
	during func(agent spiffeid.ID) // where it is set: what happens while the signer is asked
}

func newTable(t *testing.T) *table {
	t.Helper()
	w := &table{t: t, weight: nodes.Weight{Units: 2}, node: nodes.Node{Method: "test", Group: "g"}, stored: map[string]store.Agent{}}
	w.roster = roster.New(roster.Config{Store: rows{w}, Place: func([]string) string { return "" }, Principal: nodes.Principal, Takes: nodes.Config{}.Takes})
	w.Desk = New(Config{
		TrustDomain: spiffeid.RequireTrustDomainFromString("mesh.example"), Evidence: evidence{w}, Agents: w.roster, Stored: w, Instances: w, SVIDs: w,
		First: bucket{w, "first"}, Lanes: lane{w, "turn"}, Waiting: lane{w, "turn to wait"}, Strangers: bucket{w, "strangers"}, Known: bucket{w, "known"},
		Group: func(n nodes.Node) (string, error) { return n.Group, nil }, Roots: func() []byte { return []byte("roots") },
		Vouched: func(net.Addr) { w.note("vouched") },
		Audit:   func(_ context.Context, actor, action, _ string) { w.note("audit %s of %s", action, actor) },
		Log:     slog.New(slog.DiscardHandler), Clock: func() time.Time { return time.Unix(1e9, 0) },
	})
	return w
}

func (w *table) note(format string, args ...any) { w.did = append(w.did, fmt.Sprintf(format, args...)) }

type evidence struct{ *table }

func (e evidence) Weigh(context.Context, *api.AttestRequest, time.Time) (nodes.Weight, error) {
	return e.weight, nil
}

func (e evidence) Attest(_ context.Context, _ *api.AttestRequest, on nodes.Channel, _ time.Time) (nodes.Node, error) {
	e.note("verify on %s", on.HostKey)
	return e.node, e.err
}

func (e evidence) Newer(*api.AttestRequest) error { return e.err }

// rows are those of agents.
type rows struct{ *table }

func (rows) Joined() (uint64, <-chan struct{}) { return 0, nil }

// Agents and PutAgent are what the roster follows (roster.Agents).
func (w *table) Agents(context.Context) ([]store.Agent, error) { return nil, nil }

func (w *table) PutAgent(_ context.Context, a store.Agent) error {
	w.note("enrol")
	if w.enrol == nil {
		w.stored[string(a.HostKey)] = a
	}
	return w.enrol
}

func (w *table) AgentByKey(_ context.Context, key []byte) (store.Agent, error) {
	a, ok := w.stored[string(key)]
	if !ok {
		return a, store.ErrNotFound
	}
	return a, nil
}

func (w *table) ServedAt(_ string, from netip.Addr) bool { return w.served == from }

func (w *table) Admit(_ context.Context, _, instance string, _ netip.Addr) error {
	w.note("admit %s", instance)
	return w.admit
}

func (w *table) Joined(_, instance string, _ netip.Addr) { w.note("joined as %s", instance) }

func (w *table) CheckCSR([]byte) error {
	w.note("check its request")
	return w.csr
}

func (w *table) Agent(_ context.Context, agent spiffeid.ID, _ []byte) ([][]byte, error) {
	w.note("issue")
	if w.during != nil {
		w.during(agent)
	}
	return [][]byte{[]byte(agent.String())}, nil
}

type bucket struct {
	*table

	name string
}

func (b bucket) Take(key string, n int) error {
	b.note("%s pay %d of %s", b.name, n, key)
	if slices.Contains(b.empty, key) {
		return fault.Later(time.Second)
	}
	return nil
}

type lane struct {
	*table

	name string
}

func (l lane) Enter(owner string, _ time.Duration) func(time.Duration) {
	l.note("%s of %s", l.name, owner)
	if l.late {
		return nil
	}
	return func(time.Duration) { l.note("its turn is over") }
}

// host is at an address and has a key, which is its instance too.
func (w *table) attest(key string, evidence bool) (id string, err error) {
	w.t.Helper()
	w.did = nil
	req := &api.AttestRequest{Hostname: "Web.example", Csr: []byte("csr")}
	if evidence {
		req.Evidence = &api.AttestRequest_JoinToken{JoinToken: "x"}
	}
	ctx := w.t.Context()
	if w.ctx != nil {
		ctx = w.ctx
	}
	resp, err := w.Attest(ctx, Caller{Conn: &net.TCPAddr{}, Remote: netip.MustParseAddr("192.0.2.1"), HostKey: []byte(key), Instance: "run-" + key}, req)
	if err == nil && (string(resp.GetChain()[0]) != "spiffe://mesh.example/signet/agent/"+resp.GetAgentId() || string(resp.GetSignedRootSet()) != "roots") {
		w.t.Errorf("it is answered %v", resp)
	}
	return resp.GetAgentId(), err
}

func (w *table) wants(did ...string) {
	w.t.Helper()
	if !slices.Equal(w.did, did) {
		w.t.Errorf("done:\n\t%s\nwant:\n\t%s", strings.Join(w.did, "\n\t"), strings.Join(did, "\n\t"))
	}
}

func TestAHostIsEnrolledAfterItsEvidenceWasPaidForAndVerified(t *testing.T) {
	w := newTable(t)
	id, err := w.attest("key", true)
	if err != nil || !strings.HasPrefix(id, "web-") {
		t.Fatalf("%q, %v", id, err)
	}
	w.wants("first pay 1 of :0key", "turn of 192.0.2.1/32", "check its request", "verify on key", "its turn is over", "vouched", "enrol", "joined as run-key", "audit attest of agent "+id, "issue")
}

func TestARequestWithoutAChanceUsesNothingUp(t *testing.T) {
	w := newTable(t)
	w.csr = fault.New(fault.Invalid, "no request")
	if _, err := w.attest("key", true); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
	w.wants("first pay 1 of :0key", "turn of 192.0.2.1/32", "check its request", "its turn is over")
	if _, err := w.attest("key", false); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
	w.wants("first pay 1 of :0key", "turn of 192.0.2.1/32", "check its request", "its turn is over") // without evidence as well
}

func TestEvidenceThatIsNotPaidForIsNotVerified(t *testing.T) {
	w := newTable(t)
	w.empty = []string{":0key", "192.0.2.1/32"}
	if _, err := w.attest("key", true); !errors.Is(err, fault.Limit) {
		t.Error(err)
	}
	w.wants("first pay 1 of :0key", "strangers pay 2 of 192.0.2.1/32")
	w.empty = []string{":0key"}
	if _, err := w.attest("key", true); err != nil {
		t.Errorf("another one on its connection: %v", err)
	}
	w.empty = []string{"192.0.2.1/32"} // by others at the host's address
	if _, err := w.attest("more", true); err != nil {
		t.Errorf("the first on a connection: %v", err)
	}
}

// What may be rubbish is verified in its turn, and not for a connection that is gone.
func TestWhatAStrangerShowsIsVerifiedInItsTurn(t *testing.T) {
	w := newTable(t)
	w.late = true
	if _, err := w.attest("key", true); !errors.Is(err, fault.Limit) {
		t.Error(err)
	}
	w.wants("first pay 1 of :0key", "turn of 192.0.2.1/32")
	w.late = false
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	w.ctx = gone
	if _, err := w.attest("key", true); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	w.wants("first pay 1 of :0key", "turn of 192.0.2.1/32", "its turn is over")
	w.ctx = nil
	w.weight.Own = []byte("hash of its token")
	if _, err := w.attest("key", true); err != nil || slices.Contains(w.did, "turn of 192.0.2.1/32") {
		t.Errorf("with a good token: %v, %v", err, w.did)
	}
}

// A stranger whose evidence waits for somebody else takes no processor of those whose does not.
func TestWhatWaitsForSomebodyElseHasTurnsOfItsOwn(t *testing.T) {
	w := newTable(t)
	w.weight.Waits = true
	id, err := w.attest("key", true)
	if err != nil {
		t.Fatal(err)
	}
	w.wants("first pay 1 of :0key", "turn of 192.0.2.1/32", "check its request", "its turn is over", "turn to wait of 192.0.2.1/32", "verify on key", "its turn is over", "vouched", "enrol", "joined as run-key", "audit attest of agent "+id, "issue")
	w.csr = fault.New(fault.Invalid, "no request")
	if _, err := w.attest("key", true); !errors.Is(err, fault.Invalid) || slices.Contains(w.did, "verify on key") {
		t.Errorf("a request without a chance: %v, %v", err, w.did)
	}
}

func TestEachPaysFromTheBucketThatNobodyElseCanEmpty(t *testing.T) {
	w := newTable(t)
	w.empty = []string{"192.0.2.1/32"} // by strangers at the host's address
	w.weight.Own = []byte("hash of its token")
	if _, err := w.attest("key", true); err != nil {
		t.Errorf("by a good token: %v", err)
	}
	if w.did[0] != "vouched" || w.did[1] != "known pay 2 of hash of its token" {
		t.Errorf("by a good token: %v", w.did)
	}
	w.weight.Own = nil
	for served, want := range map[string]string{"192.0.2.1": "known pay 2 of keythere", "192.0.2.9": "known pay 2 of keyelsewhere"} {
		w.served = netip.MustParseAddr(served)
		if _, err := w.attest("key", false); err != nil || w.did[0] != want {
			t.Errorf("served at %s: %v, %v", served, w.did, err)
		}
	}
}

func TestAHostThatDoesNotJoinLeavesNothingBehind(t *testing.T) {
	w := newTable(t)
	w.enrol = store.ErrConflict
	if _, err := w.attest("key", true); !errors.Is(err, fault.Invalid) {
		t.Error(err)
	}
	w.wants("first pay 1 of :0key", "turn of 192.0.2.1/32", "check its request", "verify on key", "its turn is over", "vouched", "enrol")
	w.err = fmt.Errorf("%w: %s", nodes.ErrEvidence, "a \x1b[31mlie")
	_, err := w.attest("key", true)
	if !errors.Is(err, fault.Denied) || strings.ContainsRune(err.Error(), '\x1b') {
		t.Errorf("err = %q", err)
	}
	w.wants("first pay 1 of :0key", "turn of 192.0.2.1/32", "check its request", "verify on key", "its turn is over")
}

// Evidence that can be given again is a host's, whatever its host key.
func TestEvidenceThatWasGivenBeforeIsTheSameAgentAlsoWhenItIsBanned(t *testing.T) {
	w := newTable(t)
	w.node = nodes.Node{Method: "test", Selectors: identity.Selectors{{Type: "test", Value: "cn:a"}}, Key: []byte("of the host")}
	first, err := w.attest("key", true)
	if err != nil {
		t.Fatal(err)
	}
	again, err := w.attest("another key", true)
	if err != nil || again != first {
		t.Errorf("agent %q is %q now: %v", first, again, err)
	}
	w.wants("first pay 1 of :0another key", "turn of 192.0.2.1/32", "check its request", "verify on another key", "its turn is over", "vouched", "admit run-another key", "enrol", "audit attest of agent "+first, "issue")
	w.admit = fault.New(fault.Conflict, "it is connected")
	if _, err := w.attest("a copy's key", true); !errors.Is(err, fault.Conflict) || slices.Contains(w.did, "enrol") {
		t.Errorf("while it is connected: %v, %v", w.did, err)
	}
	w.admit = nil
	banned, _ := w.roster.Get(first)
	banned.Banned = true
	if err := w.roster.Enrol(t.Context(), banned); err != nil {
		t.Fatal(err)
	}
	if _, err := w.attest("a new key", true); !errors.Is(err, fault.Denied) || slices.Contains(w.did, "enrol") || slices.Contains(w.did, "issue") {
		t.Errorf("while it is banned: %v, %v", w.did, err)
	}
}

func TestAnAgentThatJoinedComesBackByItsHostKeyAlone(t *testing.T) {
	w := newTable(t)
	if _, err := w.attest("key", false); !errors.Is(err, fault.Identity) {
		t.Errorf("a key of nobody: %v", err)
	}
	w.err = fmt.Errorf("%w: its method is not known here", nodes.ErrEvidence)
	if _, err := w.attest("key", false); !errors.Is(err, fault.Denied) {
		t.Errorf("evidence that a newer agent gives: %v", err)
	}
	w.err = nil
	id, err := w.attest("key", true)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := w.attest("key", false); err != nil || again != id {
		t.Errorf("agent %q is %q: %v", id, again, err)
	}
	w.wants("known pay 2 of keyelsewhere", "check its request", "admit run-key", "issue")
	if _, err := w.attest("key", true); err != nil {
		t.Error(err)
	}
	if want := []string{"known pay 2 of keyelsewhere", "turn of 192.0.2.1/32", "check its request", "verify on key", "its turn is over"}; !slices.Equal(w.did[:len(want)], want) {
		t.Errorf("evidence with its key: %v", w.did)
	}
	w.admit = fault.New(fault.Conflict, "another one is served")
	if _, err := w.attest("key", false); !errors.Is(err, fault.Conflict) || slices.Contains(w.did, "issue") {
		t.Errorf("beside another one: %v, %v", w.did, err)
	}
	a := w.stored["key"]
	a.Banned = true
	w.stored["key"] = a
	if _, err := w.attest("key", false); !errors.Is(err, fault.Denied) || slices.Contains(w.did, "issue") {
		t.Errorf("banned: %v, %v", w.did, err)
	}
}

func TestAnAgentThatIsBannedWhileTheSignerIsAskedIsGivenNoCertificate(t *testing.T) {
	for how, again := range map[string]bool{"by its host key": false, "by evidence that it gave before": true} {
		w := newTable(t)
		w.node.Key = []byte("of the host")
		if _, err := w.attest("key", true); err != nil {
			t.Fatal(err)
		}
		w.during = func(agent spiffeid.ID) {
			a, _ := w.roster.Get(strings.TrimPrefix(agent.Path(), "/signet/agent/"))
			a.Banned = true
			if err := w.roster.Enrol(t.Context(), a); err != nil {
				t.Error(err)
			}
		}
		if id, err := w.attest("key", again); !errors.Is(err, fault.Denied) || id != "" || !slices.Contains(w.did, "issue") {
			t.Errorf("%s: %q, %v, %v", how, id, w.did, err)
		}
	}
}

func FuzzAnAgentsNameIsOneSafeSegment(f *testing.F) {
	for _, s := range []string{"web-01.corp", "", "../b", "%2f", "ÜBER", strings.Repeat("-", 100)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id := agentID(s)
		if strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || len(id) > 51 || id[0] == '-' {
			t.Errorf("%q", id)
		}
	})
}
