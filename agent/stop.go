package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"

	"signet.example/agent/envoy"
	"signet.example/agent/local"
	"signet.example/internal/scrape"
	"signet.example/internal/unixsock"
)

// This file is how another container of a task tells the agent that the task stops: before
// the application is told, so that its callers have gone elsewhere when it is.

// errStopAsked ends an agent as SIGTERM does.
var errStopAsked = errors.New("asked to stop")

// listenStop returns nil on a host, where the service manager tells.
func listenStop(ctx context.Context, cfg Config) (net.Listener, error) {
	if !cfg.Mode.task() {
		return nil, nil
	}
	return unixsock.Listen(ctx, filepath.Join(cfg.SocketDir, local.StopSocket), 0o600)
}

// serveStop serves it until ctx ends: POST begins the end, GET reports whether callers have gone elsewhere.
func (a *agent) serveStop(ctx context.Context, l net.Listener, stop context.CancelCauseFunc) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		application, err := envoy.ParseEarly(r.URL.Query().Get(local.Application))
		if err != nil {
			http.Error(w, local.Application+"="+err.Error(), http.StatusBadRequest)
			return
		}
		a.order.Ask(application)
		stop(errStopAsked)
		w.WriteHeader(http.StatusAccepted)
		_, _ = fmt.Fprintln(w, application+a.cfg.outlive()) //nolint:gosec // a duration; whoever has left does not wait for it
	})
	mux.HandleFunc("GET /", health(a.left).serve)
	return scrape.Serve(ctx, l, mux, a.log)
}

// left is nil when nobody calls the proxies any more.
func (a *agent) left() error {
	for _, s := range a.supervisor.Status() {
		if !s.Left {
			return errors.New("callers have not gone elsewhere yet")
		}
	}
	return nil
}
