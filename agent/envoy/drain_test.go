package envoy

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// adminOf is an admin interface whose Envoy has requests in flight: so many, as
// it is asked again and again.
func adminOf(t *testing.T, inFlight func(asked int) int) *admin {
	t.Helper()
	var asked atomic.Int64
	return adminWith(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.RawQuery, "downstream_rq_active") {
			return
		}
		n := inFlight(int(asked.Add(1)))
		_, _ = fmt.Fprintf(w, "cluster.cds_ingress_m_store_tcp_6379.upstream_cx_active: %d\nhttp.admin.downstream_rq_active: 1\nhttp.ingress.downstream_rq_active: %d\nhttp.wayout.downstream_rq_active: 0\n", n/2, n-n/2) // the test reads it or has failed
	})
}

// adminWith is an admin interface that answers so.
func adminWith(t *testing.T, answer http.HandlerFunc) *admin {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: time.Second, Handler: answer}
	go func() { _ = s.Serve(l) }() // ends with Close
	t.Cleanup(func() { _ = s.Close() })
	return newAdmin(socket)
}

// callers are told of at the moments in told, from the test's beginning, and know of
// the proxy's end from after on, if that is not 0.
type callers struct {
	begun time.Time
	told  []time.Duration
	after time.Duration
	dumb  bool // nobody would tell
}

func (c callers) Gone(string, int) (bool, <-chan struct{}) {
	if c.dumb {
		return false, nil
	}
	changed := make(chan struct{})
	for _, at := range c.told {
		if left := time.Until(c.begun.Add(at)); left > 0 {
			time.AfterFunc(left, func() { close(changed) })
			break
		}
	}
	return c.after > 0 && time.Since(c.begun) >= c.after, changed
}

func TestADrainingProxyIsEndedWhenWhatIsInFlightIsAnswered(t *testing.T) {
	t.Parallel()
	const most = time.Second
	never := make(chan struct{})
	ended := make(chan struct{})
	close(ended)
	for name, c := range map[string]struct {
		inFlight func(asked int) int
		ended    <-chan struct{}
		min, max time.Duration
	}{
		"nothing in flight":               {func(int) int { return 0 }, never, 0, most / 2},
		"answered at the fifth look":      {func(n int) int { return max(0, 5-n) }, never, 3 * pollDraining, most - pollDraining},
		"never answered":                  {func(int) int { return 3 }, never, most, 3 * most},
		"it ended by itself":              {func(int) int { return 3 }, ended, 0, most / 2},
		"its admin interface has no word": {func(int) int { panic(http.ErrAbortHandler) }, never, 0, most / 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := &envoy{config: Config{DrainRequests: most}, admin: adminOf(t, c.inFlight), log: slog.New(slog.DiscardHandler)}
			begun := time.Now()
			e.answer(t.Context(), c.ended)
			if took := time.Since(begun); took < c.min || took > c.max {
				t.Errorf("went on for %s, want %s to %s", took, c.min, c.max)
			}
		})
	}
}

func TestADrainingProxyGoesOnUntilItsCallersHaveLearnedOfIt(t *testing.T) {
	const drain = 5 * time.Second
	for name, c := range map[string]struct {
		callers callers
		took    time.Duration // of both waits
	}{
		"they have long since":       {callers{after: time.Second}, drain},
		"they learn a little later":  {callers{told: []time.Duration{6 * time.Second, 7 * time.Second}, after: 7 * time.Second}, 7 * time.Second},
		"one never does":             {callers{told: []time.Duration{6 * time.Second}}, 2 * drain},
		"the server is of yesterday": {callers{dumb: true}, drain},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.callers.begun = time.Now()
				e := &envoy{config: Config{DrainTime: drain, Callers: c.callers}, log: slog.New(slog.DiscardHandler)}
				never := make(chan struct{})
				if !e.goOn(never) {
					t.Fatal("it ended")
				}
				e.awaitCallers(t.Context(), 1, never)
				if took := time.Since(c.callers.begun); took != c.took {
					t.Errorf("went on for %s, want %s", took, c.took)
				}
			})
		})
	}
}

// Who has not moved goes where a name leads, which others keep for a while, and nobody asks it.
func TestADrainingProxyGoesOnWhileCallersOutsideOfTheMeshCome(t *testing.T) {
	t.Parallel()
	const drain = time.Second
	never := make(chan struct{})
	ended := make(chan struct{})
	close(ended)
	for name, c := range map[string]struct {
		came     func(asked int) int // requests, since it began
		ended    <-chan struct{}
		min, max time.Duration // since it was told to stop, drain before
	}{
		"nobody":                          {func(int) int { return 3 }, never, drain / silence, drain * 3 / 4},
		"until the fifth look":            {func(n int) int { return min(n, 5) }, never, drain/silence + 3*pollDraining, drain - pollDraining},
		"again and again":                 {func(n int) int { return n }, never, drain, 3 * drain},
		"now and then":                    {func(n int) int { return n / 2 }, never, drain, 3 * drain},
		"it ended by itself":              {func(n int) int { return n }, ended, 0, drain / 2},
		"its admin interface has no word": {func(int) int { panic(http.ErrAbortHandler) }, never, 0, drain / 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := &envoy{config: Config{DrainTime: drain}, admin: callsTo(t, c.came), log: slog.New(slog.DiscardHandler)}
			begun := time.Now()
			e.awaitSilence(t.Context(), begun.Add(-drain), c.ended)
			if took := time.Since(begun); took < c.min || took > c.max {
				t.Errorf("went on for %s, want %s to %s", took, c.min, c.max)
			}
		})
	}
}

