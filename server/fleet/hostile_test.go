package fleet

import (
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/encoding/protojson"

	"signet.example/api"
	"signet.example/internal/watched"
	"signet.example/proxy"
	"signet.example/server/shared"
	"signet.example/store"
)

// everything may be hosted.
type everything struct{}

func (everything) MayHost(string, proxy.Ref) (string, bool) { return "group", true }
func (everything) MayListen(string, netip.Addr) bool        { return false }

// hostile is an agent that is not ours any more.
func hostile(id string) Peer {
	return Peer{ID: spiffeid.RequireFromString("spiffe://test.example/signet/agent/" + id), Agent: store.Agent{ID: id, Group: "g"}, Remote: netip.MustParseAddr("127.0.0.1")}
}

// inMemory is what one server shares with nobody.
func inMemory() shared.Value[*Known] {
	v := &watched.Value[*Known]{}
	v.Set(&Known{})
	return v
}

func configOf(known shared.Value[*Known]) EndpointsConfig {
	return EndpointsConfig{Shared: known, Grace: time.Minute, Hosts: everything{}, Clock: time.Now, Changed: func() {}}
}

// A28: comparing each with each took minutes, under the lock that every view waits for.
func TestAReportOfAsMuchAsCanBeIsTakenQuickly(t *testing.T) {
	e := NewEndpoints(configOf(inMemory()))
	r := &api.Report{}
	for n := range maxProxies {
		p := &api.ProxyStatus{
			Name: fmt.Sprint(n), VirtualNode: &api.VirtualNodeRef{Mesh: "m", Name: fmt.Sprint(n / mostOfOne)}, Address: fmt.Sprintf("127.0.%d.%d", n/250, 1+n%250), State: api.ProxyStatus_READY.Enum(), Healthy: true,
		}
		for port := range maxPorts {
			p.Ports = append(p.Ports, uint32(1+(n%2)*maxPorts+port))
		}
		r.Proxies = append(r.Proxies, p)
	}
	if err := checkReport(r); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	e.Report(hostile("x"), r)
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("%s", took)
	}
	if e.Count() != maxProxies || len(e.Refused()) != 0 {
		t.Errorf("%d endpoints, %d refused", e.Count(), len(e.Refused()))
	}
	r.Proxies[0].Ports = make([]uint32, maxPorts+1)
	if checkReport(r) == nil {
		t.Error("a proxy with any number of ports is taken")
	}
}

func TestAClaimIsOfOneVirtualNode(t *testing.T) {
	e := NewEndpoints(configOf(inMemory()))
	proxy := func(name, node string) *api.ProxyStatus {
		return &api.ProxyStatus{Name: name, VirtualNode: &api.VirtualNodeRef{Mesh: "m", Name: node}, Address: "127.0.0.1", Ports: []uint32{80}, State: api.ProxyStatus_READY.Enum()}
	}
	report := func(agent string, proxies ...*api.ProxyStatus) {
		t.Helper()
		e.Report(hostile(agent), &api.Report{Proxies: proxies})
	}
	want := func(served, refused int) {
		t.Helper()
		if e.Count() != served || len(e.Refused()) != refused {
			t.Errorf("%d endpoints, refused %v: want %d and %d", e.Count(), e.Refused(), served, refused)
		}
	}
	report("one", proxy("a", "a"), proxy("a2", "a"))
	want(1, 1) // two proxies of one host in one place would share the calls
	report("two", proxy("b", "b"))
	want(1, 2)
	report("two", proxy("b", "b"), proxy("b", "a"), proxy("c", "a"))
	want(2, 3) // the name that comes twice is one refusal more
	report("one", proxy("b", "b"), proxy("a", "a"))
	want(2, 3) // what stays is looked at before what is new
	report("two")
	report("one", proxy("a", "b"))
	want(1, 0) // an agent may give its own place to another node
}

func TestWhatAnAgentOfTheVersionBeforeSaysInWordsIsUnderstood(t *testing.T) {
	for problem, want := range map[string]api.ProxyStatus_SpeakerFault{
		"egress: anybody can open it": api.ProxyStatus_EGRESS_SOCKET, "app: anybody can write to it": api.ProxyStatus_APPLICATION_SOCKET,
		"nobody listens": api.ProxyStatus_NO_SPEAKER_FAULT,
	} {
		p := &api.ProxyStatus{SpeakerProblem: problem}
		if err := checkReport(&api.Report{Proxies: []*api.ProxyStatus{p}}); err != nil || p.GetSpeakerFault() != want {
			t.Errorf("%q is %s: %v", problem, p.GetSpeakerFault(), err)
		}
	}
}

