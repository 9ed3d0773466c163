package envoy

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// adminOf is an admin interface whose Envoy has requests in flight: so many, as
// it is asked again and again.
func adminOf(t *testing.T, inFlight func(asked int) int) *admin {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	s := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := inFlight(int(asked.Add(1)))
		_, _ = fmt.Fprintf(w, "http.admin.downstream_rq_active: 1\nhttp.ingress.downstream_rq_active: %d\nhttp.wayout.downstream_rq_active: 0\n", n) // the test reads it or has failed
	})}
	go func() { _ = s.Serve(l) }() // ends with Close
	t.Cleanup(func() { _ = s.Close() })
	return newAdmin(socket)
}

func TestADrainingProxyIsEndedWhenWhatIsInFlightIsAnswered(t *testing.T) {
	t.Parallel()
	const drain = time.Second
	never := make(chan struct{})
	ended := make(chan struct{})
	close(ended)
	for name, c := range map[string]struct {
		inFlight func(asked int) int
		finish   bool
		ended    <-chan struct{}
		min, max time.Duration // of its going on
	}{
		"nothing in flight":               {func(int) int { return 0 }, true, never, drain, 2*drain - pollDraining},
		"answered at the fifth look":      {func(n int) int { return max(0, 5-n) }, true, never, drain + 4*pollDraining, 2*drain - pollDraining},
		"never answered":                  {func(int) int { return 3 }, true, never, 2 * drain, 4 * drain},
		"its binding is gone":             {func(int) int { return 3 }, false, never, drain, 2*drain - pollDraining},
		"it ended by itself":              {func(int) int { return 3 }, true, ended, 0, drain - pollDraining},
		"its admin interface has no word": {func(int) int { panic(http.ErrAbortHandler) }, true, never, drain, 2*drain - pollDraining},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := &envoy{config: Config{DrainTime: drain}, admin: adminOf(t, c.inFlight), log: slog.New(slog.DiscardHandler)}
			begun := time.Now()
			e.goOn(t.Context(), c.ended, c.finish)
			if took := time.Since(begun); took < c.min || took > c.max {
				t.Errorf("went on for %s, want %s to %s", took, c.min, c.max)
			}
		})
	}
}
