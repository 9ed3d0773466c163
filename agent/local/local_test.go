package local_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"signet.example/agent/local"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// agentAt is an agent with a handler at its address or, where that is a file, its socket. It
// returns what ends it, which a test's end does, too.
func agentAt(t *testing.T, network, address string, h http.HandlerFunc) (at string, end func()) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h, ReadHeaderTimeout: time.Second}}
	s.Start()
	t.Cleanup(s.Close)
	return l.Addr().String(), s.Close
}

// folder of sockets, whose names have 107 bytes at most.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // in /tmp
	return dir
}

func TestReadyIsWhatTheAgentSaysAtTheAddressThatItWrote(t *testing.T) {
	var asked atomic.Int32
	at, _ := agentAt(t, "tcp", "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) {
		if n := asked.Add(1); r.URL.Path != local.ReadyPath || n < 3 {
			http.Error(w, "1 of 1 proxies are not ready", http.StatusServiceUnavailable)
		}
	})
	dir := folder(t)
	if err := (local.Addresses{Metrics: at, XDS: "/run/signet/xds.sock"}).Write(dir); err != nil {
		t.Fatal(err)
	}
	if err := local.AwaitReady(t.Context(), dir); err != nil || asked.Load() != 3 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
}

func TestWhyAnAgentIsNotReadyIsTheReasonOfTheLastTry(t *testing.T) {
	at, end := agentAt(t, "tcp", "127.0.0.1:0", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, strings.Repeat("x", 1<<20), http.StatusServiceUnavailable)
	})
	ready := func(content string) error { // a second is for one try on a loaded host
		t.Helper()
		dir := folder(t)
		if content != "" {
			if err := os.WriteFile(filepath.Join(dir, local.AddressesFile), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return local.AwaitReady(ctx, dir)
	}
	here := `{"metrics": "` + at + `"}`
	if err := ready(here); err == nil || errors.Is(err, local.ErrNotRunning) || len(err.Error()) > 8<<10 {
		t.Errorf("an agent that says too much: %d bytes, %v", len(err.Error()), errors.Is(err, local.ErrNotRunning))
	}
	if err := ready("no JSON"); err == nil || errors.Is(err, local.ErrNotRunning) || !strings.Contains(err.Error(), local.AddressesFile) {
		t.Errorf("a file that is none of the agent's: %v", err)
	}
	if err := ready(`{}`); err == nil || !strings.Contains(err.Error(), "the agent's key metrics is empty") {
		t.Errorf("without an address: %v", err)
	}
	end()
	for what, content := range map[string]string{"it has ended": here, "it never was": ""} {
		if err := ready(content); !errors.Is(err, local.ErrNotRunning) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestStopEndsWhenCallersHaveGoneOrTheAgentHas(t *testing.T) {
	const stays, goes, ends = "callers stay", "callers go", "the agent ends"
	for _, how := range []string{stays, goes, ends} {
		t.Run(how, func(t *testing.T) {
			dir := folder(t)
			var asked atomic.Int32
			said := ""
			ended := make(chan struct{})
			_, end := agentAt(t, "unix", filepath.Join(dir, local.StopSocket), func(w http.ResponseWriter, r *http.Request) {
				switch n := asked.Add(1); {
				case r.Method == http.MethodPost:
					said = r.URL.Query().Get(local.Application)
					w.WriteHeader(http.StatusAccepted)
					_, _ = io.WriteString(w, "25s\n") // whoever has left does not wait for it
				case how != goes || n < 4:
					if n == 3 {
						close(ended)
					}
					w.WriteHeader(http.StatusServiceUnavailable)
				}
			})
			if how == ends {
				go func() { <-ended; end() }()
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if how == stays {
				cancel()
				ctx, cancel = context.WithTimeout(t.Context(), 500*time.Millisecond)
			}
			defer cancel()
			atMost, err := local.Stop(ctx, dir, 10*time.Second)
			if (err == nil) != (how != stays) || errors.Is(err, local.ErrNotRunning) || atMost != 25*time.Second || said != "10s" {
				t.Errorf("at most %s, the application %q: %v", atMost, said, err)
			}
		})
	}
}

func TestAnAgentThatRefusesToStopIsNotTakenForOneThatStops(t *testing.T) {
	dir := folder(t)
	agentAt(t, "unix", filepath.Join(dir, local.StopSocket), func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `application="1h": want a duration`, http.StatusBadRequest)
	})
	if _, err := local.Stop(t.Context(), dir, time.Hour); err == nil || errors.Is(err, local.ErrNotRunning) || !strings.Contains(err.Error(), `does not stop: application="1h"`) {
		t.Errorf("%v", err)
	}
	if _, err := local.Stop(t.Context(), folder(t), 0); !errors.Is(err, local.ErrNotRunning) {
		t.Errorf("no agent: %v", err)
	}
}
