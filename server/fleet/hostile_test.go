package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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
			Name: fmt.Sprint(n), VirtualNode: &api.VirtualNodeRef{Mesh: "m", Name: fmt.Sprint(n % 2)}, Address: fmt.Sprintf("127.0.%d.%d", n/250, 1+n%250), State: api.ProxyStatus_READY.Enum(), Healthy: true,
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
		if err := r.handle(s, up); err != nil {
			t.Fatal(err)
		}
	}
	if taken != 1 {
		t.Errorf("%d reports were taken, one of a session that was replaced", taken)
	}
	r.leave(second)
	if err := r.handle(second, up); err != nil || taken != 1 {
		t.Errorf("after the session ended: %d, %v", taken, err)
	}
}

// rows are agents in a store that takes its time.
type rows struct {
	mu    sync.Mutex
	list  []store.Agent
	reads int

	joined watched.Value[uint64]
}

func (r *rows) Joined() (uint64, <-chan struct{}) { return r.joined.Get() }

func (r *rows) Agents(context.Context) ([]store.Agent, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer time.Sleep(time.Millisecond)
	r.reads++
	return slices.Clone(r.list), nil
}

func (r *rows) PutAgent(_ context.Context, a store.Agent) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, a)
	r.joined.Update(func(n uint64) uint64 { return n + 1 })
	return nil
}

// It would be unknown until the next change of anything, and told to join again.
func TestAnAgentThatJoinsWhileTheAgentsAreReadStaysKnown(t *testing.T) {
	r := NewRoster(&rows{}, func([]string) string { return "" })
	for n := range 20 {
		id := fmt.Sprint("new-", n)
		var wg sync.WaitGroup
		var errs [2]error
		wg.Go(func() { errs[0] = r.Load(t.Context()) })
		wg.Go(func() { errs[1] = r.Enrol(t.Context(), store.Agent{ID: id, HostKey: []byte(id)}) })
		wg.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		if _, ok := r.Get(id); !ok {
			t.Fatalf("%s is not known", id)
		}
	}
}

// Each join at a server alone would else cost a look at all agents.
func TestAnAgentThatJoinedAtAnotherServerIsKnownAndOneThatJoinedHereCostsNoLook(t *testing.T) {
	all := &rows{}
	here, there := NewRoster(all, func([]string) string { return "" }), NewRoster(all, func([]string) string { return "" })
	for n := range 10 {
		if err := here.Enrol(t.Context(), store.Agent{ID: fmt.Sprint(n), HostKey: []byte{byte(n)}}); err != nil {
			t.Fatal(err)
		}
		if err := here.Follow(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if all.reads != 0 {
		t.Errorf("all agents were read %d times", all.reads)
	}
	for range 3 {
		if err := there.Follow(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := there.Standing("7"); err != nil || all.reads != 1 {
		t.Errorf("%v, after %d looks", err, all.reads)
	}
}

func counter() prometheus.Counter { return prometheus.NewCounter(prometheus.CounterOpts{Name: "x"}) }

// A28: everyone can make a host key, and hold what it connects with.
func TestAConnectionThatNoAgentCallsOnIsClosed(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := listen(l, 200*time.Millisecond, AgentsLimits(), counter())
	t.Cleanup(func() { _ = u.Close() }) // nothing was written
	var clients, served []net.Conn
	for range 2 {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := u.Accept()
		if err != nil {
			t.Fatal(err)
		}
		clients, served = append(clients, c), append(served, s)
	}
	u.Verified(served[1].RemoteAddr(), "web", "")
	for i, want := range []error{io.EOF, os.ErrDeadlineExceeded} {
		if err := clients[i].SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := clients[i].Read(make([]byte, 1)); !errors.Is(err, want) {
			t.Errorf("connection %d: %v, want %v", i, err, want)
		}
	}
	for i := range served {
		_ = errors.Join(served[i].Close(), clients[i].Close()) // one is closed already
	}
	if len(u.open) != 0 || u.unverified.len() != 0 || len(u.sources) != 0 || len(u.agents) != 0 || u.called != 0 {
		t.Errorf("connections are still known: %+v", u)
	}
}

// What agents hold and what strangers hold are two rooms, and of the first each agent
// has a part.
func TestStrangersTakeNoRoomOfAgentsAndNoAgentThatOfAnother(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := listen(l, time.Minute, Limits{Source: [classes]int{2, 2, 2}, All: [classes]int{4, 4, 4}, Agent: 2, Agents: 3}, counter())
	t.Cleanup(func() { _ = u.Close() }) // nothing was written
	connect := func(host byte) (near, far net.Conn) {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 2, host)}}
		near, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if far, err = u.Accept(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = errors.Join(near.Close(), far.Close()) }) // one may be closed already
		return near, far
	}
	open := func(c net.Conn) bool {
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := c.Read(make([]byte, 1))
		return errors.Is(err, os.ErrDeadlineExceeded)
	}
	agent := func(name string) net.Conn {
		near, far := connect(1)
		u.Verified(far.RemoteAddr(), name, "")
		return near
	}
	web1, web2, orders := agent("web"), agent("web"), agent("orders")
	if web3 := agent("web"); !open(web3) || open(web1) || !open(web2) || !open(orders) {
		t.Error("an agent's third connection takes the place of its first, and of no other")
	}
	if other := agent("other"); open(other) {
		t.Error("there was no room for another agent")
	}
	strangers := make([]net.Conn, 12)
	for i := range strangers {
		strangers[i], _ = connect(byte(2 + i/3))
	}
	for i, c := range strangers {
		if open(c) != (i == 7 || i == 8 || i == 10 || i == 11) { // two of each of the last two addresses
			t.Errorf("stranger %d: open: %t", i, open(c))
		}
	}
	near, far := connect(9)
	far.(*Conn).Shook(false)
	for i := range 8 {
		connect(byte(10 + i))
	}
	if !open(near) || !open(orders) {
		t.Error("one whose handshake is complete gave way to others that had none, or an agent to strangers")
	}
}

// A28: what is sent is held in memory until its message is complete, and one
// connection may carry a thousand messages.
func TestAConnectionThatNoAgentCalledOnMaySendLittle(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := listen(l, time.Minute, AgentsLimits(), counter())
	t.Cleanup(func() { _ = u.Close() }) // nothing was written
	for _, verified := range []bool{false, true} {
		client, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		served, err := u.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if verified {
			u.Verified(served.RemoteAddr(), "web", "")
		}
		const sent = 3 * unverifiedBytes
		go func() { // ends by Close
			_, _ = io.Copy(client, io.LimitReader(zeros{}, sent)) // it may be refused
			_ = client.Close()
		}()
		got, err := io.Copy(io.Discard, struct{ io.Reader }{served})
		if verified && (got != sent || err != nil) {
			t.Errorf("an agent's connection: %d bytes, %v", got, err)
		}
		if !verified && (got > unverifiedBytes || !errors.Is(err, errUnverifiedBytes)) {
			t.Errorf("nobody's connection: %d bytes, %v", got, err)
		}
		_ = served.Close() // closed already where it was refused
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }
