package e2e

import (
	"context"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"signet.example/dev"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
	xdstest "signet.example/test/xds"
	"signet.example/xds/predict"
)

// place is where a node's proxy listens, and the application behind it.
type place struct{ bind, app string }

func (p place) at(port uint32) string { return fmt.Sprintf("%s:%d", p.bind, port) }

// reserve finds addresses for all, and starts the applications: one program that says whom it
// answers for.
func (d *day) reserve(ports []int) {
	d.t.Helper()
	loopback, err := dev.ReserveLoopback(2*len(d.nodes), ports...)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if err := loopback.Close(); err != nil {
			d.t.Error(err)
		}
	})
	for i, n := range d.nodes {
		p := place{loopback.Addresses[2*i], loopback.Addresses[2*i+1]}
		d.places[n.Ref] = p
		if n.Gateway != nil {
			continue
		}
		for _, l := range n.Listeners {
			at, err := new(net.ListenConfig).Listen(d.t.Context(), "tcp", fmt.Sprintf("%s:%d", p.app, l.Port))
			if err != nil {
				d.t.Fatal(err)
			}
			done := make(chan struct{})
			go func() { defer close(done); answerAt(at, n, l.Protocol == mesh.ProtocolTCP) }()
			d.t.Cleanup(func() { _ = at.Close(); <-done })
		}
	}
}

// byHeader is the header of who answered.
const byHeader = "x-served-by"

// answerAt answers until the listener is closed.
func answerAt(at net.Listener, n *mesh.VirtualNode, tcp bool) {
	if !tcp {
		s := &http.Server{Protocols: new(http.Protocols), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Hour, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set(byHeader, n.String())
			if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
				w.Header().Set("Content-Type", "application/grpc")
				w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
				_, _ = w.Write([]byte{0, 0, 0, 0, 2, 8, 1}) // SERVING, of health checks
			}
		})}
		s.Protocols.SetHTTP1(true)
		s.Protocols.SetUnencryptedHTTP2(true)
		_ = s.Serve(at) // ends by Close
		_ = s.Close()
		return
	}
	for {
		c, err := at.Accept()
		if err != nil {
			return
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.ReadFull(c, make([]byte, len(hello))); err == nil {
			_, _ = io.WriteString(c, n.String()+"\n")
		}
		_ = c.Close()
	}
}

// hello is what a client of tcp says first.
const hello = "who is there?"

// answer is what came of a call: an application's, a denial, or neither.
type answer struct {
	by     proxy.Ref
	denied string
	status int
	err    error
}

func (a answer) String() string {
	return fmt.Sprintf("answered %d by %q, denied by %q, %v", a.status, a.by, a.denied, a.err)
}

// send makes a call as a node's application, or to a gateway.
func (d *day) send(from *mesh.VirtualNode, s xdstest.Send) answer {
	d.t.Helper()
	if s.Port != 0 {
		return d.connect(d.wayTo(from, fmt.Sprintf("%s:%d", s.Service, s.Port)))
	}
	at := d.places[from.Ref].at(meshtest.EgressPort)
	if from.Gateway != nil {
		at = d.places[from.Ref].at(s.Listener)
	}
	return d.request(at, s.Request)
}

// nobodys is what callers without an identity ask for.
var nobodys = xdstest.What{Method: http.MethodGet, Path: "/nobody"}

// get asks in plaintext and by no proxy.
func (d *day) get(at string, w xdstest.What) answer {
	return d.request(at, predict.Request{Method: w.Method, Authority: at, Path: w.Path})
}

func (d *day) request(at string, r predict.Request) answer {
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", at)
	}}}
	req, err := http.NewRequestWithContext(d.t.Context(), r.Method, "http://"+r.Authority+r.Path, http.NoBody)
	if err != nil {
		d.t.Fatal(err)
	}
	for name, values := range r.Headers {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return answer{by: d.named(resp.Header.Get(byHeader)), denied: resp.Header.Get(proxy.HeaderDenied), status: resp.StatusCode}
}

// named is the node whose application says so.
func (d *day) named(text string) proxy.Ref {
	for _, n := range d.nodes {
		if n.String() == text {
			return n.Ref
		}
	}
	return proxy.Ref{}
}

// connect is a connection of tcp. Who is refused sees it end.
func (d *day) connect(at string) answer {
	c, err := new(net.Dialer).DialContext(d.t.Context(), "tcp", at)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return answer{err: err}
	}
	if _, err := io.WriteString(c, hello); err != nil {
		return answer{err: err}
	}
	text, err := io.ReadAll(c)
	return answer{by: d.named(strings.TrimSpace(string(text))), err: err}
}

