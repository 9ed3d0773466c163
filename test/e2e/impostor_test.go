package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/api"
	dial "signet.example/api/admin"
	"signet.example/test/impostor"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// onPath is somebody between an agent and the server, without privileges and
// without a key of either. It passes connections on, or plays the server.
type onPath struct {
	address string
	server  atomic.Pointer[string] // where the server listens
	playing atomic.Bool
	taken   atomic.Int64 // handshakes that an agent went through with

	im     *impostor.Impostor
	honest []*x509.Certificate
	listen net.Listener
	mu     sync.Mutex
	open   map[net.Conn]struct{} // guarded by mu
	wg     sync.WaitGroup
}

func startOnPath(t *testing.T) *onPath {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &onPath{address: l.Addr().String(), listen: l, open: map[net.Conn]struct{}{}}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.cut()
		p.wg.Wait()
	})
	return p
}

// look reads the chain that the server shows to everybody.
func (p *onPath) look(t *testing.T, server string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tls.Dial("tcp", server, &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // it only looks
		NextProtos:         []string{"h2"}, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.honest = c.ConnectionState().PeerCertificates
	_ = c.Close()
	p.im = impostor.New(t, p.honest...)
	p.server.Store(&server)
}

func (p *onPath) accept() {
	for {
		c, err := p.listen.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.open[c] = struct{}{}
		p.mu.Unlock()
		p.wg.Go(func() {
			defer func() {
				_ = c.Close()
				p.mu.Lock()
				delete(p.open, c)
				p.mu.Unlock()
			}()
			if p.playing.Load() {
				p.play(c)
			} else {
				p.pass(c)
			}
		})
	}
}

// cut ends what goes through.
func (p *onPath) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		_ = c.Close()
	}
}

func (p *onPath) pass(c net.Conn) {
	up, err := net.Dial("tcp", *p.server.Load())
	if err != nil {
		return
	}
	p.wg.Go(func() {
		_, _ = io.Copy(up, c)
		_ = up.Close()
	})
	_, _ = io.Copy(c, up)
}

// play shows a chain that begins with a certificate of its own, and as the first
// thing the one that was once taken: its own self-signed CA, then the server's chain.
func (p *onPath) play(c net.Conn) {
	p.mu.Lock()
	chain := p.im.Chain()
	p.mu.Unlock()
	s := tls.Server(c, &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"h2"},
		Certificates: []tls.Certificate{*impostor.Shows(p.im.Key, chain...)},
	})
	_ = s.SetDeadline(time.Now().Add(5 * time.Second))
	if s.Handshake() == nil {
		p.taken.Add(1)
	}
}

// The impostor of S1: at the join it would get the token, and with it every
// identity of the group.
func TestAnImpostorAtTheJoinGetsNoToken(t *testing.T) {
	w := meshtest.Start(t, meshtest.Options{NoAgent: true})
	addresses, err := w.Addresses(w.ServerDir())
	if err != nil {
		t.Fatal(err)
	}
	p := startOnPath(t)
	p.look(t, addresses.Agents)
	p.playing.Store(true)
	token := filepath.Join(w.Dir, "token")
	if err := os.WriteFile(token, []byte(w.Token()), 0o600); err != nil {
		t.Fatal(err)
	}
	tries := meshtest.Soak(5, 100)
	for range tries {
		out, code := w.CLI("agent", "--server", p.address, "--token-file", token, "--socket-dir", w.AgentDir())
		if code == 0 || !strings.Contains(out, "the server") {
			t.Errorf("exit %d: %s", code, out)
		}
	}
	if n := p.taken.Load(); n > 0 {
		t.Errorf("%d of %d times the agent took an impostor for the server", n, tries)
	}
	text, err := os.ReadFile(token)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.TryJoinHost(string(text)); err != nil {
		t.Errorf("the token was spent: %v", err)
	}
}

