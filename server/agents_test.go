package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/server/fleet"
	"signet.example/server/issuance"
	"signet.example/store"
)

// known is a server that knows agents and does nothing.
type known struct {
	*admin
	now time.Time
	log writtenLog
}

func newKnown() *known {
	k := &known{now: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)}
	clock := func() time.Time { return k.now }
	k.admin = &admin{server: &server{
		clock: clock, started: k.now.Add(-10 * time.Minute), td: spiffeid.RequireTrustDomainFromString("test.example"), cfg: Config{Lifetimes: Lifetimes{Agent: time.Hour}},
		roster: rosterOf(), sessions: fleet.NewSessions(noReports{}, slog.New(slog.DiscardHandler)),
		issued:    issuance.NewLog(&k.log, clock, slog.New(slog.DiscardHandler)),
		endpoints: fleet.NewEndpoints(fleet.EndpointsConfig{}),
	}}
	return k
}

// agent joined some time ago; its newest certificate was issued then or later.
func (k *known) agent(id, group, host string, joined, issued time.Duration) {
	put(k.roster, store.Agent{ID: id, Group: group, Hostname: host, Joined: k.now.Add(-joined)})
	k.log.issue(k.agentSPIFFE(id), k.now.Add(-joined))
	if issued != joined {
		k.log.issue(k.agentSPIFFE(id), k.now.Add(-issued))
	}
	_ = k.issued.Follow(context.Background()) // a writtenLog has no errors
}

// writtenLog is an issuance log that ends when all of it was read.
type writtenLog []*api.LogRecord

// issue writes down an hour's certificate of an agent's own.
func (l *writtenLog) issue(agent string, at time.Time) {
	*l = append(*l, &api.LogRecord{
		Sequence: uint64(len(*l) + 1), Kind: api.RecordKind_RECORD_KIND_ISSUED, Profile: api.Profile_PROFILE_AGENT, SpiffeId: agent, Requester: agent,
		Serial: fmt.Sprint(len(*l)), Time: timestamppb.New(at), NotAfter: timestamppb.New(at.Add(time.Hour)),
	})
}

func (l *writtenLog) Authority(context.Context) (*api.AuthorityResponse, error) {
	return &api.AuthorityResponse{LogSize: uint64(len(*l))}, nil
}

func (l *writtenLog) ReadLog(_ context.Context, from uint64, _ bool, each func(*api.LogRecord) error) error {
	for _, r := range (*l)[from-1:] {
		if err := each(r); err != nil {
			return err
		}
	}
	return nil
}

// noReports are taken.
type noReports struct{}

func (noReports) Report(fleet.Peer, *api.Report) map[string]string { return nil }
func (noReports) Left(string)                                      {}

// connect opens a session, which the returned function ends.
func (k *known) connect(t *testing.T, id string) (leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stream := silentStream{ctx: ctx}
	var served sync.WaitGroup
	served.Go(func() { _ = k.sessions.Serve(hostile(id).asPeer(), stream) }) // it ends with ctx
	for s, _ := k.sessions.Of(id); s == nil; s, _ = k.sessions.Of(id) {
		time.Sleep(time.Millisecond)
	}
	leave = func() {
		cancel()
		served.Wait()
	}
	t.Cleanup(leave)
	return leave
}

// silentStream is of an agent that says nothing.
type silentStream struct {
	grpc.BidiStreamingServer[api.SessionUp, api.SessionDown]

	ctx context.Context //nolint:containedctx // grpc.ServerStream's own contract
}

func (s silentStream) Context() context.Context { return s.ctx }

func (s silentStream) Recv() (*api.SessionUp, error) {
	<-s.ctx.Done()
	return nil, io.EOF
}

func (k *known) ban(id string) {
	g, _ := k.roster.Get(id)
	g.Banned = true
	put(k.roster, g)
}

