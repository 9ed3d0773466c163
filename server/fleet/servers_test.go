package fleet

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"signet.example/api"
	"signet.example/server/fault"
	"signet.example/server/shared"
)

// member is one server of several that know the same.
type member struct {
	sessions  *Sessions
	instances *Instances
	endpoints *Endpoints

	mu      sync.Mutex
	evicted []string // instances that are served in the place of others
	told    int      // clashes
}

// Evict implements Streams.
func (m *member) Evict(_, instance string, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.evicted = append(m.evicted, instance)
}

func (m *member) hasEvictedFor(instance string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.evicted, instance)
}

// memberOf runs a server's part of the fleet until stop.
func memberOf(t *testing.T, known shared.Value[*Known], name string) (m *member, stop func()) {
	t.Helper()
	m = &member{endpoints: NewEndpoints(configOf(known))}
	m.sessions = sessionsAt(known, name, m.endpoints)
	m.instances = NewInstances(InstancesConfig{
		Shared: known, Sessions: m.sessions, Streams: m, Clock: time.Now,
		Tell: func(context.Context, string, Clash) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.told++
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for _, part := range []func(context.Context) error{m.sessions.Run, m.instances.Run, m.endpoints.Run} {
		all.Go(func() { _ = part(ctx) })
	}
	return m, func() {
		m.sessions.Close()
		cancel()
		all.Wait()
	}
}

// connects opens a session of agent x, which answers probes if it is alive; the channel
// has why it ended.
func (m *member) connects(t *testing.T, instance string, live bool) (up chan<- *api.SessionUp, ended <-chan error) {
	t.Helper()
	p := hostile("x")
	p.Instance = instance
	if err := m.instances.Admit(t.Context(), "x", instance, p.Remote); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := &probedStream{ctx: ctx, up: make(chan *api.SessionUp, 16)}
	s.send = func(d *api.SessionDown) {
		if d.GetProbe() != nil && live {
			s.up <- alive(d)
		}
	}
	why := make(chan error, 1)
	go func() {
		defer cancel()
		why <- m.sessions.Serve(p, grpc.BidiStreamingServer[api.SessionUp, api.SessionDown](s))
	}()
	synctest.Wait()
	return s.up, why
}

func TestAnAgentHasOneSessionHoweverManyServersItGoesTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := theContended()
		one, stopOne := memberOf(t, known, "one")
		two, stopTwo := memberOf(t, known, "two")
		up, ended := one.connects(t, "run", true)
		up <- &api.SessionUp{Message: &api.SessionUp_Report{Report: reportOf(1, true)}}
		synctest.Wait()
		for name, m := range map[string]*member{"one": one, "two": two} {
			s, _ := m.sessions.Of("x")
			if len(m.sessions.Connected()) != 1 || len(s.Latest().GetProxies()) != 1 || m.endpoints.Count() != 1 {
				t.Errorf("server %s has %v, of x %v, and %d endpoints", name, m.sessions.Connected(), s, m.endpoints.Count())
			}
		}
		second, moved := two.connects(t, "run", true)
		if err := <-ended; !errors.Is(err, errReplaced) {
			t.Errorf("its session at the first server ended with %v", err)
		}
		synctest.Wait()
		if list := one.sessions.Connected(); len(list) != 1 || list[0].server != "two" || one.sessions.of("x") != nil {
			t.Errorf("connected: %+v", list)
		}
		// Its endpoints are those of its last report, and no grace runs.
		time.Sleep(time.Hour)
		if n := one.endpoints.Snapshot().OfAgent("x"); len(n) != 1 || !n[0].Gone.IsZero() {
			t.Errorf("registered: %+v", n)
		}
		close(second)
		if err := <-moved; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if s, last := one.sessions.Of("x"); s != nil || last.At.IsZero() {
			t.Errorf("after it has left: %v, %v", s, last)
		}
		time.Sleep(2 * time.Minute)
		if one.endpoints.Count()+two.endpoints.Count() != 0 {
			t.Error("its endpoints are served for ever")
		}
		stopOne()
		stopTwo()
	})
}