func TestNothingOfAReportCanSteerATerminal(t *testing.T) {
	const evil = "a\x1b]0;x\x07\u009bb"
	r := &api.Report{
		PeerModeWord: evil, Version: evil, PolicyRevision: evil, Findings: []string{evil},
		Proxies: []*api.ProxyStatus{{
			Name: evil, Address: evil, EnvoyVersion: evil, StateWord: evil,
			VirtualNode: &api.VirtualNodeRef{Mesh: evil, Name: evil},
			Rejected:    []*api.ResourceStatus{{TypeUrl: evil, Name: evil, Version: evil, Message: evil}},
		}},
		Svids: []*api.SVIDStatus{{SpiffeId: evil, Serial: evil, ConsumerWord: evil}},
	}
	if err := checkReport(r); err != nil {
		t.Fatal(err)
	}
	text, err := protojson.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(string(text), "\x1b\x07\u009b") || strings.Contains(string(text), `\u00`) {
		t.Errorf("%s", text)
	}
}

// The stream's reader may hold a report when the stream ends.
func TestAReportThatComesAfterItsSessionChangesNothing(t *testing.T) {
	taken := 0
	r := sessionsAt(inMemory(), "one", &reports{report: func(Peer, *api.Report) { taken++ }})
	first, second := streamOf(r, "x", "first"), streamOf(r, "x", "second")
	up := &api.SessionUp{Message: &api.SessionUp_Report{Report: &api.Report{}}}
	r.enter(first)
	r.enter(second)
	for _, s := range []*stream{first, second} {
		if err := r.handle(t.Context(), s, up); err != nil {
			t.Fatal(err)
		}
	}
	if taken != 1 {
		t.Errorf("%d reports were taken, one of a session that was replaced", taken)
	}
	r.leave(second)
	if err := r.handle(t.Context(), second, up); err != nil || taken != 1 {
		t.Errorf("after the session ended: %d, %v", taken, err)
	}
}

// A9-40: each time all callers' views were made again, 50 times a second.
func TestEndpointsThatComeAndGoDoSoAtAPaceAndKeepNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := inMemory()
		e := NewEndpoints(configOf(known))
		var changes atomic.Int64
		healthy, seen := false, (*Registered)(nil)
		r := sessionsAt(known, "one", &reports{report: func(p Peer, m *api.Report) {
			e.Report(p, m)
			if now := e.Snapshot(); now != seen {
				changes.Add(1)
				seen = now
			}
		}})
		stream, end := probedAgent(t, r, func(*probedStream, *api.SessionDown) {})
		defer end()
		say := func(healthy bool) {
			stream.up <- &api.SessionUp{Message: &api.SessionUp_Report{Report: reportOf(0, healthy)}}
		}
		begun := time.Now()
		for time.Since(begun) < 60*time.Second {
			healthy = !healthy
			say(healthy)
			time.Sleep(time.Second / reportPerSecond)
		}
		if n, most := changes.Load(), int64(changesBurst+60*changesPerSecond+2); n > most || n < changesBurst {
			t.Errorf("%d changes in a minute, %d may be", n, most)
		}
		time.Sleep(time.Hour) // all of it was taken
		say(!healthy)
		synctest.Wait()
		if o := e.Snapshot().OfAgent("x"); len(o) != 1 || o[0].Healthy == healthy {
			t.Error("what it says then is not taken at once")
		}
	})
}

// A9-41: a user of the host who has a proxy there had it come and go, and what the host said of all
// others waited behind that, ten seconds and more: callers were sent to a proxy that had ended.
func TestWhoseEndpointsComeAndGoIsHeardOfTheOthersAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := inMemory()
		e := NewEndpoints(configOf(known))
		r := sessionsAt(known, "one", &reports{report: func(p Peer, m *api.Report) { e.Report(p, m) }})
		stream, end := probedAgent(t, r, func(*probedStream, *api.SessionDown) {})
		defer end()
		say := func(flaps, other bool) {
			m := &api.Report{Proxies: append(reportOf(0, flaps).GetProxies(), reportOf(1, other).GetProxies()...)}
			m.Proxies[1].Name = "other"
			stream.up <- &api.SessionUp{Message: &api.SessionUp_Report{Report: m}}
		}
		for i := range 10 * changesBurst { // as an agent reports, ten times a second at most
			say(i%2 == 0, true)
			time.Sleep(100 * time.Millisecond)
		}
		say(false, false)
		time.Sleep(time.Second/changesPerSecond + time.Millisecond)
		synctest.Wait()
		list := e.Snapshot().OfAgent("x")
		if len(list) != 2 {
			t.Fatalf("%d endpoints", len(list))
		}
		for _, o := range list {
			if o.Healthy {
				t.Errorf("%s is called that has stopped", o.Address)
			}
		}
	})
}
