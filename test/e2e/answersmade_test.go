package e2e

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.step.sm/crypto/pemutil"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// root is the mesh's own, which a test that has its files can sign anything by: certificates
// that its signer does not make.
type root struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func rootOf(t *testing.T, w *meshtest.World) root {
	t.Helper()
	var r root
	if err := filepath.WalkDir(w.ServerDir(), func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch filepath.Base(path) {
		case "root.key":
			password, err := os.ReadFile(filepath.Join(w.Dir, "password"))
			if err != nil {
				return err
			}
			key, err := pemutil.Read(path, pemutil.WithPassword(bytes.TrimSpace(password)))
			if err != nil {
				return err
			}
			r.key, _ = key.(crypto.Signer)
		case "root.crt":
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			block, _ := pem.Decode(text)
			if block == nil {
				return fmt.Errorf("%s has no certificate", path)
			}
			r.cert, err = x509.ParseCertificate(block.Bytes)
			return err
		}
		return nil
	}); err != nil || r.key == nil || r.cert == nil {
		t.Fatalf("the root of the mesh: %v", err)
	}
	return r
}

// sign makes a certificate that is good for an hour, of SPIFFE IDs, with changes.
func (r root) sign(t *testing.T, change func(*x509.Certificate), ids ...string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		NotBefore:   time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
	for _, id := range ids {
		uri, err := url.Parse("spiffe://test.example/" + id)
		if err != nil {
			t.Fatal(err)
		}
		leaf.URIs = append(leaf.URIs, uri)
	}
	if change != nil {
		change(leaf)
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, r.cert, key.Public(), r.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func expired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }

// outside is a node without a proxy, found at this host, and its service.
func outside(name string, port int, protocol string) string {
	return meshtest.Join(strings.Replace(listening(name, port, protocol, ""), name+".test.internal", "127.0.0.1", 1), meshtest.ServiceOfNode(name, name))
}

// byMTLS has the node before it call backends by mTLS, and expect the identity of each.
func byMTLS(names ...string) string {
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "    - virtualService: {virtualServiceRef: {name: %s}, clientPolicy: {tls: {enforce: true, validation: {trust: {sds: {secretName: \"spiffe://test.example\"}}}}}}\n", name)
	}
	return b.String()
}

// at serves each connection with f until the test ends, and returns the port.
func at(t *testing.T, f func(net.Conn)) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	ended := make(chan struct{})
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				defer func() { _ = c.Close() }() // the other end sees it
				done := make(chan struct{})
				running.Go(func() {
					select {
					case <-ended:
						_ = c.Close()
					case <-done:
					}
				})
				f(c)
				close(done)
			})
		}
	})
	t.Cleanup(func() {
		close(ended)
		_ = l.Close()
		running.Wait()
	})
	return portOf(l)
}

func portOf(l net.Listener) int {
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		return a.Port
	}
	return 0
}

// withTLS is a server that has a certificate.
func withTLS(config *tls.Config) func(net.Conn) {
	return func(c net.Conn) {
		s := tls.Server(c, config)
		if s.Handshake() == nil {
			_, _ = io.Copy(io.Discard, s)
		}
	}
}

// readAndClosed is a server that takes a request, and ends.
func readAndClosed(c net.Conn) { _, _ = c.Read(make([]byte, 4<<10)) }

// refusing is a server of HTTP/2 that takes no streams.
func refusing(c net.Conn) {
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	f := http2.NewFramer(c, c)
	if f.WriteSettings() != nil {
		return
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		if h, ok := frame.(*http2.HeadersFrame); ok {
			err = f.WriteRSTStream(h.StreamID, http2.ErrCodeRefusedStream)
		}
		if s, ok := frame.(*http2.SettingsFrame); ok && !s.IsAck() {
			err = f.WriteSettingsAck()
		}
		if err != nil {
			return
		}
	}
}

// nobodyAt is a port at which nobody listens, and that nobody else is given; with full it has a
// listener whose queue is full, so that connections to it are not answered.
func nobodyAt(t *testing.T, full bool) int {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := name.(*syscall.SockaddrInet4).Port //nolint:forcetypeassert // it was bound to one
	if !full {
		return port
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		c, err := net.DialTimeout("tcp", fmt.Sprint("127.0.0.1:", port), 300*time.Millisecond)
		if err != nil {
			return port
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatal("the queue of a listener is never full")
	return 0
}

// dialer calls from an address, unless this is the name of a node.
func dialer(from string) net.Dialer {
	d := net.Dialer{Timeout: 5 * time.Second}
	if ip, err := netip.ParseAddr(from); err == nil {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 0))
	}
	return d
}

// mostWaited is for an answer that takes as long as a stream may be open. A hang is found by
// who looks for the answer.
const mostWaited = 40 * time.Second

// saidTo is the first line of what comes back to a text, and how the connection ends.
func saidTo(d net.Dialer, address, text string) string {
	c, err := d.Dial("tcp", address)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = c.Close() }()
	return answerTo(c, text)
}

func answerTo(c net.Conn, text string) string {
	_ = c.SetDeadline(time.Now().Add(mostWaited))
	_, _ = io.WriteString(c, text)
	got, err := io.ReadAll(io.LimitReader(c, 1<<20))
	first, _, _ := strings.Cut(string(got), "\r\n")
	return fmt.Sprintf("%q, %v", first, err)
}