func TestTheStateOfAnAgentIsWhatTheLogAndItsSessionsSay(t *testing.T) {
	k := newKnown()
	k.agent("new", "g", "a", time.Minute, time.Minute)
	k.agent("here", "g", "b", 2*time.Hour, time.Minute)
	k.agent("left", "g", "c", time.Minute, time.Minute)
	k.agent("before-a-restart", "g", "d", 2*time.Hour, time.Minute)
	k.agent("joined-before-a-restart", "g", "h", 30*time.Minute, 30*time.Minute)
	k.agent("ended", "g", "e", 3*time.Hour, 2*time.Hour)
	k.agent("out", "g", "f", time.Minute, time.Minute)
	put(k.roster, store.Agent{ID: "never-issued", Joined: k.now.Add(-2 * time.Hour)})
	k.connect(t, "here")
	k.connect(t, "left")()
	k.ban("out")
	got := map[string]string{}
	for _, g := range k.roster.All() {
		got[g.ID] = api.Word(k.agentStatus(g).state)
	}
	want := map[string]string{
		"new": "joined", "here": "connected", "left": "away", "before-a-restart": "away", "joined-before-a-restart": "away", "ended": "gone", "out": "banned", "never-issued": "gone",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	g, _ := k.roster.Get("ended")
	if st := k.agentStatus(g); !st.seen.Equal(k.now.Add(-2*time.Hour)) || !st.end.Equal(k.now.Add(-time.Hour)) {
		t.Errorf("seen %s, end %s", st.seen, st.end)
	}
}

func TestCheckWarnsOfHostsAndNotOfAgentsThatWereReplaced(t *testing.T) {
	k := newKnown()
	k.agent("restarted-1", "g", "restarted", 4*time.Hour, 3*time.Hour)
	k.agent("restarted-2", "g", "restarted", time.Minute, time.Minute)
	k.connect(t, "restarted-2")
	k.agent("down-1", "g", "down", 4*time.Hour, 3*time.Hour)
	k.agent("down-2", "g", "down", 2*time.Hour, time.Minute)
	k.agent("lost-1", "g", "lost", 4*time.Hour, 3*time.Hour)
	k.agent("lost-2", "g", "lost", 3*time.Hour, 2*time.Hour)
	k.agent("restarted-of-another-group", "other", "restarted", 2*time.Hour, time.Minute)
	k.agent("out-1", "g", "out", 4*time.Hour, 3*time.Hour)
	k.agent("out-2", "g", "out", time.Minute, time.Minute)
	k.ban("out-2")
	got := map[string]string{}
	for _, f := range k.checkAgents(t.Context()) {
		fix, _, _ := strings.Cut(f.GetFix(), " (")
		got[f.GetSubject()] = f.GetId() + " " + fix
	}
	want := map[string]string{
		"host down of group g, agent down-2":                              "SIG001 start `signet agent` there",
		"host lost of group g, agent lost-2":                              "SIG001 signet delete agent lost-1 lost-2",
		"host restarted of group other, agent restarted-of-another-group": "SIG001 start `signet agent` there",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestHostsThatNoNameTellsApartAreToldApartByTheirAgents(t *testing.T) {
	k := newKnown()
	for _, id := range []string{"one", "two"} { // the one was not seen any more when the other joined
		joined := map[string]time.Duration{"one": 4 * time.Hour, "two": time.Minute}[id]
		k.agent(id, "g", "localhost", joined, joined)
		k.agent("clone-"+id, "g", "clone", joined, joined)
		g, _ := k.roster.Get("clone-" + id)
		g.Evidence, g.HostKey = []byte(id), []byte("clone-"+id)
		put(k.roster, g)
	}
	k.connect(t, "two")
	var got []string
	for _, f := range k.checkAgents(t.Context()) {
		if f.GetId() == findDisconnected {
			got = append(got, f.GetSubject())
		}
	}
	want := []string{"host clone of group g, agent clone-one", "host clone of group g, agent clone-two", "host localhost of group g, agent one"}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("it finds %q, want %q", got, want)
	}
}
