package e2e

import (
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/test/envoytest"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// edge is a gateway, its Binding, and its routes to the service shop below a path.
func edge(path string) string {
	return meshtest.Join(
		fmt.Sprintf("apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualGateway\nmetadata: {name: edge}\nspec: {meshRef: {name: test}, listeners: [{portMapping: {port: %d, protocol: http}}]}\n", meshtest.AppPort),
		edgeRoute("shop", path, "shop"),
		"apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: edge-proxy}\nspec: {group: hosts, mesh: test, virtualGateway: edge, selectors: [\"signet:proxy:edge\"]}\n",
	)
}

func edgeRoute(name, path, service string) string {
	return fmt.Sprintf("apiVersion: appmesh.k8s.aws/v1beta2\nkind: GatewayRoute\nmetadata: {name: %s}\nspec: {meshRef: {name: test}, httpRoute: {match: {prefix: %s}, action: {target: {virtualService: {virtualServiceRef: {name: %s}}}}}}\n", name, path, service)
}

func awaitEdge(w *meshtest.World) {
	w.Await("the gateway's proxy", 20*time.Second, func() error {
		if s := w.ProxyStates()["edge"]; s != api.ProxyStatus_READY {
			return fmt.Errorf("it is %s", api.Word(s))
		}
		return nil
	})
}

// acknowledged reports whether a proxy has acknowledged all that it is to have, routes of
// that name among it.
func acknowledged(w *meshtest.World, id, routes string) bool {
	w.T.Helper()
	answer, err := w.Admin.ProxyConfig(w.Context(), &api.ProxyConfigRequest{Id: id, Full: true})
	if err != nil {
		w.T.Fatal(err)
	}
	found := false
	for _, p := range answer.GetProxies() {
		for _, r := range p.GetResources() {
			if r.GetState() != "acknowledged" || p.GetAssumed() || r.GetConfig() == nil {
				return false
			}
			found = found || strings.HasPrefix(r.GetName(), routes)
		}
	}
	return found
}

const edgePolicy = `package signet.authz.edge

allow contains "what is for sale may be read from outside" if {
	input.request.method == "GET"
	input.request.segments[0] != "staff"
}
`

const shopPolicy = `package signet.authz.shop

allow contains "the gateway may read" if {
	input.source.virtual_node == "edge"
	input.request.path != "/secret"
}
`

func TestAGatewayServesCallersFromOutsideByItsOwnIdentity(t *testing.T) {
	const bind = "127.83.7.1"
	keys := t.TempDir()
	w := meshtest.Start(t, meshtest.Options{
		Nodes:       []string{"shop"},
		Manifests:   meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("shop", meshtest.Strict("test.example", "shop")+slowHealth), meshtest.ServiceOfNode("shop", "shop"), edge("/buy")),
		Policy:      map[string]string{"edge.rego": edgePolicy, "shop.rego": shopPolicy},
		TrustDomain: "test.example",
		AgentExtra:  "- {name: edge, mesh: test, virtual_gateway: edge, bind: " + bind + ", concurrency: 1, tls_dirs: [{dir: " + keys + ", as: /keys}]}\n",
	})
	awaitEdge(w)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	at := fmt.Sprintf("http://%s:%d", bind, meshtest.AppPort)
	get := func(path string) meshtest.Answer {
		t.Helper()
		a, err := meshtest.Do(t, client, "GET", at+path)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	eventually(t, 10*time.Second, "a call through the gateway", func() bool { return get("/buy/tea?x=1").Status == http.StatusOK })
	for id, resources := range map[string]string{"edge": "rds_ingress_http_", "test/shop": "rds_egress_http_"} { // what each has is told by `signet proxy config`
		eventually(t, 10*time.Second, "all of its configuration is acknowledged by "+id, func() bool { return acknowledged(w, id, resources) })
	}
	seen := get("/buy/tea").Seen
	if seen.Path != "/tea" || seen.Host != meshtest.HostOf("shop") || seen.Caller() != "spiffe://test.example/test/edge" {
		t.Errorf("the application saw %s of host %s by %q", seen.Path, seen.Host, seen.Caller())
	}
	// The gateway's own policy decides on what the caller wrote, the service's on what it gets.
	if a := get("/staff/tea"); a.Status != http.StatusForbidden || a.Denied != "policy" {
		t.Errorf("what the gateway's policy denies: %d %q", a.Status, a.Denied)
	}
	if a := get("/buy/secret"); a.Status != http.StatusForbidden || a.DecisionID == "" {
		t.Errorf("what the service's policy denies: %d, decision %q", a.Status, a.DecisionID)
	}
	if a := get("/nothing"); a.Status != http.StatusNotFound {
		t.Errorf("what no route takes: %d", a.Status)
	}

	w.Apply(edgeRoute("shop", "/sale", "shop"))
	eventually(t, 5*time.Second, "the changed route", func() bool {
		return get("/sale/tea").Status == http.StatusOK && get("/buy/tea").Status == http.StatusNotFound
	})
	w.Apply(edgeRoute("more", "/more/", "shop"))
	eventually(t, 5*time.Second, "the second route", func() bool { return get("/more/tea").Seen.Path == "/tea" })

	out, code := w.CLI("check")
	if code > 1 || strings.Contains(out, "proxy edge") || strings.Contains(out, "test/edge") {
		t.Errorf("check has something to say of a gateway that serves: exit %d\n%s", code, out)
	}
	for _, row := range []struct{ what, manifest, want string }{
		{"a node of its name", meshtest.VirtualNode("edge", ""), "both would have the identity /test/edge"},
		{"a port that the service does not have", strings.Replace(edgeRoute("more", "/more", "shop"), "target: {", "target: {port: 7, ", 1), `its target is port 7 of virtual service "shop.test.internal"`},
		{"a Binding of both", "apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: both}\nspec: {group: hosts, mesh: test, virtualNode: shop, virtualGateway: edge, selectors: [\"unix:uid:7\"]}\n", "spec.virtualGateway: not together with virtualNode"},
		{"a Binding with applications", "apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: both}\nspec: {group: hosts, mesh: test, virtualGateway: edge, selectors: [\"unix:uid:7\"], applications: [anyone]}\n", "spec.applications: not together with virtualGateway"},
	} {
		if _, err := w.TryApply(row.manifest); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want …%s…", row.what, err, row.want)
		}
	}
	if out, code := w.CLI("delete", "virtualgateway", "edge"); code == 0 {
		t.Errorf("a gateway that a Binding grants is deleted:\n%s", out)
	}
	if out, _ := w.CLI("get", "gatewayroutes"); !strings.Contains(out, "shop") || !strings.Contains(out, "more") {
		t.Errorf("get gatewayroutes:\n%s", out)
	}
	gatewayByCertificateOfAFile(t, w, bind, keys)
	w.Apply("apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: edge-proxy}\nspec: {group: hosts, mesh: test, virtualNode: shop, selectors: [\"signet:proxy:nobody\"]}\n")
	eventually(t, 10*time.Second, "a gateway without its Binding is closed", func() bool {
		_, err := meshtest.Do(t, client, "GET", at+"/sale/tea")
		return err != nil
	})
}

