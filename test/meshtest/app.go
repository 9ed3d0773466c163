package meshtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// App is an application behind a proxy.
type App = http.Handler

// RawApp is an App that takes its listener itself, to see bytes before any server
// library has read them. ServeListener returns, with all that it began ended, once
// the listener is closed.
type RawApp interface {
	App
	ServeListener(l net.Listener)
}

// Seen is what Echo answers: what the application got.
type Seen struct {
	Service string              `json:"service"`
	Method  string              `json:"method"`
	Path    string              `json:"path"`
	RawPath string              `json:"rawPath"`
	Host    string              `json:"host"`
	Headers map[string][]string `json:"headers"`
}

// Caller is the SPIFFE ID that the proxy in front of the application verified.
func (s Seen) Caller() string { return xfcc(s.Headers, "URI") }

// CallerCertificate is the SHA-256 of the caller's certificate.
func (s Seen) CallerCertificate() string { return xfcc(s.Headers, "Hash") }

func xfcc(headers map[string][]string, key string) string {
	for pair := range strings.SplitSeq(strings.Join(headers["X-Forwarded-Client-Cert"], ","), ";") {
		if k, v, _ := strings.Cut(pair, "="); k == key {
			return strings.Trim(v, `"`)
		}
	}
	return ""
}

// Echo answers every request with what it got.
func Echo(name string) App {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the request as a whole
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(Seen{Service: name, Method: r.Method, Path: r.URL.Path, RawPath: r.RequestURI, Host: r.Host, Headers: r.Header}) // the caller went away
	})
}

func serve(t testing.TB, address string, app App) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	serveAt(t, l, app)
}

func serveAt(t testing.TB, l net.Listener, app App) {
	t.Helper()
	if raw, ok := app.(RawApp); ok {
		done := make(chan struct{})
		go func() { defer close(done); raw.ServeListener(l) }()
		t.Cleanup(func() { _ = l.Close(); <-done })
		return
	}
	server := &http.Server{Handler: app, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }() // ends by Close
	t.Cleanup(func() { _ = server.Close(); <-done })
}

// Answer of a call through a proxy.
type Answer struct {
	Status     int
	Seen       Seen
	Header     http.Header
	Body       string
	DecisionID string
	Denied     string
}

// Client that calls as a node: through the node's own proxy, with http_proxy's absolute form.
func (w *World) Client(node string) *http.Client {
	n := w.Nodes[node]
	proxy := &url.URL{Scheme: "http", Host: n.EgressAddress()}
	transport := &http.Transport{Proxy: http.ProxyURL(proxy), MaxIdleConnsPerHost: 64}
	if n.EgressNetwork() == "unix" {
		proxy.Host = "on-a-socket" // all of its calls go to the one below
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", n.Egress)
		}
	}
	w.T.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// Get calls url as a node and fails the test if there is no answer at all.
func (w *World) Get(node, rawURL string, headers ...string) Answer {
	w.T.Helper()
	a, err := Do(w.T, w.Client(node), http.MethodGet, rawURL, headers...)
	if err != nil {
		w.T.Fatalf("GET %s as %s: %v", rawURL, node, err)
	}
	return a
}

// Do makes one request; headers are name, value pairs.
func Do(t testing.TB, client *http.Client, method, rawURL string, headers ...string) (Answer, error) {
	req, err := http.NewRequestWithContext(t.Context(), method, rawURL, nil)
	if err != nil {
		return Answer{}, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end below
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return Answer{}, err
	}
	a := Answer{
		Status: resp.StatusCode, Header: resp.Header, Body: string(body),
		DecisionID: resp.Header.Get("X-Signet-Decision-Id"), Denied: resp.Header.Get("X-Signet-Denied"),
	}
	if resp.StatusCode == http.StatusOK && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		err = json.Unmarshal(body, &a.Seen)
	}
	return a, err
}

// AwaitRoute waits until a call as a node gets an answer that is not 503: a
// proxy is ready a moment before the others know its endpoint.
func (w *World) AwaitRoute(node, rawURL string) {
	w.T.Helper()
	w.Await("route of "+node+" to "+rawURL, 15*time.Second, func() error {
		a, err := Do(w.T, w.Client(node), http.MethodGet, rawURL)
		if err == nil && a.Status == http.StatusServiceUnavailable {
			err = fmt.Errorf("503 %s", a.Body)
		}
		return err
	})
}