// connection is a pair's, of tcp: by the way that is open now.
func (d *day) connection(from, to *mesh.VirtualNode, port uint32, declared bool) {
	d.t.Helper()
	if from.Gateway != nil {
		return // it has none
	}
	at := d.wayTo(from, fmt.Sprintf("%s:%d", pairHost(to), port))
	var a answer
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if a = d.connect(at); (a.by == to.Ref) == declared && !errors.Is(a.err, os.ErrDeadlineExceeded) {
			break
		}
	}
	switch {
	case declared && a.by == to.Ref:
		d.Allowed++
	case !declared && a.by == (proxy.Ref{}):
		d.Denied++
	default:
		d.t.Errorf("%s connects to port %d of %s; declared is %t: %s", from.Name, port, to.Name, declared, a)
	}
}

// wayTo is where a node's application connects for a service of tcp.
func (d *day) wayTo(from *mesh.VirtualNode, service string) string {
	d.t.Helper()
	out, code := d.w.CLI("routes", service, "--from", from.Mesh+"/"+from.Name)
	place := placeInAnswer.FindStringSubmatch(out)
	if code != 0 || place == nil {
		d.t.Fatalf("%s: exit %d: %s", service, code, out)
	}
	return place[1]
}

// plaintext is a port at which a node is called by who has no certificate.
func plaintext(n *mesh.VirtualNode) (port uint32, ok bool) {
	for _, l := range n.Listeners {
		if n.Gateway == nil && l.Protocol != mesh.ProtocolTCP && (l.TLS == nil || l.TLS.Mode != mesh.TLSStrict) {
			return l.Port, true
		}
	}
	return 0, false
}

// strange reports whether two nodes do not know each other by TLS, as their mesh has it, so that
// no policy is asked: one names the authorities of files, or who may call it, and the other one
// is not of them.
func (d *day) strange(from, to *mesh.VirtualNode) bool {
	const file = "file-"
	for _, l := range to.Listeners {
		if l.TLS != nil && (strings.HasPrefix(l.TLS.ClientTrust, file) || l.TLS.Clients != nil && !slices.Contains(l.TLS.Clients, d.id(from.Ref))) {
			return true
		}
		shown := l.TLS != nil && strings.HasPrefix(l.TLS.Certificate, file)
		for _, c := range from.Backends {
			if c.TLS != nil && (strings.HasPrefix(c.TLS.Trust, file) != shown || c.TLS.Servers != nil && !slices.Contains(c.TLS.Servers, d.id(to.Ref))) {
				return true
			}
		}
		if shown && len(from.Backends) == 0 {
			return true
		}
	}
	return false
}

func firstPort(n *mesh.VirtualNode) uint32 {
	if len(n.Listeners) == 0 {
		return 0
	}
	return n.Listeners[0].Port
}

// headersOf are those without which a listener's protocol is not spoken.
func headersOf(l mesh.Listener) map[string][]string {
	if l.Protocol == mesh.ProtocolGRPC {
		return map[string][]string{"content-type": {"application/grpc"}}
	}
	return nil
}

// pairHost is by which everybody calls a node once all ways are open.
func pairHost(to *mesh.VirtualNode) string {
	return "pair-" + strings.NewReplacer("_", "-", ".", "-").Replace(to.Name) + ".pairs.internal"
}

// throughGateway reports whether a way was opened from a gateway to a listener.
func (d *day) throughGateway(from *mesh.VirtualNode, l mesh.Listener) bool {
	return from.Listeners[0].Protocol == mesh.ProtocolHTTP && l.Protocol == mesh.ProtocolHTTP
}

// object is a manifest, of which nothing is known here but its form.
type object = map[string]any

// opened are the mesh's nodes with a service for each of them, which every node has as a backend,
// and every gateway leads to.
func (d *day) opened() (list []string) {
	d.t.Helper()
	var nodes, gateways, made []object
	for _, m := range d.report.Manifests() {
		var o object
		if err := yaml.Unmarshal(m.Content, &o); err != nil {
			d.t.Fatal(err)
		}
		switch o["kind"] {
		case "VirtualNode":
			nodes = append(nodes, o)
		case "VirtualGateway":
			gateways = append(gateways, o)
		}
	}
	for _, o := range nodes {
		made = append(made, appMesh("VirtualService", pairService(o), object{"awsName": pairHost(d.node(o)), "provider": object{"virtualNode": object{"virtualNodeRef": refTo(o)}}}))
		for _, g := range gateways {
			made = append(made, d.pairRoutes(g, o)...)
		}
	}
	for _, o := range nodes {
		spec := o["spec"].(object)
		backends, _ := spec["backends"].([]any)
		for _, to := range nodes {
			backends = append(backends, object{"virtualService": object{"virtualServiceRef": pairService(to)}})
		}
		spec["backends"] = backends
	}
	for _, o := range append(made, nodes...) {
		text, err := yaml.Marshal(o)
		if err != nil {
			d.t.Fatal(err)
		}
		list = append(list, string(text))
	}
	return list
}

