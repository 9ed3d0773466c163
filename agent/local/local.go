// Package local is what other commands of the host, or containers of the task, ask a running
// agent: whether it is ready, to stop, and what it sees of a process. It owns where that is asked,
// what is answered, and the client; agent/operator is the other end.
//
// It must not know what the agent consists of.
//
// # Concurrency
//
// Its functions can be called from any goroutine, and return when ctx ends.
package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"signet.example/internal/durable"
	"signet.example/internal/unixsock"
	"signet.example/internal/watched"
)

// What an agent has unless its file says otherwise: SocketDir is the folder of its sockets,
// DataDir that of its host key where it is root or in a task, StopTimeout what it has to end in a
// task, as ECS has it.
const (
	SocketDir   = "/run/signet"
	DataDir     = "/var/lib/signet-agent"
	StopTimeout = 30 * time.Second
)

// DefaultDataDir is that of an agent of this user; it is empty where the environment has no place for it.
func DefaultDataDir() string {
	if os.Geteuid() == 0 {
		return DataDir
	}
	state := os.Getenv("XDG_STATE_HOME")
	if home, err := os.UserHomeDir(); state == "" && err == nil {
		state = filepath.Join(home, ".local", "state")
	}
	if !filepath.IsAbs(state) {
		return ""
	}
	return filepath.Join(state, "signet-agent")
}

// ReadyPath is where the agent reports whether its proxies serve, at the address of its metrics.
const ReadyPath = "/readyz"

// StopSocket is the file of a Unix socket in socket_dir, which in a task nobody else enters:
// POST has the agent stop, and answers for how long its proxies go on at most, GET reports
// whether callers have gone elsewhere.
const StopSocket = "stop.sock"

// Application is the query by which a POST says how long the application may go on from then on.
const Application = "application"

// AddressesFile is where the agent writes its Addresses, in socket_dir.
const AddressesFile = "addresses.json"

// Addresses of a running agent.
type Addresses struct {
	// Mode is what it is the agent of: host or task.
	Mode    string `json:"mode"`
	Metrics string `json:"metrics,omitempty"` // none where they are off
	// The sockets, by what they serve.
	XDS      string `json:"xds"`
	Workload string `json:"workload"`
	Authz    string `json:"authz"`
}

// Write puts the file into socket_dir, whole or not at all.
func (a Addresses) Write(socketDir string) error {
	b, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	return durable.WriteFile(filepath.Join(socketDir, AddressesFile), append(b, '\n'), 0o644)
}

// ErrNotRunning is returned where no agent answers.
var ErrNotRunning = errors.New("no agent answers")

// ErrHosts is returned where an agent of a host was to be told to stop.
var ErrHosts = errors.New("it is the agent of a host, which is not stopped by this: only that of a task is (mode: task)")

// readyPause is how often it is asked again.
const readyPause = 100 * time.Millisecond

// AwaitReady returns nil once each proxy of the agent whose sockets are in a folder serves with
// its identity, and when ctx ends, why that is not so.
func AwaitReady(ctx context.Context, socketDir string) error {
	var last error // of a try that was not cut off by the end of ctx
	for {
		err := askReady(ctx, socketDir)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		if !watched.Sleep(ctx, readyPause) {
			return last
		}
	}
}

func askReady(ctx context.Context, socketDir string) error {
	at, err := readAddresses(socketDir)
	if err != nil {
		return err
	}
	if at.Metrics == "" {
		return errors.New("the agent's key metrics is empty, and health is asked there: 127.0.0.1:9465 is for this host, or task, alone")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at.Metrics+ReadyPath, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	defer func() { _ = resp.Body.Close() }() // read only
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(strings.TrimSpace(string(text)))
	}
	return err
}

// readAddresses reads what the agent wrote, which may have ended since.
func readAddresses(socketDir string) (Addresses, error) {
	file := filepath.Join(socketDir, AddressesFile)
	content, err := os.ReadFile(file)
	if err != nil {
		return Addresses{}, fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	var at Addresses
	if err := json.Unmarshal(content, &at); err != nil {
		return Addresses{}, fmt.Errorf("%s: is not what an agent writes: %w", file, err)
	}
	return at, nil
}

// Stop has the agent of this task stop, and returns when its callers have gone elsewhere,
// or the agent has ended. Its proxy goes on while the application does, which may be for so
// long; atMost is how long the proxy goes on in any case, 0 of an agent of the version before.
func Stop(ctx context.Context, socketDir string, application time.Duration) (atMost time.Duration, err error) {
	client := clientOf(socketDir, StopSocket, 2*time.Second)
	status, text, err := ask(ctx, client, http.MethodPost, "?"+url.Values{Application: {application.String()}}.Encode())
	switch {
	case err != nil && ofHost(ctx, socketDir):
		return 0, ErrHosts
	case err != nil:
		return 0, fmt.Errorf("%w: %w", ErrNotRunning, err)
	case status != http.StatusAccepted:
		return 0, fmt.Errorf("the agent does not stop: %s", text)
	}
	if atMost, err = time.ParseDuration(text); err != nil {
		atMost = 0
	}
	for {
		status, _, err := ask(ctx, client, http.MethodGet, "")
		switch {
		case status == http.StatusOK, errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED): // it has ended
			return atMost, nil
		case !watched.Sleep(ctx, readyPause):
			return atMost, errors.New("callers have not gone elsewhere in time; the agent goes on to stop")
		}
	}
}

// ofHost reports whether the agent of a host runs whose sockets are in a folder.
func ofHost(ctx context.Context, socketDir string) bool {
	at, err := readAddresses(socketDir)
	if err != nil || at.Mode != "host" {
		return false
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", at.Workload)
	if err != nil {
		return errors.Is(err, fs.ErrPermission) // it is there, and lets others in
	}
	_ = conn.Close() // nothing was asked
	return true
}

// clientOf asks at a socket of the agent's.
func clientOf(socketDir, socket string, timeout time.Duration) *http.Client {
	return &http.Client{Timeout: timeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dial(ctx, filepath.Join(socketDir, socket))
		},
	}}
}

// impostorError is of a socket that somebody else than the agent answers.
type impostorError struct{ error }

// dial connects with a socket of an agent. What is said of who may hold what is believed of root,
// this user, or whose the folder is; a task's folder is the task's.
func dial(ctx context.Context, path string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil || filepath.Base(path) == StopSocket {
		return conn, err
	}
	peer, err := unixsock.PeerOf(conn)
	if err == nil {
		err = unixsock.TrustedListener(path)(peer)
	}
	if err != nil {
		_ = conn.Close() // nothing was said
		return nil, &impostorError{err}
	}
	return conn, nil
}

func ask(ctx context.Context, client *http.Client, method, query string) (status int, text string, err error) {
	status, body, err := askFor(ctx, client, method, query, 4<<10)
	return status, strings.TrimSpace(string(body)), err
}
