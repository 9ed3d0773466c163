package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// runningFile is where a demo tells `signet dev call` how it is called; 0600, since
// an end user's token is in it.
const runningFile = "running.json"

// running is a demo that runs.
type running struct {
	Service string            `json:"service"`
	Ways    map[string]string `json:"ways"`   // a node's way out, host:port, by its name
	Tokens  map[string]string `json:"tokens"` // "valid" and "expired"
	Socket  string            `json:"socket"`
}

// publish writes the file.
func (d *demo) publish() error {
	r := running{Service: service, Ways: map[string]string{}, Tokens: map[string]string{}, Socket: d.socket()}
	for _, n := range d.world.Nodes {
		r.Ways[n.Name] = fmt.Sprintf("%s:%d", n.Bind, egressPort)
	}
	for name, lifetime := range map[string]time.Duration{"valid": 24 * time.Hour, "expired": -5 * time.Minute} {
		var err error
		if r.Tokens[name], err = d.world.tokens.token(lifetime); err != nil {
			return err
		}
	}
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("internal error: %w", err)
	}
	return os.WriteFile(filepath.Join(d.world.Dir, runningFile), content, 0o600)
}

// CallConfig is one call through a proxy of a running demo.
type CallConfig struct {
	// Dir is the demo's folder; the only one that runs where it is empty.
	Dir string
	// From is the node that calls, Path what it asks of the orders service.
	From, Path string
	// Token is "valid", "expired" or empty.
	Token string
	Out   io.Writer
}

// Call makes one call, as the application of a node makes it, and prints the
// answer: the status, what the proxy says about a denial, the body.
func Call(ctx context.Context, cfg CallConfig) error {
	r, err := findRunning(cfg.Dir)
	if err != nil {
		return err
	}
	way, ok := r.Ways[cfg.From]
	if !ok {
		return fmt.Errorf("the demo has no node %q; it has %s", cfg.From, strings.Join(slices.Sorted(maps.Keys(r.Ways)), ", "))
	}
	token, ok := r.Tokens[cfg.Token]
	if cfg.Token != "" && !ok {
		return fmt.Errorf("no token %q; there are: expired, valid", cfg.Token)
	}
	if !strings.HasPrefix(cfg.Path, "/") {
		return fmt.Errorf("the path %q does not begin with /", cfg.Path)
	}
	resp, err := get(ctx, way, r.Service+cfg.Path, token)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()  // read below as far as needed
	_, _ = fmt.Fprintln(cfg.Out, resp.Status) // the last write tells
	for _, h := range []string{"X-Signet-Denied", "X-Signet-Decision-Id"} {
		if v := resp.Header.Get(h); v != "" {
			_, _ = fmt.Fprintf(cfg.Out, "%s: %s\n", strings.ToLower(h), v)
		}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if text := strings.TrimSpace(string(body)); text != "" {
		_, err = fmt.Fprintln(cfg.Out, text)
	}
	if id := resp.Header.Get("X-Signet-Decision-Id"); id != "" {
		_, err = fmt.Fprintf(cfg.Out, "hint: signet explain --socket %s %s\n", r.Socket, id)
	}
	if err == nil && resp.Header.Get("X-Signet-Denied") != "" {
		return ErrDenied
	}
	return err
}

// ErrDenied is returned by Call when it has printed that the call was denied.
var ErrDenied = errors.New("the call was denied")

// maxAnswer is more than any application of the demo answers.
const maxAnswer = 1 << 20

// get asks for a URL of the mesh by way of a proxy, in the absolute form that
// http_proxy= gives.
func get(ctx context.Context, way, to, token string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to, nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: way}), DisableKeepAlives: true}
	return (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Do(req)
}

// findRunning reads what a demo of this user tells.
func findRunning(dir string) (*running, error) {
	dirs := []string{dir}
	if dir == "" {
		var err error
		if dirs, err = filepath.Glob(filepath.Join(os.TempDir(), folderPrefix+"*")); err != nil {
			return nil, err
		}
	}
	var found []string
	var r *running
	for _, d := range dirs {
		one, err := readRunning(d)
		if err != nil && dir != "" {
			return nil, fmt.Errorf("no demo runs in %s: %w", dir, err)
		}
		if err == nil {
			r, found = one, append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return nil, errors.New("no demo of yours runs here: start one with `signet dev`, or `make demo`")
	case 1:
		return r, nil
	}
	return nil, fmt.Errorf("%d demos of yours run here: choose with --demo %s", len(found), strings.Join(found, " or --demo "))
}

// readRunning refuses the file of another user, who could send our calls anywhere,
// and that of a demo that has ended.
func readRunning(dir string) (*running, error) {
	path := filepath.Join(dir, runningFile)
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is another user's", path)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &running{}
	if err := json.Unmarshal(content, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	conn, err := net.DialTimeout("unix", r.Socket, time.Second) //nolint:noctx // bounded
	if err != nil {
		return nil, err
	}
	return r, conn.Close()
}
