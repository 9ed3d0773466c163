package envoytest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/test/parts"
)

// Config reports which Envoy to start. NodeID and ADS are needed.
type Config struct {
	// NodeID, Cluster (empty: the same) and Metadata are the node that Envoy
	// names to the ADS server.
	NodeID, Cluster string
	Metadata        *structpb.Struct
	// ADS is the path of the ADS server's Unix socket. It need not listen yet.
	ADS string
	// SotW speaks the state-of-the-world variant instead of delta.
	SotW bool
	// DrainTime is Envoy's --drain-time-s; 0 means 3 s.
	DrainTime time.Duration
	// Level is Envoy's log level; empty means warning.
	Level string
	// Args are added to the command line.
	Args []string
	// Bootstrap, if set, changes the bootstrap before it is written.
	Bootstrap func(*bootstrapv3.Bootstrap)
}

// Envoy is one running Envoy.
type Envoy struct {
	dir   string
	cmd   *exec.Cmd
	admin *http.Client
	done  chan struct{}
	once  sync.Once
	log   syncBuffer
}

// Start starts Envoy with --concurrency 1 and without hot restart, and ends it
// with the test. It does not wait until it is ready.
func Start(t testing.TB, c Config) *Envoy {
	t.Helper()
	bin := parts.Envoy(t)
	dir, err := os.MkdirTemp("", "envoy") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	e := &Envoy{dir: dir, done: make(chan struct{})}
	sock := filepath.Join(dir, "admin.sock")
	e.admin = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", sock)
	}}}
	e.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), bin, args(t, c, dir, sock)...)
	e.cmd.Stdout, e.cmd.Stderr = &e.log, &e.log
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing outlives a killed test
	if err := e.cmd.Start(); err != nil {
		t.Fatalf("start envoy: %v", err)
	}
	go func() {
		_ = e.cmd.Wait() // ended by Stop, or the log says why
		close(e.done)
	}()
	t.Cleanup(func() {
		e.Stop()
		if t.Failed() {
			t.Logf("envoy's log:\n%s", e.Log())
		}
		_ = os.RemoveAll(dir)
	})
	return e
}

// args writes the bootstrap and returns the command line.
func args(t testing.TB, c Config, dir, sock string) []string {
	t.Helper()
	b := bootstrap(c, sock)
	if c.Bootstrap != nil {
		c.Bootstrap(b)
	}
	doc, err := protojson.Marshal(b)
	if err != nil {
		t.Fatalf("bootstrap: %v", err)
	}
	file := filepath.Join(dir, "bootstrap.json")
	if err := os.WriteFile(file, doc, 0o600); err != nil {
		t.Fatal(err)
	}
	drain, level := c.DrainTime, c.Level
	if drain == 0 {
		drain = 3 * time.Second
	}
	if level == "" {
		level = "warning"
	}
	return append([]string{
		"-c", file, "--disable-hot-restart", "--concurrency", "1", "-l", level,
		"--drain-time-s", strconv.Itoa(int(drain.Seconds())),
	}, c.Args...)
}

// PID is Envoy's process id.
func (e *Envoy) PID() int { return e.cmd.Process.Pid }

// Log is what Envoy wrote.
func (e *Envoy) Log() string { return e.log.String() }

// Stop ends Envoy and waits for its end.
func (e *Envoy) Stop() {
	e.once.Do(func() {
		_ = e.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		select {
		case <-e.done:
		case <-time.After(5 * time.Second):
			_ = e.cmd.Process.Kill()
			<-e.done
		}
		e.admin.CloseIdleConnections()
	})
}

// Admin asks the admin interface; a path like "/config_dump".
func (e *Envoy) Admin(path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://admin"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := e.admin.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("envoy admin %s: %s: %s", path, resp.Status, bytes.TrimSpace(body))
	}
	return body, err
}

// WaitReady waits until Envoy is LIVE: it has clusters and listeners.
func (e *Envoy) WaitReady(t testing.TB) {
	t.Helper()
	e.Wait(t, "envoy is ready", func() bool {
		_, err := e.Admin("/ready")
		return err == nil
	})
}

// Wait waits up to 30 s until ok holds, and no longer than Envoy lives.
func (e *Envoy) Wait(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		select {
		case <-e.done:
			t.Fatalf("not in time: %s: envoy ended\n%s", what, e.Log())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// ConfigDump is the admin's /config_dump with endpoints, as JSON.
func (e *Envoy) ConfigDump(t testing.TB) []byte {
	t.Helper()
	b, err := e.Admin("/config_dump?include_eds")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Stats returns the counters and gauges whose names match filter, a regular
// expression; histograms are left out.
func (e *Envoy) Stats(t testing.TB, filter string) map[string]int64 {
	t.Helper()
	b, err := e.Admin("/stats?filter=" + filter)
	if err != nil {
		t.Fatal(err)
	}
	stats := make(map[string]int64)
	for line := range strings.Lines(string(b)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if n, err := strconv.ParseInt(value, 10, 64); ok && err == nil {
			stats[name] = n
		}
	}
	return stats
}

// Listeners returns the address each listener is bound to, by name: how a test
// finds a listener on port 0.
func (e *Envoy) Listeners(t testing.TB) map[string]string {
	t.Helper()
	b, err := e.Admin("/listeners?format=json")
	if err != nil {
		t.Fatal(err)
	}
	var dump struct {
		Statuses []struct {
			Name  string `json:"name"`
			Local struct {
				Socket struct {
					Address string `json:"address"`
					Port    int    `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if err := json.Unmarshal(b, &dump); err != nil {
		t.Fatalf("envoy admin /listeners: %v", err)
	}
	addrs := make(map[string]string, len(dump.Statuses))
	for _, l := range dump.Statuses {
		addrs[l.Name] = net.JoinHostPort(l.Local.Socket.Address, strconv.Itoa(l.Local.Socket.Port))
	}
	return addrs
}

// syncBuffer is a buffer that a process writes and a test reads.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write appends p.
func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String returns what was written.
func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