// Where the mesh's callers took all of the time, nobody else may have come in it.
func TestADrainingProxyIsSaidToBeCalledWhereItWas(t *testing.T) {
	t.Parallel()
	const drain = time.Second
	for name, c := range map[string]struct {
		came func(asked int) int
		left time.Duration
		warn bool
	}{
		"long before":     {func(int) int { return 3 }, 0, false},
		"again and again": {func(n int) int { return n }, drain / 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			e := &envoy{config: Config{DrainTime: drain}, admin: callsTo(t, c.came), log: slog.New(slog.NewTextHandler(&log, nil))}
			e.awaitSilence(t.Context(), time.Now().Add(c.left-2*drain), make(chan struct{}))
			if strings.Contains(log.String(), "still called") != c.warn {
				t.Errorf("its log: %q", log.String())
			}
		})
	}
}

// What is asked for is by Envoy's own names of what others bring, requests and connections of tcp.
func TestCallsAreRequestsAndConnectionsOfOthers(t *testing.T) {
	t.Parallel()
	a := adminWith(t, func(w http.ResponseWriter, r *http.Request) {
		asked := regexp.MustCompile(r.URL.Query().Get("filter"))
		for name, n := range map[string]int{
			"http.ingress.http.8080.downstream_rq_total": 1, "http.ingress.downstream_rq_total": 2, "tcp.ingress.tcp.6379.downstream_cx_total": 4, "tcp.ingress.downstream_cx_total": 8,
			"http.egress.downstream_rq_total": 16, "tcp.egress.downstream_cx_total": 32, "http.admin.downstream_rq_total": 64, "http.ingress.http.8080.downstream_cx_total": 128, "http.ingress.http.8080.downstream_rq_active": 256,
		} {
			if asked.MatchString(name) {
				_, _ = fmt.Fprintf(w, "%s: %d\n", name, n) // the test reads it or has failed
			}
		}
	})
	if n, err := a.calls(t.Context()); err != nil || n != 1+2+4+8 {
		t.Errorf("%d, %v", n, err)
	}
}

// A request that came and was answered between two looks may be followed by another.
func TestADrainingProxyIsNotEndedRightAfterARequest(t *testing.T) {
	t.Parallel()
	e := &envoy{config: Config{DrainRequests: 10 * time.Second}, admin: callsTo(t, func(n int) int { return min(n, 5) }), log: slog.New(slog.DiscardHandler)}
	begun := time.Now()
	e.answer(t.Context(), make(chan struct{}))
	if took := time.Since(begun); took < 4*pollDraining || took > 5*time.Second {
		t.Errorf("went on for %s", took)
	}
}

// callsTo is an admin interface whose Envoy has taken so many requests, as it is asked again and again; all are answered.
func callsTo(t *testing.T, came func(asked int) int) *admin {
	t.Helper()
	var asked atomic.Int64
	return adminWith(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.RawQuery, "downstream_rq_total") {
			_, _ = fmt.Fprintf(w, "http.ingress.http.8080.downstream_rq_total: %d\n", came(int(asked.Add(1)))) // the test reads it or has failed
		}
	})
}

// callingOut is an admin interface at whose Envoy's way out there are connections, as it is asked again and again.
func callingOut(t *testing.T, open func(asked int) int) *admin {
	t.Helper()
	var asked atomic.Int64
	return adminWith(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, "http.egress.downstream_cx_active: %d\n", open(int(asked.Add(1)))) // the test reads it or has failed
	})
}

func TestAProxyOfATaskOutlivesItsApplication(t *testing.T) {
	t.Parallel()
	const most = time.Second
	never := make(chan struct{})
	ended := make(chan struct{})
	close(ended)
	for name, c := range map[string]struct {
		outlive  time.Duration
		early    int // looks at which the proxy's container is not told yet
		listens  func(asked int) bool
		calling  func(asked int) int
		ended    <-chan struct{}
		min, max time.Duration
	}{
		"it is gone":                        {most, 0, func(int) bool { return false }, func(int) int { return 0 }, never, 0, most / 2},
		"it is told first, and stays":       {most, int(2 * most / pollDraining), func(int) bool { return true }, func(int) int { return 0 }, never, 3*most - 2*pollDraining, 9 * most},
		"it is told first, and is gone":     {most, 1000, func(n int) bool { return n < 5 }, func(int) int { return 0 }, never, 3 * pollDraining, 3 * most},
		"it listens until the fifth look":   {most, 0, func(n int) bool { return n < 5 }, func(int) int { return 0 }, never, 3 * pollDraining, most - pollDraining},
		"it calls until the fifth look":     {most, 0, func(int) bool { return false }, func(n int) int { return max(0, 5-n) }, never, 3 * pollDraining, most - pollDraining},
		"it stays":                          {most, 0, func(int) bool { return true }, func(int) int { return 0 }, never, most, 3 * most},
		"the proxy ended":                   {most, 0, func(int) bool { return true }, func(int) int { return 0 }, ended, 0, most / 2},
		"its admin interface has no word":   {most, 0, func(int) bool { return true }, func(int) int { panic(http.ErrAbortHandler) }, never, 0, most / 2},
		"on a host, where nobody asks that": {0, 0, nil, func(int) int { return 1 }, never, 0, most / 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			looks := 0
			e := &envoy{
				config: Config{Outlive: c.outlive, Early: func() bool { return looks < c.early }, Applications: func(Proxy) bool { looks++; return c.listens(looks) }},
				admin:  callingOut(t, c.calling), log: slog.New(slog.DiscardHandler),
			}
			begun := time.Now()
			e.outlive(t.Context(), begun, c.ended)
			if took := time.Since(begun); took < c.min || took > c.max {
				t.Errorf("went on for %s, want %s to %s", took, c.min, c.max)
			}
		})
	}
}
