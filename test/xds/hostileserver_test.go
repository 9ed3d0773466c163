package xdstest_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	"signet.example/test/corpus"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

const callsOne = `
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
spec: {}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: front}
spec:
  backends:
    - virtualService:
        virtualServiceRef: {name: web}
        clientPolicy:
          tls:
            validation:
              trust: {sds: {secretName: "spiffe://TD"}}
              subjectAlternativeNames: {match: {exact: ["spiffe://TD/ns/default/sa/web"]}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: web}
spec:
  listeners:
    - portMapping: {port: PORT, protocol: http}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: web}
spec: {awsName: web.shop.internal, provider: {virtualNode: {virtualNodeRef: {name: web}}}}
`

// takenOfServers are the chains that X509-SVID forbids and that an Envoy of ours
// takes of a server that it calls: nothing looks at them but Envoy itself. They
// are the words of docs/decisions/020.
var takenOfServers = []string{
	"intermediate-uri-with-path", "leaf-ca-true", "leaf-eku-server-only", "leaf-keycertsign", "leaf-no-keyusage",
	"san-critical-missing-when-subject-empty", "two-uri-sans-duplicate", "two-uri-sans-same-td",
}

func TestWhatEnvoyTakesOfAServerIsWhatTheDocumentationSays(t *testing.T) {
	cases, r := hostileSVIDs(t, "svid-hostile-dev.json"), newRemaker(t)
	td := spiffeid.RequireTrustDomainFromString(cases[0].TrustDomain)
	first := r.all(cases[0])
	var showing atomic.Pointer[remade]
	showing.Store(&first)
	l, err := net.Listen("tcp", loopback()+":0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // clients that refuse are meant to
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") }),
	}
	served := tls.NewListener(l, &tls.Config{
		ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if m := showing.Load(); m != nil {
				return &tls.Certificate{Certificate: m.chain, PrivateKey: m.key}, nil
			}
			return nil, errors.New("nothing to show")
		},
	})
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(served) })
	t.Cleanup(func() { _ = srv.Close(); wg.Wait() })

	at, bind, pki, stub := l.Addr().(*net.TCPAddr), loopback(), newPKI(t), startStub(t)
	pki.bundle = first.bundle
	text := strings.NewReplacer("TD", td.Name(), "PORT", strconv.Itoa(at.Port)).Replace(callsOne)
	front := xdstest.Case{
		Name: "front", Mesh: "shop", Node: "front",
		Input: xds.Input{
			Graph: graphtest.Graph(t, "mesh.yaml", []byte(text)), TrustDomain: td,
			Endpoints: func(proxy.Ref, uint32) []xds.Endpoint {
				return []xds.Endpoint{{Address: at.IP.String(), Port: uint32(at.Port), Healthy: true}} //nolint:gosec // a port
			},
		},
		Shape: proxy.Shape{Bind: bind, App: "127.0.0.1", Egress: xdstest.EgressOn(bind), AuthzSocket: stub.socket, WayoutSocket: stub.socket, EnvoyVersion: "1.40.0"},
	}
	startProxy(t, front, pki)

	var taken []string
	for _, c := range cases {
		m := r.all(c)
		if !bytes.Equal(bytes.Join(m.bundle, nil), bytes.Join(first.bundle, nil)) {
			continue // of another root: nobody takes it
		}
		showing.Store(&m)
		code := corpus.Status(raw(t, front.Shape.Egress.String(), "GET http://web.shop.internal/q HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
		switch {
		case c.Expect == "reject" && code == 200:
			taken = append(taken, c.ID)
		case c.ID == "ok-basic" && code != 200:
			t.Errorf("a good one: %d", code)
		}
	}
	slices.Sort(taken)
	if !slices.Equal(taken, takenOfServers) {
		t.Errorf("Envoy takes %q of a server; docs/decisions/020 says %q", taken, takenOfServers)
	}
}