func TestARunOfAnAgentKeepsAnotherOutOfEveryServerWhileItIsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := theContended()
		one, stopOne := memberOf(t, known, "one")
		two, stopTwo := memberOf(t, known, "two")
		up, ended := one.connects(t, "first", true)
		newcomer := netip.MustParseAddr("10.0.0.9")
		var asked sync.WaitGroup
		for range 20 {
			asked.Go(func() {
				if err := two.instances.Admit(t.Context(), "x", "copy", newcomer); !errors.Is(err, fault.Conflict) {
					t.Errorf("a copy at the other server: %v", err)
				}
			})
		}
		asked.Wait()
		for name, m := range map[string]*member{"one": one, "two": two} {
			if c := m.instances.Recent()["x"]; c.Refused != newcomer {
				t.Errorf("server %s has the clash %+v", name, c)
			}
		}
		if two.told != 1 || one.told != 0 {
			t.Errorf("told %d times at the server of the copy, %d at the other", two.told, one.told)
		}
		close(up) // it has ended
		if err := <-ended; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		_, silent := two.connects(t, "second", false)
		if !one.hasEvictedFor("second") {
			t.Error("streams that the first run has at its server go on")
		}
		// A host that lost its power, asked after by the server where it is not.
		begun := time.Now()
		third, _ := one.connects(t, "third", true)
		if took := time.Since(begun); took < probeWait || took >= probeWait+probeMargin {
			t.Errorf("let in after %s", took)
		}
		if err := <-silent; !errors.Is(err, errReplaced) {
			t.Errorf("the session of the run that was silent ended with %v", err)
		}
		close(third)
		synctest.Wait()
		stopOne()
		stopTwo()
	})
}

func TestAPlaceIsKeptAtEveryServerWhereOneEndedTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := theContended()
		one, stopOne := memberOf(t, known, "one")
		two, stopTwo := memberOf(t, known, "two")
		_, ended := one.connects(t, "first", true)
		age := errors.New("its certificate has ended")
		one.sessions.of("x").end(age)
		if err := <-ended; !errors.Is(err, age) {
			t.Error(err)
		}
		for _, m := range []*member{one, two} {
			if err := m.instances.Admit(t.Context(), "x", "copy", netip.Addr{}); !errors.Is(err, errUnsure) {
				t.Errorf("a copy, at once: %v", err)
			}
		}
		back, gone := two.connects(t, "first", true)
		if err := one.instances.Admit(t.Context(), "x", "copy", netip.Addr{}); !errors.Is(err, fault.Conflict) {
			t.Errorf("a copy, when it is back at the other server: %v", err)
		}
		close(back)
		if err := <-gone; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if err := one.instances.Admit(t.Context(), "x", "next", netip.Addr{}); err != nil {
			t.Errorf("it has left by itself: %v", err)
		}
		stopOne()
		stopTwo()
	})
}

func TestWhatAServerCannotSayOfItsSessionLetsNobodyInAtAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := theContended()
		one, stopOne := memberOf(t, known, "one")
		two, stopTwo := memberOf(t, known, "two")
		up, ended := one.connects(t, "first", false)
		one.sessions.of("x").waits(false) // it holds a message of the agent back
		if err := two.instances.Admit(t.Context(), "x", "copy", netip.Addr{}); !errors.Is(err, errUnsure) {
			t.Errorf("%v", err)
		}
		close(up)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		stopOne()
		stopTwo()
	})
}

func TestTheSessionsOfAServerThatEndedEndWhenOneOfItsNameStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := inMemory()
		two, stopTwo := memberOf(t, known, "two")
		lost := sessionsAt(known, "one", two.endpoints) // nobody closes it
		s := streamOf(lost, "x", "1")
		lost.enter(s)
		if err := lost.handle(t.Context(), s, &api.SessionUp{Message: &api.SessionUp_Report{Report: reportOf(1, true)}}); err != nil {
			t.Fatal(err)
		}
		if len(two.sessions.Connected()) != 1 || two.endpoints.Count() != 1 {
			t.Error("the other server does not know the session")
		}
		_, stopOne := memberOf(t, known, "one")
		if len(two.sessions.Connected()) != 0 {
			t.Error("the session is there still")
		}
		time.Sleep(2 * time.Minute)
		if two.endpoints.Count() != 0 {
			t.Error("its endpoints are served for ever")
		}
		stopOne()
		stopTwo()
	})
}
