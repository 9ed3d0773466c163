package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// ServiceConfig of one of the demo's applications.
type ServiceConfig struct {
	Name        string
	Listen      string // address and port that it serves
	WorkloadAPI string // path of the agent's Workload API socket
	Log         *slog.Logger
}

// Greeting is what the demo's applications answer: who answered, and who the
// proxy in front of them says has called.
type Greeting struct {
	Service string `json:"service"`
	// Identity is the application's own, from the SPIFFE Workload API.
	Identity string `json:"identity"`
	// Caller and CallerCertificate (SHA-256) come from the XFCC header that the
	// application's own proxy set; it removes what a client sends.
	Caller            string `json:"caller,omitempty"`
	CallerCertificate string `json:"callerCertificate,omitempty"`
	Path              string `json:"path"`
}

// RunService serves until ctx ends. It takes its identity from the Workload
// API as any SPIFFE application does, and goes on taking renewals.
func RunService(ctx context.Context, cfg ServiceConfig) error {
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr("unix://"+cfg.WorkloadAPI)))
	if err != nil {
		return fmt.Errorf("%s: identity from the Workload API: %w", cfg.Name, err)
	}
	defer func() { _ = source.Close() }() // the process ends
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("%s: %w", cfg.Name, err)
	}
	server := &http.Server{Handler: cfg.handler(source), ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // ends Serve
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("%s: %w", cfg.Name, err)
	}
	return nil
}

func (cfg ServiceConfig) handler(source *workloadapi.X509Source) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g := Greeting{Service: cfg.Name, Path: r.URL.Path}
		if svid, err := source.GetX509SVID(); err == nil {
			g.Identity = svid.ID.String()
		}
		g.Caller, g.CallerCertificate = callerOf(r.Header.Get("X-Forwarded-Client-Cert"))
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(g); err != nil {
			cfg.Log.InfoContext(r.Context(), "caller went away", slog.Any("err", err))
		}
	})
}

// callerOf reads URI and Hash of the one element that the proxy set.
func callerOf(xfcc string) (uri, hash string) {
	for pair := range strings.SplitSeq(xfcc, ";") {
		key, value, _ := strings.Cut(pair, "=")
		switch key {
		case "URI":
			uri = strings.Trim(value, `"`)
		case "Hash":
			hash = value
		}
	}
	return uri, hash
}
