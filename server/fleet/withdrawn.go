package fleet

import (
	"context"
	"maps"
	"net/netip"
	"time"

	"signet.example/api"
	"signet.example/proxy"
)

// lookAgain is how often callers are looked at while a proxy drains.
const lookAgain = 100 * time.Millisecond

// Without reports whether none of the proxies that call a virtual node is sent to an
// address any more. It may wait for what is being made, so no lock is held.
type Without func(node proxy.Ref, address string) bool

// draining is a proxy that is about to stop, as its agent reports it.
type draining struct {
	at      proxy.Ref
	address string
	pid     int64
}

// drainsOf are those of a report, by name.
func drainsOf(r *api.Report) map[string]draining {
	var list map[string]draining
	for _, p := range r.GetProxies() {
		if p.GetState() != api.ProxyStatus_DRAINING {
			continue
		}
		if list == nil {
			list = map[string]draining{}
		}
		a, _ := netip.ParseAddr(p.GetAddress()) // of what is none, no caller was sent anywhere
		list[p.GetName()] = draining{RefOf(p), a.Unmap().WithZone("").String(), p.GetPid()}
	}
	return list
}

// withdrawals is what agents with a session here are told of their draining proxies. It
// belongs to one goroutine.
type withdrawals struct {
	sessions *Sessions
	without  Without
	drains   map[string]map[string]draining // by agent and proxy, of those that have any
	sent     map[string]sent                // by agent
}

// sent is what an agent was sent last, and on which session: an earlier one may have had
// another thing.
type sent struct {
	session string
	pids    map[string]int64
}

// RunWithdrawals sends the agents that have their session here which of their draining
// proxies no caller is sent to any more (R11), until ctx ends. It sleeps while no proxy of
// theirs drains and none of them comes or goes.
func (r *Sessions) RunWithdrawals(ctx context.Context, without Without) error {
	w := withdrawals{sessions: r, without: without, drains: map[string]map[string]draining{}, sent: map[string]sent{}}
	seen := &Known{}
	for {
		now, changed := r.cfg.Shared.Get()
		for agent := range now.runs.Differ(seen.runs) {
			w.follow(string(agent), now.run(string(agent)).session)
		}
		seen = now
		timer := time.NewTimer(w.sendAll())
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// follow takes what an agent reports now. Whoever is new here is told at once that it will
// be told: one that hears nothing waits for nothing.
func (w *withdrawals) follow(agent string, s *Session) {
	drains := drainsOf(s.Latest())
	if drains == nil {
		delete(w.drains, agent)
	} else {
		w.drains[agent] = drains
	}
	if s == nil || s.server != w.sessions.cfg.Server {
		delete(w.drains, agent)
		delete(w.sent, agent)
		return
	}
	if s.report != nil && drains == nil {
		w.send(agent)
	}
}

// sendAll is send to all that have proxies that drain, and returns when to look again.
func (w *withdrawals) sendAll() time.Duration {
	again := never
	for agent := range w.drains {
		if !w.send(agent) {
			again = lookAgain
		}
	}
	return again
}

// send sends an agent what it has not been sent so far, and reports whether nothing is left
// that it will have to know of these proxies.
func (w *withdrawals) send(agent string) bool {
	s := w.sessions.of(agent)
	if s == nil {
		return true
	}
	pids, asked := map[string]int64{}, map[draining]bool{}
	for name, p := range w.drains[agent] {
		place := draining{at: p.at, address: p.address}
		if _, ok := asked[place]; !ok { // however many are said to drain there
			asked[place] = w.without(p.at, p.address)
		}
		if asked[place] {
			pids[name] = p.pid
		}
	}
	if last := w.sent[agent]; last.session != s.id || !maps.Equal(last.pids, pids) {
		select {
		case s.down <- &api.SessionDown{Message: &api.SessionDown_Withdrawn{Withdrawn: &api.Withdrawn{Pids: pids}}}:
			w.sent[agent] = sent{s.id, pids}
		default: // it has not read for long
			return false
		}
	}
	return len(pids) == len(w.drains[agent])
}
