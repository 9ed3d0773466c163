package dev

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"signet.example/api"
)

// What the demo does to its own mesh: somebody who is not the application, somebody
// who is not the server, and processes that are killed.

// strangerUID is a user that nothing of the demo runs as.
const strangerUID = 60899

// callStranger calls through web's proxy as another user of this host.
func (d *demo) callStranger(ctx context.Context) row {
	r := row{what: "another user at web's way out", expected: "refused"}
	way := fmt.Sprintf("%s:%d", d.world.node("web").Bind, egressPort)
	cmd := exec.CommandContext(ctx, d.world.Exe, "demo-get", way, service+"/orders") //nolint:gosec // our own binary
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: strangerUID, Gid: strangerUID}}
	out, err := cmd.CombinedOutput()
	r.seen = strings.TrimSpace(string(out))
	r.ok = err == nil && !strings.HasPrefix(r.seen, "200")
	return r
}

// Get prints the status of one call, or why there is none; it is what the demo runs
// as another user.
func Get(ctx context.Context, way, to string, out io.Writer) error {
	resp, err := get(ctx, way, to, "")
	if err != nil {
		_, err = fmt.Fprintln(out, "closed without an answer")
		return err
	}
	_ = resp.Body.Close() // only the status counts
	_, err = fmt.Fprintln(out, resp.Status)
	return err
}

// callImpostor has a second agent join by way of somebody who shows the server's own
// public chain behind a certificate of its own.
func (d *demo) callImpostor(ctx context.Context) row {
	r := row{what: "an impostor at a join", expected: "no token, no identity"}
	token, err := d.admin.CreateToken(ctx, &api.CreateTokenRequest{Group: group})
	if err != nil {
		r.seen = err.Error()
		return r
	}
	addresses, err := d.addresses(d.serverDir())
	if err != nil {
		r.seen = err.Error()
		return r
	}
	im, err := startImpostor(ctx, fmt.Sprint(addresses["agents"]))
	if err != nil {
		r.seen = err.Error()
		return r
	}
	defer im.close()
	file, dir := filepath.Join(d.world.Dir, "token-2"), filepath.Join(d.world.Dir, "agent-2")
	if err := os.WriteFile(file, []byte(token.GetToken()), 0o600); err != nil {
		r.seen = err.Error()
		return r
	}
	config, err := writeYAML(filepath.Join(d.world.Dir, "agent-2.yaml"), map[string]any{
		"server": im.listener.Addr().String(), "token_file": file, "socket_dir": dir, "data_dir": dir + "-data", "metrics": "127.0.0.1:0",
	})
	if err != nil {
		r.seen = err.Error()
		return r
	}
	bounded, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(bounded, d.world.Exe, "agent", "--config", config) //nolint:gosec // our own binary
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	var exit *exec.ExitError
	r.seen = fmt.Sprintf("refused, %d of %d handshakes ended well", im.taken.Load(), im.tried.Load())
	r.ok = errors.As(err, &exit) && bounded.Err() == nil && im.tried.Load() > 0 && im.taken.Load() == 0
	if !r.ok {
		r.more = []string{out.String()}
	}
	return r
}

// impostor listens in the server's place.
type impostor struct {
	listener     net.Listener
	tried, taken atomic.Int64
	done         chan struct{}
}

func startImpostor(ctx context.Context, server string) (*impostor, error) {
	key, own, err := selfSigned()
	if err != nil {
		return nil, err
	}
	// Anybody who connects is shown the server's chain.
	dialer := &tls.Dialer{Config: &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // it only looks
		MinVersion:         tls.VersionTLS13, NextProtos: []string{"h2"},
		Certificates: []tls.Certificate{{Certificate: [][]byte{own}, PrivateKey: key}},
	}}
	conn, err := dialer.DialContext(ctx, "tcp", server)
	if err != nil {
		return nil, fmt.Errorf("look at the server: %w", err)
	}
	chain := [][]byte{own}
	for _, c := range conn.(*tls.Conn).ConnectionState().PeerCertificates { //nolint:forcetypeassert // what tls.Dialer gives
		chain = append(chain, c.Raw)
	}
	_ = conn.Close() // nothing was said
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	im := &impostor{listener: l, done: make(chan struct{})}
	go im.serve(&tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, ClientAuth: tls.RequireAnyClientCert,
		Certificates: []tls.Certificate{{Certificate: chain, PrivateKey: key}},
	})
	return im, nil
}

func (im *impostor) serve(config *tls.Config) {
	defer close(im.done)
	for {
		c, err := im.listener.Accept()
		if err != nil {
			return
		}
		im.tried.Add(1)
		s := tls.Server(c, config)
		_ = s.SetDeadline(time.Now().Add(5 * time.Second)) // a TCP connection takes deadlines
		if s.Handshake() == nil {                          //nolint:noctx // bounded
			im.taken.Add(1)
		}
		_ = s.Close() // it got what it gets
	}
}

func (im *impostor) close() {
	_ = im.listener.Close() // ends serve
	<-im.done
}

func selfSigned() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "impostor"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return key, der, err
}

// callServerKilled kills server and signer while web calls, and starts the server
// again: what is there goes on without them.
func (d *demo) callServerKilled(ctx context.Context) row {
	r := row{what: "server and signer killed under load", expected: "0 failed"}
	load := d.startLoad(ctx)
	server := d.children.named("server")
	server.meant.Store(true)
	_ = server.cmd.Process.Kill() // its signer ends with it
	<-server.done
	err := sleepFor(ctx, 2*time.Second)
	if err == nil {
		err = d.restartServer(ctx)
	}
	answered, failed := load()
	r.seen = fmt.Sprintf("%d answered, %d failed", answered, failed)
	if err != nil {
		r.more = []string{err.Error()}
	}
	r.ok = err == nil && failed == 0 && answered > 0
	return r
}