// On a connection that stands the impostor would give out policies, and take the
// requests for certificates of every proxy.
func TestAnImpostorOnAStandingConnectionIsNotFollowed(t *testing.T) {
	p := startOnPath(t)
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"front"}, Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "")),
		Through: func(server string) string {
			p.look(t, server)
			return p.address
		},
	})
	p.playing.Store(true)
	p.cut()
	w.Await("the agent has lost the server", 20*time.Second, func() error { return w.AgentConnected(false) })
	time.Sleep(meshtest.Soak(3*time.Second, 30*time.Second)) // it tries again meanwhile
	if n := p.taken.Load(); n > 0 {
		t.Errorf("%d times the agent took an impostor for the server", n)
	}
	if states := w.AgentConnected(false); states != nil {
		t.Error(states)
	}
	p.playing.Store(false)
	w.Await("the agent is back", 20*time.Second, func() error { return w.AgentConnected(true) })
}

// listenEnv has the test binary listen on a path until its standard input ends.
const listenEnv = "SIGNET_TEST_LISTEN"

func listenUntilClosed(path string) int {
	l, err := net.Listen("unix", path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := os.Chmod(path, 0o777); err != nil { // he is generous
		return 1
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n, _ := c.Read(make([]byte, 1024))
			fmt.Printf("got %d bytes\n", n)
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// listenAs starts a process of another user that listens on path, and returns what
// ends it and gives what it was told.
func listenAs(t *testing.T, uid uint32, path string) func() string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{listenEnv + "=" + path}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the other user listens", func() bool { _, err := os.Lstat(path); return err == nil })
	return func() string {
		_ = in.Close()
		_ = cmd.Wait() // how it ended does not matter
		return out.String()
	}
}

// A token that an impostor on the admin socket made has the impostor's pin.
func TestAnImpostorOnAUnixSocketIsToldNothing(t *testing.T) {
	w := startParted(t, meshtest.Options{NoAgent: true})
	folder := filepath.Join(w.Dir, "open")
	if err := os.Mkdir(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(folder, 0o777); err != nil { // whatever the umask
		t.Fatal(err)
	}
	admin := filepath.Join(folder, "admin.sock")
	end := listenAs(t, strangerUID, admin)
	out, code := w.CLI("token", "create", "--group", "hosts", "--socket", admin)
	if code != 5 || !strings.Contains(out, fmt.Sprint("uid ", strangerUID)) {
		t.Errorf("the CLI: exit %d: %s", code, out)
	}
	client, conn, err := dial.Dial(admin)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := client.CreateToken(t.Context(), &api.CreateTokenRequest{Group: "hosts"}); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "uid") {
		t.Errorf("the client: %v", err)
	}
	if told := end(); strings.Contains(told, "got") && !strings.Contains(told, "got 0 bytes") {
		t.Errorf("the impostor was told something: %s", told)
	}
	if out, code := w.CLI("token", "create", "--group", "hosts", "--ttl", "1m"); code != 0 {
		t.Errorf("at the server's own socket: exit %d: %s", code, out)
	}

	signer := filepath.Join(folder, "signer.sock")
	end = listenAs(t, strangerUID, signer)
	w.Server.Kill()
	program := w.Program()
	cmd := exec.CommandContext(t.Context(), parts.Program(t, "setpriv"), "--reuid", fmt.Sprint(serverUID), "--clear-groups", "--regid", fmt.Sprint(serverUID), "--",
		program, "server", "--data-dir", w.ServerDir(), "--signer", "unix:"+signer, "--signer-user", fmt.Sprint(signerUID), "--listen", "127.0.0.1:0")
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if !strings.Contains(log.String(), fmt.Sprintf("uid %d listens there", strangerUID)) {
		t.Errorf("the server says: %s", log.String())
	}
	if told := end(); strings.Contains(told, "got") && !strings.Contains(told, "got 0 bytes") {
		t.Errorf("the impostor was told something: %s", told)
	}
}