// pairRoutes lead from a gateway to the listeners of a node.
func (d *day) pairRoutes(gateway, node object) (list []object) {
	from, to := d.node(gateway), d.node(node)
	for _, l := range to.Listeners {
		if !d.throughGateway(from, l) {
			continue
		}
		list = append(list, appMesh("GatewayRoute", having(refTo(gateway), "name", fmt.Sprint("pair-", refTo(node)["name"], "-", l.Port)), object{
			"awsName":           fmt.Sprint("pair-", from.Name, "-", to.Name, "-", l.Port),
			"virtualGatewayRef": refTo(gateway),
			"httpRoute": object{
				"match":  object{"prefix": "/", "port": from.Listeners[0].Port, "hostname": object{"exact": fmt.Sprintf("%s:%d", pairHost(to), l.Port)}},
				"action": object{"target": object{"port": l.Port, "virtualService": object{"virtualServiceRef": pairService(node)}}, "rewrite": object{"prefix": object{"defaultPrefix": "DISABLED"}}},
			},
		}))
	}
	return list
}

func appMesh(kind string, metadata, spec object) object {
	return object{"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": kind, "metadata": metadata, "spec": spec}
}

// refTo is how others refer to an object.
func refTo(o object) object {
	meta := o["metadata"].(object)
	r := object{"name": meta["name"]}
	if meta["namespace"] != nil {
		r["namespace"] = meta["namespace"]
	}
	return r
}

func pairService(node object) object {
	r := refTo(node)
	return having(r, "name", fmt.Sprint("pair-", r["name"]))
}

// having is a copy in which one thing differs.
func having(o object, key string, value any) object {
	c := maps.Clone(o)
	c[key] = value
	return c
}

// node is the one of a manifest.
func (d *day) node(o object) *mesh.VirtualNode {
	meta, spec := o["metadata"].(object), o["spec"].(object)
	names := []string{fmt.Sprint(meta["name"], "_", meta["namespace"]), fmt.Sprint(meta["name"]), fmt.Sprint(spec["awsName"])}
	for _, n := range d.nodes {
		if slices.Contains(names, n.Name) && (n.Gateway != nil) == (o["kind"] == "VirtualGateway") {
			return n
		}
	}
	d.t.Fatalf("no node of %v", names)
	return nil
}

// certificates makes what the mesh names by files, and returns what the agent is told of them.
func (d *day) certificates(dir string) string {
	d.t.Helper()
	ca := parts.NewHostCA(d.t, "the mesh's own")
	key := parts.ECKey(d.t, elliptic.P256())
	var names, folders, dirs []string
	write := func(as, kind string, der []byte) {
		folder := filepath.Join(dir, strings.ReplaceAll(filepath.Dir(as), "/", "_"))
		if !slices.Contains(folders, folder) {
			folders = append(folders, folder)
			dirs = append(dirs, fmt.Sprintf("{dir: %s, as: %s}", folder, filepath.Dir(as)))
		}
		if err := errors.Join(os.MkdirAll(folder, 0o700), os.WriteFile(filepath.Join(folder, filepath.Base(as)), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)); err != nil {
			d.t.Fatal(err)
		}
	}
	var files [][2]string // of certificates and their keys, or of authorities
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if chain, ok := v["certificateChain"].(string); ok {
				of, _ := v["privateKey"].(string)
				files = append(files, [2]string{chain, of})
			}
			if name, ok := v["hostname"].(string); ok {
				names = append(names, name)
			}
			if list, ok := v["exact"].([]any); ok {
				for _, name := range list {
					names = append(names, fmt.Sprint(name))
				}
			}
			for _, m := range v {
				walk(m)
			}
		case []any:
			for _, m := range v {
				walk(m)
			}
		}
	}
	for _, m := range d.report.Manifests() {
		var o any
		if err := yaml.Unmarshal(m.Content, &o); err != nil {
			d.t.Fatal(err)
		}
		walk(o)
	}
	for _, f := range files {
		if f[1] == "" {
			write(f[0], "CERTIFICATE", ca.Cert.Raw)
			continue
		}
		cert := ca.Sign(key.Public(), nil, func(c *x509.Certificate) {
			c.DNSNames, c.ExtKeyUsage = names, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		})
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			d.t.Fatal(err)
		}
		write(f[0], "CERTIFICATE", cert.Raw)
		write(f[1], "PRIVATE KEY", der)
	}
	return strings.Join(dirs, ", ")
}