// restartServer starts a server in the place of one that was killed.
func (d *demo) restartServer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	before, err := d.addresses(d.serverDir())
	if err != nil {
		return err
	}
	_ = os.Remove(filepath.Join(d.serverDir(), "addresses.json")) // of the one that was killed
	if _, err := d.children.start("server", d.world.Exe, "server", "--config", filepath.Join(d.world.Dir, "server.yaml"), "--listen", fmt.Sprint(before["agents"])); err != nil {
		return err
	}
	return d.children.await(ctx, "server", func() error {
		if _, err := d.addresses(d.serverDir()); err != nil {
			return err
		}
		answer, err := d.admin.Agents(ctx, &api.AgentsRequest{})
		if err != nil {
			return err
		}
		return proxiesReady(answer, len(d.world.Nodes))
	})
}

// callAuthzKilled kills the process that decides: nothing is allowed without it, and
// it is back at once.
func (d *demo) callAuthzKilled(ctx context.Context) row {
	return d.killedBelow(ctx, killing{what: "authz", argument: "authz", within: 2 * time.Second})
}

// callEnvoyKilled kills the proxy in front of one of two targets.
func (d *demo) callEnvoyKilled(ctx context.Context) row {
	return d.killedBelow(ctx, killing{what: "Envoy of orders-v2", argument: "demo/virtualNode/orders-v2", serves: "orders-v2", within: 10 * time.Second})
}

// killing is of one of the agent's children.
type killing struct {
	what     string
	argument string // by which it is found
	serves   string // who must have answered before it is back; empty: anybody
	within   time.Duration
}

// callsTake is what the 20 calls after which a child is back may take on a loaded machine.
const callsTake = 3 * time.Second

func (d *demo) killedBelow(ctx context.Context, k killing) row {
	r := row{what: k.what + " killed under load", expected: fmt.Sprintf("served again within %s, and %s for calls", k.within, callsTake)}
	pid, err := childWith(d.children.named("agent").cmd.Process.Pid, k.argument)
	if err != nil {
		r.seen = err.Error()
		return r
	}
	load := d.startLoad(ctx)
	_ = sleepFor(ctx, 200*time.Millisecond) // a stop is seen below
	begun := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		r.seen = err.Error()
	}
	good, served := 0, k.serves == ""
	for (good < 20 || !served) && time.Since(begun) < 2*k.within && ctx.Err() == nil {
		a := d.call(ctx, "web", "/orders", "")
		served = served || a.Greeting.Service == k.serves
		if good++; a.Status != http.StatusOK {
			good = 0
		}
	}
	back := time.Since(begun)
	answered, failed := load()
	r.seen = fmt.Sprintf("after %d ms; %d answered, %d refused meanwhile", back.Milliseconds(), answered, failed)
	r.ok = good >= 20 && served && back < k.within+callsTake
	return r
}

// startLoad has web call until what it returns is called, which gives the counts.
func (d *demo) startLoad(ctx context.Context) (stop func() (answered, failed int)) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	var answered, failed int
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			switch a := d.call(ctx, "web", "/orders", ""); {
			case ctx.Err() != nil: // the call that was under way at the end
			case a.Status == http.StatusOK:
				answered++
			default:
				failed++
			}
		}
	}()
	return func() (int, int) {
		cancel()
		<-done
		return answered, failed
	}
}

// childWith is the process below parent that has an argument.
func childWith(parent int, argument string) (int, error) {
	list, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", parent))
	if err != nil || len(list) == 0 {
		return 0, fmt.Errorf("the agent is gone: %w", err)
	}
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, path := range all {
		line, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(line, []byte(argument)) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && parentOf(pid) == parent {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("the agent has no child with the argument %s", argument)
}

func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// proc(5): the name, in parentheses, may hold anything; state and parent follow.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1]) // 0 is nobody's
	return parent
}

// callKeyExchange reads what the handshakes of every hop were.
func (d *demo) callKeyExchange(ctx context.Context) row {
	r := row{what: "key exchange on every hop", expected: "X25519MLKEM768, nothing else"}
	counts := map[string]float64{}
	for _, dir := range []string{d.serverDir(), d.agentDir()} {
		addresses, err := d.addresses(dir)
		if err == nil {
			err = countHandshakes(ctx, fmt.Sprint(addresses["metrics"]), counts)
		}
		if err != nil {
			r.seen = err.Error()
			return r
		}
	}
	r.seen = fmt.Sprintf("%.0f post-quantum, %.0f classical", counts["post_quantum"], counts["classical"])
	r.ok = counts["post_quantum"] > 0 && counts["classical"] == 0
	return r
}

// countHandshakes adds up the handshakes that a process counts, by key exchange.
func countHandshakes(ctx context.Context, metrics string, into map[string]float64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+metrics+"/metrics", nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Timeout: 5 * time.Second}).Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read only
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(body)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if !strings.HasPrefix(name, "signet_") || !strings.Contains(name, "_handshakes_total{") {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return err
		}
		for _, kind := range []string{"post_quantum", "classical"} {
			if strings.Contains(name, `key_exchange="`+kind+`"`) {
				into[kind] += n
			}
		}
	}
	return nil
}

func sleepFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