// gatewayByCertificateOfAFile has the gateway listen by TLS, too, with what lies in a folder
// of its host, which its mesh knows as /keys.
func gatewayByCertificateOfAFile(t *testing.T, w *meshtest.World, bind, keys string) {
	t.Helper()
	put := func(ca *parts.HostCA, change func(*x509.Certificate)) *x509.Certificate {
		t.Helper()
		key := parts.ECKey(t, elliptic.P256())
		cert := ca.Sign(key.Public(), nil, func(c *x509.Certificate) {
			c.DNSNames, c.ExtKeyUsage = []string{"shop.example"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			c.NotAfter = time.Now().Add(100 * time.Hour)
			change(c)
		})
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		for name, block := range map[string]*pem.Block{"edge.pem": {Type: "CERTIFICATE", Bytes: cert.Raw}, "edge.key": {Type: "PRIVATE KEY", Bytes: der}} {
			if err := os.WriteFile(filepath.Join(keys, name), pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return cert
	}
	ca := parts.NewHostCA(t, "the shop's own")
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	at := fmt.Sprintf("https://%s:%d/sale/tea", bind, meshtest.AppPort+1)
	shown := func() *x509.Certificate {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "shop.example"}}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil
		}
		return resp.TLS.PeerCertificates[0]
	}
	check := func(want string) bool {
		out, _ := w.CLI("check")
		return strings.Contains(out, want)
	}
	listen := func(key string) {
		t.Helper()
		w.Apply(fmt.Sprintf("apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualGateway\nmetadata: {name: edge}\nspec: {meshRef: {name: test}, listeners: [{portMapping: {port: %d, protocol: http}}, {portMapping: {port: %d, protocol: http}, tls: {mode: STRICT, certificate: {file: {certificateChain: /keys/edge.pem, privateKey: %s}}}}]}\n",
			meshtest.AppPort, meshtest.AppPort+1, key))
	}
	listen("/keys/edge.key")
	eventually(t, 10*time.Second, "a missing file is told of", func() bool { return check("edge.pem: no such file or directory: what needs it serves nobody") })
	if shown() != nil {
		t.Error("a listener without its certificate serves")
	}
	first := put(ca, func(*x509.Certificate) {})
	eventually(t, 10*time.Second, "the listener of the file's certificate", func() bool { c := shown(); return c != nil && c.Equal(first) })
	second := put(ca, func(*x509.Certificate) {})
	eventually(t, 10*time.Second, "the next certificate", func() bool { c := shown(); return c != nil && c.Equal(second) })
	put(ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	eventually(t, 15*time.Second, "a certificate that ended is told of", func() bool { return check("what was read before is served still") })
	if c := shown(); c == nil || !c.Equal(second) {
		t.Errorf("the last good one is gone: %v", c)
	}
	listen("/etc/shadow")
	eventually(t, 10*time.Second, "what the host does not let it have is told of", func() bool { return check("tls_dirs: [{dir: FOLDER, as: /etc}]") })
	if shown() != nil {
		t.Error("a listener without a key that it may have serves")
	}
	put(ca, func(*x509.Certificate) {})
	listen("/keys/edge.key")
	eventually(t, 10*time.Second, "the listener with its own key", func() bool { return shown() != nil })
}

func TestChangesBehindAGatewayUnderLoadFailNoRequest(t *testing.T) {
	const bind = "127.83.7.2"
	other := meshtest.ServiceOfNode("other", "shop-2")
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"shop-1", "shop-2"},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("shop-1", ""), meshtest.VirtualNode("shop-2", ""),
			meshtest.Weighted("shop", "shop-1", 100), meshtest.ServiceOfRouter("shop", "shop"), other, edge("/buy")),
		AgentExtra: "- {name: edge, mesh: test, virtual_gateway: edge, bind: " + bind + ", concurrency: 1}\n",
	})
	awaitEdge(w)
	at := fmt.Sprintf("http://%s:%d/buy/tea", bind, meshtest.AppPort)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	by := func() string {
		a, err := meshtest.Do(t, client, "GET", at)
		if err != nil {
			return ""
		}
		return a.Seen.Service
	}
	eventually(t, 10*time.Second, "a call through the gateway", func() bool { return by() == "shop-1" })
	load := envoytest.Load{URL: at, Rate: 400, NewConnections: 0.02}.Start(t.Context())
	for range meshtest.Soak(1, 10) {
		for _, step := range []struct{ what, manifest, by string }{
			{"the service moves to a cluster that the gateway did not have", meshtest.Weighted("shop", "shop-2", 100), "shop-2"},
			{"and back", meshtest.Weighted("shop", "shop-1", 100), "shop-1"},
			{"the gateway's route moves to another service", edgeRoute("shop", "/buy", "other"), "shop-2"},
			{"and back", edgeRoute("shop", "/buy", "shop"), "shop-1"},
			{"a longer route comes first", edgeRoute("tea", "/buy/t", "other"), "shop-2"},
			{"its path changes", edgeRoute("tea", "/sell", "other"), "shop-1"},
		} {
			w.Apply(step.manifest)
			eventually(t, 5*time.Second, step.what, func() bool { return by() == step.by })
			if r := load.Report(); r.Failed > 0 {
				t.Fatalf("%s: %d of %d failed: %v", step.what, r.Failed, r.Sent, r.Reasons)
			}
		}
		time.Sleep(2500 * time.Millisecond) // what is removed goes 2 s after the routes
	}
	if r := load.Stop(); r.Failed > 0 || r.Sent < 500 {
		t.Errorf("%d of %d failed: %v", r.Failed, r.Sent, r.Reasons)
	}
}
