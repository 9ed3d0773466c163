package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"signet.example/agent/envoy"
	"signet.example/agent/local"
	"signet.example/internal/scrape"
)

// ErrAsked ends an agent as SIGTERM does.
var ErrAsked = errors.New("asked to stop")

// Stop is how another container of a task tells the agent that the task stops: before
// the application is told, so that its callers have gone elsewhere when it is.
type Stop struct {
	Order *envoy.StopOrder
	// Outlive is how long a proxy goes on for its application after the agent was told.
	Outlive time.Duration
	// Proxies are those of the agent.
	Proxies func() []envoy.Status
	Log     *slog.Logger
}

// Serve serves it until ctx ends: POST begins the end, GET reports whether callers have gone elsewhere.
func (s Stop) Serve(ctx context.Context, l net.Listener, stop context.CancelCauseFunc) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		application, err := envoy.ParseEarly(r.URL.Query().Get(local.Application))
		if err != nil {
			http.Error(w, local.Application+"="+err.Error(), http.StatusBadRequest)
			return
		}
		s.Order.Ask(application)
		stop(ErrAsked)
		w.WriteHeader(http.StatusAccepted)
		_, _ = fmt.Fprintln(w, application+s.Outlive) //nolint:gosec // a duration; whoever has left does not wait for it
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.left(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok") // the client's loss
	})
	return scrape.Serve(ctx, l, mux, s.Log)
}

// left is nil when nobody calls the proxies any more.
func (s Stop) left() error {
	for _, p := range s.Proxies() {
		if !p.Left {
			return errors.New("callers have not gone elsewhere yet")
		}
	}
	return nil
}
