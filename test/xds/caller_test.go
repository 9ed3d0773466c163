package xdstest_test

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// caller is a proxy by which one node calls the others, which are no proxies but
// plain servers at addresses of their own, so that a test of routes has one Envoy.
type caller struct {
	proxy *running
	stub  *stub
	out   string // the proxy's way out
	port  uint32 // of each node's listener

	shape     proxy.Shape
	nodes     string                    // their manifests, and the mesh's
	endpoints map[string][]xds.Endpoint // of the nodes, by name
}

// callee is one endpoint of a node that is called: what serves there, and the node's only
// listener in one line, of which PORT is the port. Those of one name are of one node.
type callee struct {
	name, listener string
	serve          http.Handler
}

// answers says its name.
func answers(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-By", name)
		if name == "secure" {
			w.WriteHeader(http.StatusAccepted)
		}
	})
}

// plain is a listener's spec by protocol, without TLS.
func plain(protocol string) string {
	return "portMapping: {port: PORT, protocol: " + protocol + "}, tls: {mode: DISABLED, certificate: {acm: {certificateARN: a}}}"
}

// startCaller serves the callees and runs front's proxy, whose backends are the
// services of manifest.
func startCaller(t *testing.T, manifest string, services []string, callees ...callee) *caller {
	t.Helper()
	text := new(strings.Builder)
	text.WriteString("apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\nspec: {}\n---\n" +
		"apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: front}\nspec:\n  backends:\n")
	for _, s := range services {
		fmt.Fprintf(text, "    - virtualService: {virtualServiceRef: {name: %s}}\n", s)
	}
	var port uint32
	endpoints := map[string][]xds.Endpoint{}
	for _, c := range callees {
		host := loopback()
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10)))
		if err != nil {
			t.Fatal(err)
		}
		port = uint32(l.Addr().(*net.TCPAddr).Port) //nolint:gosec // a port
		srv := &http.Server{Handler: c.serve, ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols)}
		srv.Protocols.SetHTTP1(true)
		srv.Protocols.SetUnencryptedHTTP2(true)
		done := make(chan struct{})
		go func() { defer close(done); _ = srv.Serve(l) }() // ends by Close
		t.Cleanup(func() { _ = srv.Close(); <-done })
		if endpoints[c.name] == nil {
			fmt.Fprintf(text, "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: %s}\nspec: {listeners: [{%s}]}\n", c.name, c.listener)
		}
		endpoints[c.name] = append(endpoints[c.name], xds.Endpoint{Address: host, Port: port, Healthy: true})
	}
	bind, stub := loopback(), startStub(t)
	c := &caller{stub: stub, port: port, nodes: text.String(), endpoints: endpoints, shape: xdstest.Shape}
	c.shape.Bind, c.shape.Egress, c.shape.AuthzSocket, c.shape.WayoutSocket = bind, xdstest.EgressOn(bind), stub.socket, stub.socket
	c.out = c.shape.Egress.String()
	c.proxy = startProxy(t, c.with(t, manifest), newPKI(t))
	return c
}

// with is front's case with the services of a manifest.
func (c *caller) with(t *testing.T, manifest string) xdstest.Case {
	t.Helper()
	all := strings.ReplaceAll(c.nodes+manifest, "PORT", strconv.FormatUint(uint64(c.port), 10))
	return xdstest.Case{
		Name: "front", Mesh: "shop", Node: "front", Shape: c.shape,
		Input: xds.Input{
			Graph: graphtest.Graph(t, "mesh.yaml", []byte(all)), TrustDomain: xdstest.TrustDomain,
			Endpoints: func(node proxy.Ref, _ uint32) []xds.Endpoint { return c.endpoints[node.Name] },
		},
	}
}
