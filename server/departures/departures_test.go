package departures_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"signet.example/api"
	"signet.example/server/departures"
	"signet.example/server/fleet"
	"signet.example/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fleetOf are agents of which a test says how they are.
type fleetOf struct {
	mu     sync.Mutex
	agents map[string]fleet.Status
	served map[string]string
	forgot []string // "id by whom"
	calls  int
	waits  func() // where it is set: what happens while it waits for its turn to write
	fails  error
	behind error
}

func (f *fleetOf) forget(_ context.Context, ids []string, ended func(string) bool, theySaid bool) error {
	if f.waits != nil {
		f.waits()
	}
	ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !ended(id) })
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.fails != nil {
		return f.fails
	}
	for _, id := range ids {
		by := " by the server"
		if theySaid {
			by = " by itself"
		}
		f.forgot = append(f.forgot, id+by)
		delete(f.agents, id)
	}
	return nil
}

func (f *fleetOf) all() (list []fleet.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, st := range f.agents {
		list = append(list, st)
	}
	return list
}

func (f *fleetOf) one(id string) (fleet.Status, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st, ok := f.agents[id]
	return st, ok
}

func (f *fleetOf) caughtUp(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.behind
}

// forgotten are those that were, in order.
func (f *fleetOf) forgotten() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.Sort(f.forgot)
	return strings.Join(f.forgot, ", ")
}

func (f *fleetOf) departures(t *testing.T) *departures.Departures {
	d := departures.New(departures.Config{
		Ends: func(method string) bool { return method == "task" }, Agents: f.all, Agent: f.one, CaughtUp: f.caughtUp,
		Serves: func(agent, instance string) bool { return f.served[agent] == instance }, Forget: f.forget,
		Log: slog.New(slog.DiscardHandler), Clock: time.Now,
	})
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		end()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return d
}

func status(id, method string, state api.AgentInfo_State, end time.Time) fleet.Status {
	return fleet.Status{Agent: store.Agent{ID: id, Method: method}, State: state, End: end}
}

func TestATaskIsForgottenWhenItsAgentSaysGoodbyeAndNoOtherOneIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleetOf{agents: map[string]fleet.Status{}, served: map[string]string{"a": "1", "b": "2", "back": "new"}}
		d := f.departures(t)
		d.Goodbye("a", "1")
		d.Goodbye("b", "1")      // a run of it that is not served any more
		d.Goodbye("back", "old") // it came back meanwhile
		d.Goodbye("nobody", "1")
		time.Sleep(time.Second)
		if got := f.forgotten(); got != "a by itself" {
			t.Errorf("forgotten: %s", got)
		}
	})
}

func TestAHundredGoodbyesAreOneLookAtTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleetOf{agents: map[string]fleet.Status{}, served: map[string]string{}}
		for n := range 100 {
			f.served[string(rune('a'+n))] = "1"
		}
		d := f.departures(t)
		for id := range f.served {
			d.Goodbye(id, "1")
		}
		time.Sleep(time.Second)
		if n := len(strings.Split(f.forgotten(), ", ")); n != 100 || f.calls != 1 {
			t.Errorf("%d were forgotten in %d steps", n, f.calls)
		}
	})
}

// A9-62: whoever applies much has others wait for their turn to write.
func TestATaskThatComesBackWhileItsForgettingWaitsIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := time.Now()
		f := &fleetOf{served: map[string]string{"said": "1", "other": "1"}, agents: map[string]fleet.Status{
			"back": status("back", "task", api.AgentInfo_GONE, end), "gone": status("gone", "task", api.AgentInfo_GONE, end),
		}}
		f.waits = func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.served["said"] = "2"
			f.agents["back"] = status("back", "task", api.AgentInfo_CONNECTED, end)
		}
		d := f.departures(t)
		d.Goodbye("said", "1")
		d.Goodbye("other", "1")
		time.Sleep(departures.Grace + 2*time.Minute)
		synctest.Wait()
		if got := f.forgotten(); got != "gone by the server, other by itself" {
			t.Errorf("forgotten: %s", got)
		}
	})
}

func TestATaskThatWasKilledIsForgottenAfterItsCertificatesEndAndAGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := time.Now().Add(time.Hour)
		f := &fleetOf{behind: errors.New("not read"), agents: map[string]fleet.Status{
			"killed":  status("killed", "task", api.AgentInfo_GONE, end),
			"host":    status("host", "token", api.AgentInfo_GONE, end),
			"there":   status("there", "task", api.AgentInfo_CONNECTED, end),
			"away":    status("away", "task", api.AgentInfo_AWAY, end),
			"banned":  status("banned", "task", api.AgentInfo_BANNED, end),
			"unknown": status("unknown", "task", api.AgentInfo_GONE, time.Now().Add(24*time.Hour)),
		}}
		f.departures(t)
		time.Sleep(time.Hour + departures.Grace - time.Minute)
		synctest.Wait()
		if got := f.forgotten(); got != "" {
			t.Errorf("within the grace: %s", got)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if got := f.forgotten(); got != "" {
			t.Errorf("while certificates may not be known of: %s", got)
		}
		f.mu.Lock()
		f.behind, f.fails = nil, errors.New("no disk")
		f.mu.Unlock()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		f.mu.Lock()
		f.fails = nil
		f.mu.Unlock()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := f.forgotten(); got != "killed by the server" {
			t.Errorf("forgotten: %s", got)
		}
	})
}

// A9-47: one minute after an outage of the servers the agents of living tasks were forgotten.
func TestAfterAnOutageThoseThatLiveHaveAGraceToComeBackIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := time.Now().Add(-24 * time.Hour)
		f := &fleetOf{agents: map[string]fleet.Status{"dead": status("dead", "task", api.AgentInfo_GONE, long), "alive": status("alive", "task", api.AgentInfo_GONE, long)}}
		f.departures(t)
		time.Sleep(departures.Grace)
		synctest.Wait()
		if got := f.forgotten(); got != "" {
			t.Errorf("within the grace: %s", got)
		}
		f.mu.Lock()
		f.agents["alive"] = status("alive", "task", api.AgentInfo_CONNECTED, time.Now().Add(time.Hour))
		f.mu.Unlock()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := f.forgotten(); got != "dead by the server" {
			t.Errorf("forgotten: %s", got)
		}
	})
}