// calledBy calls by a certificate, also where the server asks for those of others.
func calledBy(d net.Dialer, address string, cert *tls.Certificate, path string) string {
	c, err := tls.DialWithDialer(&d, "tcp", address, &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, //nolint:gosec // the server is what is tested
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil },
	})
	if err != nil {
		return err.Error()
	}
	defer func() { _ = c.Close() }()
	return answerTo(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

// deafAfterHello begins a handshake, and never goes on with it.
func deafAfterHello(d net.Dialer, address string) {
	c, err := d.Dial("tcp", address)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(mostWaited))
	_ = tls.Client(deaf{c}, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}).Handshake() //nolint:gosec // it ends before it matters
}

// deaf is a connection whose other end is not heard until it closes.
type deaf struct{ net.Conn }

func (c deaf) Read([]byte) (int, error) {
	_, err := io.Copy(io.Discard, c.Conn)
	return 0, errors.Join(err, io.EOF)
}

// overHTTP2 sends the headers of one request, and is the frame by which the other end is done with it.
func overHTTP2(d net.Dialer, address string, headers []string) string {
	c, err := d.Dial("tcp", address)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(mostWaited))
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for i := 0; i+1 < len(headers); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: headers[i], Value: headers[i+1]}) // to a buffer
	}
	_, _ = io.WriteString(c, http2.ClientPreface)
	f := http2.NewFramer(c, c)
	_ = f.WriteSettings()
	const most = 16 << 10
	first := bytes.Clone(block.Next(most))
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndStream: true, EndHeaders: block.Len() == 0})
	for block.Len() > 0 {
		next := bytes.Clone(block.Next(most))
		_ = f.WriteContinuation(1, block.Len() == 0, next)
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return err.Error()
		}
		switch h := frame.Header(); {
		case h.Type == http2.FrameRSTStream, h.Type == http2.FrameGoAway, h.StreamID == 1 && h.Flags.Has(http2.FlagDataEndStream):
			return h.String()
		}
	}
}

// many are as many headers of names that differ.
func many(n int) (headers []string) {
	for i := range n {
		headers = append(headers, fmt.Sprint("x-", i), "1")
	}
	return headers
}

// wayToPort is the address at which web's application finds a service of tcp.
func wayToPort(t *testing.T, w *meshtest.World, host string, port int) string {
	out, code := w.CLI("routes", fmt.Sprintf("%s:%d", host, port), "--from", "web")
	place := placeInAnswer.FindStringSubmatch(out)
	if code != 0 || place == nil {
		t.Errorf("exit %d: %s", code, out)
		return ""
	}
	return place[1]
}

// behindTLS is a node, and its service, whose proxy speaks TLS with the application, which has to have the mesh's
// authority and a name.
func behindTLS(name string) string {
	return meshtest.Join(meshtest.VirtualNode(name, ""), meshtest.ServiceOfNode(name, name), fmt.Sprintf(
		"apiVersion: signet.example/v1alpha1\nkind: VirtualNodeOptions\nmetadata: {name: %s}\nspec: {listeners: [{port: %d, applicationTLS: {trust: {sds: {secretName: \"spiffe://test.example\"}}, subjectAlternativeNames: {match: {exact: [\"spiffe://test.example/app\"]}}}}]}\n",
		name, meshtest.AppPort))
}

// overTLS is an application that speaks TLS.
type overTLS struct{ config *tls.Config }

func (overTLS) ServeHTTP(http.ResponseWriter, *http.Request) {}

func (o overTLS) ServeListener(l net.Listener) {
	server := http.Server{Handler: o, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	_ = server.Serve(tls.NewListener(l, o.config)) // ends with the listener
}

// shortOfMemory is an Envoy that starts with a bootstrap of the agent's, but for the one of a node, to which it says
// that all memory is used up.
func shortOfMemory(t *testing.T, node string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "envoy")
	script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *%s*) sed 's/\"maxHeapSizeBytes\": *\"[0-9]*\"/\"maxHeapSizeBytes\": \"1\"/' /dev/fd/3 > %s.json; exec 3< %[2]s.json;; esac\nexec %s \"$@\"\n", node, file, parts.Envoy(t))
	if err := os.WriteFile(file, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

// moreThanKept calls where nobody is, with a body of which more comes between the tries than is kept of one. When it
// tries again is the proxy's dice.
func moreThanKept(d net.Dialer, address, host string) string {
	body := strings.Repeat("a", 1<<20)
	for n := range 200 {
		c, err := d.Dial("tcp", address)
		if err != nil {
			return err.Error()
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", host, len(body))
		time.Sleep(time.Duration(n%10) * time.Millisecond)
		var sent sync.WaitGroup
		sent.Go(func() { _, _ = io.WriteString(c, body) }) // the answer may come before its end
		got := make([]byte, 1<<10)
		k, _ := c.Read(got)
		_ = c.Close()
		sent.Wait()
		if first, _, _ := strings.Cut(string(got[:k]), "\r\n"); strings.Contains(first, " 507 ") {
			return fmt.Sprintf("%q at the %d. time", first, n+1)
		}
	}
	return "every try was made at once"
}
