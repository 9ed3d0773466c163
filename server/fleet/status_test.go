package fleet

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/api"
	"signet.example/store"
)

// known is a fleet of agents that do nothing.
type known struct {
	Statuses
	t   *testing.T
	now time.Time
	own map[string]OwnCert // by SPIFFE ID
	by  map[string]store.Agent
}

func newKnown(t *testing.T) *known {
	k := &known{t: t, now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), own: map[string]OwnCert{}, by: map[string]store.Agent{}}
	shared := inMemory()
	k.Statuses = Statuses{
		Withheld:    func(_ string, r *api.Report) *api.Report { return r },
		TrustDomain: spiffeid.RequireTrustDomainFromString("test.example"), Joined: func() []store.Agent { return slices.Collect(maps.Values(k.by)) },
		Sessions: sessionsAt(shared, "server", &reports{}), Endpoints: NewEndpoints(configOf(shared)),
		Own: func(id string) OwnCert { return k.own[id] }, Lifetime: time.Hour, Started: k.now.Add(-10 * time.Minute), Clock: func() time.Time { return k.now },
	}
	return k
}

func (k *known) put(a store.Agent) { k.by[a.ID] = a }

// agent joined some time ago; its newest certificate was issued then or later.
func (k *known) agent(id string, joined, issued time.Duration) {
	k.t.Helper()
	k.put(store.Agent{ID: id, Group: "g", Hostname: id, Joined: k.now.Add(-joined)})
	at := k.now.Add(-issued)
	k.own[IDOf(k.TrustDomain, id)] = OwnCert{Issued: at, End: at.Add(time.Hour), Renewed: issued != joined}
}

// connect opens a session, which the returned function ends.
func (k *known) connect(id string) (leave func()) {
	k.t.Helper()
	ctx, cancel := context.WithCancel(k.t.Context())
	stream := &slowStream{ctx: ctx, noticed: make(chan struct{})}
	var served sync.WaitGroup
	served.Go(func() { _ = k.Sessions.Serve(hostile(id), stream) }) // it ends with ctx
	for s, _ := k.Sessions.Of(id); s == nil; s, _ = k.Sessions.Of(id) {
		time.Sleep(time.Millisecond)
	}
	leave = sync.OnceFunc(func() {
		cancel()
		close(stream.noticed)
		served.Wait()
		k.Sessions.Close()
	})
	k.t.Cleanup(leave)
	return leave
}

func TestTheStateOfAnAgentIsWhatTheLogAndItsSessionsSay(t *testing.T) {
	k := newKnown(t)
	k.agent("new", time.Minute, time.Minute)
	k.agent("here", 2*time.Hour, time.Minute)
	k.agent("left", time.Minute, time.Minute)
	k.agent("before-a-restart", 2*time.Hour, time.Minute)
	k.agent("joined-before-a-restart", 30*time.Minute, 30*time.Minute)
	k.agent("ended", 3*time.Hour, 2*time.Hour)
	k.agent("out", time.Minute, time.Minute)
	k.put(store.Agent{ID: "never-issued", Joined: k.now.Add(-2 * time.Hour)})
	leave := k.connect("left")
	leave()
	k.connect("here")
	k.put(store.Agent{ID: "out", Group: "g", Joined: k.now.Add(-time.Minute), Banned: true})
	got := map[string]string{}
	for _, st := range k.All() {
		got[st.Agent.ID] = api.Word(st.State)
		if st.Connected() != (st.Agent.ID == "here") {
			t.Errorf("%s: connected since %s", st.Agent.ID, st.Since)
		}
	}
	want := map[string]string{
		"new": "joined", "here": "connected", "left": "away", "before-a-restart": "away", "joined-before-a-restart": "away", "ended": "gone", "out": "banned", "never-issued": "gone",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if st := k.Of(k.by["ended"]); !st.Seen.Equal(k.now.Add(-2*time.Hour)) || !st.End.Equal(k.now.Add(-time.Hour)) {
		t.Errorf("seen %s, end %s", st.Seen, st.End)
	}
}

func TestAProxyThatRunsAndToWhichNobodyIsSentIsToldWithItsReason(t *testing.T) {
	report := func() *api.Report {
		return &api.Report{Proxies: []*api.ProxyStatus{{Name: "web", State: api.ProxyStatus_READY.Enum()}, {Name: "old", State: api.ProxyStatus_BACKOFF.Enum()}, {Name: "orders", State: api.ProxyStatus_READY.Enum()}}}
	}
	st := Status{Report: report(), Unserved: map[string]string{"web": "it is another's", "old": "it is another's"}, Since: time.Now(), Remote: hostile("x").Remote}
	info := st.Message()
	var got []string
	for _, p := range info.GetReport().GetProxies() {
		got = append(got, p.GetName()+" "+api.Word(p.GetState())+" "+p.GetReason())
	}
	if d := cmp.Diff([]string{"web unserved it is another's", "old backoff ", "orders ready "}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff(report().String(), st.Report.String()); d != "" {
		t.Errorf("what the agent reported was changed (-want +got):\n%s", d)
	}
	if !info.GetConnected() || info.GetAddress() != "127.0.0.1" {
		t.Errorf("%v at %q", info.GetConnected(), info.GetAddress())
	}
}
