package agent_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"signet.example/agent"
)

// rig is an agent under test with its server.
type rig struct {
	*fakeServer
	t       testing.TB
	dir     string
	cfg     agent.Config
	metrics string
	log     *logBuffer
	cancel  context.CancelFunc
	done    chan error
}

// logBuffer keeps the log for a failed test.
type logBuffer struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// self is a selector that fits this test's own process.
func self(t testing.TB) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		t.Fatal(err)
	}
	return "unix:path:" + exe
}

// newRig starts an agent whose server knows these things.
func newRig(t testing.TB, server func(*fakeServer), change ...func(*agent.Config)) *rig {
	t.Helper()
	f := newFakeServer(t)
	if server != nil {
		f.change(server)
	}
	dir, err := os.MkdirTemp("", "sa") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{fakeServer: f, t: t, dir: dir, log: &logBuffer{}, done: make(chan error, 1)}
	cfg := agent.Config{Server: f.addr, SocketDir: dir, DataDir: filepath.Join(dir, "data"), Metrics: "127.0.0.1:0", TokenFile: filepath.Join(dir, "token"), DrainTime: time.Second}
	for _, c := range change {
		c(&cfg)
	}
	if cfg.TokenFile != "" {
		if err := os.WriteFile(cfg.TokenFile, []byte(f.token()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.cfg = cfg
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() {
		r.done <- agent.Run(ctx, cfg, slog.New(slog.NewTextHandler(r.log, nil)))
	}()
	t.Cleanup(r.close)
	r.await("addresses.json", func() bool {
		var a struct{ Metrics string }
		b, err := os.ReadFile(filepath.Join(dir, "addresses.json"))
		if err != nil || json.Unmarshal(b, &a) != nil {
			return false
		}
		r.metrics = a.Metrics
		return true
	})
	return r
}

func (r *rig) close() {
	r.cancel()
	select {
	case err := <-r.done:
		if err != nil {
			r.t.Errorf("agent: %v", err)
		}
	case <-time.After(30 * time.Second):
		r.t.Error("the agent does not end")
	}
	if r.t.Failed() {
		all := r.log.String()
		r.t.Logf("end of the agent's log:\n%s", all[max(0, len(all)-6000):])
	}
	if err := os.RemoveAll(r.dir); err != nil {
		r.t.Error(err)
	}
}

// await waits until what is true.
func (r *rig) await(what string, ok func() bool) {
	r.t.Helper()
	// No more often than a process of which nothing is known may come (package limits).
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ok() {
			return
		}
	}
	r.t.Fatalf("waited in vain for %s", what)
}

// metric scrapes one line's value, "" where it is not there.
func (r *rig) metric(series string) string {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, "http://"+r.metrics+"/metrics", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return ""
	}
	body, err := io.ReadAll(resp.Body)
	if err := resp.Body.Close(); err != nil {
		r.t.Error(err)
	}
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(body)) {
		if v, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// dial connects to one of the agent's sockets as this process.
func (r *rig) dial(socket string) *grpc.ClientConn {
	r.t.Helper()
	conn, err := grpc.NewClient("unix://"+filepath.Join(r.dir, socket), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() }) // its server may be gone
	return conn
}
