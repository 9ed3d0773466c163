package xdstest_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"signet.example/authz/jwt"
	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	"signet.example/test/corpus"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// rawFrom sends a request from an address of this host.
func rawFrom(t *testing.T, from, addr, request string) *http.Response {
	t.Helper()
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))}
	conn, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // one request
	return corpus.HTTP1(t, conn, request)
}

// forwardedForms are what a caller may say of a caller before it, and of itself.
func forwardedForms() map[string]string {
	forms := map[string]string{
		"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Request-Id": "5f5bd2ab-55b3-4e6e-9a37-00d9b6a9f6a1",
		"X-Amzn-Trace-Id": "Root=1-67891233-abcdef012345678912345678", "Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		"X-Forwarded-Client-Cert": "URI=spiffe://test.example/shop/front", "X-Envoy-Original-Path": "/admin", "X-Signet-Denied": "no",
		"X-Amzn-Oidc-Data": "a.b.c", "X-Amzn-Mtls-Clientcert-Subject": "CN=ana",
	}
	for _, w := range proxy.WithheldHeaders() {
		for _, name := range w.Headers {
			forms[http.CanonicalHeaderKey(name)] = "said"
		}
	}
	forms["X-Forwarded-Port"] = "443"
	return forms
}

func TestAnIngressSaysForWhomItCallsAndNobodyElse(t *testing.T) {
	alb, nginx, stranger := loopback(), loopback(), loopback()
	in := startInbound(t, orders+optionsOf("orders", `ingress: [{name: alb, ranges: [`+alb+`/32]}, {name: nginx, ranges: [`+nginx+`], passes: [host-headers, address-headers]}]`))
	forms := forwardedForms()
	if len(forms) < 40 {
		t.Fatalf("%d forms", len(forms))
	}
	request := "GET /q HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n"
	for name, value := range forms {
		request += name + ": " + value + "\r\n"
	}
	everybody := []string{"Traceparent", "X-Amzn-Trace-Id"}
	believed := append([]string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Request-Id", "X-Amzn-Oidc-Data", "X-Amzn-Mtls-Clientcert-Subject"}, everybody...)
	for from, want := range map[string]struct {
		told   []string
		passes []string
	}{
		alb:      {[]string{"ingress/alb"}, believed},
		nginx:    {[]string{"ingress/nginx"}, append(of(proxy.UnsafeHostHeaders, proxy.UnsafeAddressHeaders), believed...)},
		stranger: {nil, everybody},
	} {
		r := rawFrom(t, from, in.addr, request+"\r\n")
		arrived := in.app.take()
		if corpus.Status(r) != http.StatusOK || len(arrived) != 1 {
			t.Fatalf("from %s: %v, %d arrived", from, r, len(arrived))
		}
		for name, value := range forms {
			got := arrived[0].Header.Values(name)
			if as := slices.Equal(got, []string{value}); as != slices.Contains(want.passes, name) {
				t.Errorf("from %s: %s arrived as %q", from, name, got)
			}
		}
		if got := arrived[0].Header.Get("X-Forwarded-For"); from == stranger && strings.Contains(got, "203.0.113.9") || got == "" {
			t.Errorf("from %s: X-Forwarded-For is %q", from, got)
		}
		if got := in.stub.told.Get(proxy.CallersKey); !slices.Equal(got, want.told) {
			t.Errorf("from %s: the agent is told that callers are %v", from, got)
		}
		if p := in.stub.lastCheck().GetSource(); p.GetPrincipal() != "" {
			t.Errorf("from %s: the agent is told of %q", from, p.GetPrincipal())
		}
	}
}

// of lists the withheld headers of some kinds, as they arrive.
func of(kinds ...string) []string {
	var list []string
	for _, w := range proxy.WithheldHeaders() {
		for _, name := range w.Headers {
			if slices.Contains(kinds, w.Unsafe) {
				list = append(list, http.CanonicalHeaderKey(name))
			}
		}
	}
	return list
}

// A certificate says more than an address, and a strict listener takes nothing else.
func TestAnAddressIsNobodysIdentity(t *testing.T) {
	alb := loopback()
	options := optionsOf("orders", `ingress: [{name: alb, ranges: [`+alb+`]}]`)
	in := startInbound(t, orders+options)
	d := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(alb), 0))},
		Config:    &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*in.pki.svid(t, "spiffe://test.example/shop/front")}}, //nolint:gosec // whom it calls is not the question
	}
	conn, err := d.DialContext(t.Context(), "tcp", in.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // one request
	r := corpus.HTTP1(t, conn, "GET /q HTTP/1.1\r\nHost: orders\r\nX-Forwarded-Proto: gopher\r\nX-Real-Ip: said\r\nConnection: close\r\n\r\n")
	arrived := in.app.take()
	if corpus.Status(r) != http.StatusOK || len(arrived) != 1 || arrived[0].Header.Get("X-Forwarded-Proto") != "https" || arrived[0].Header.Get("X-Real-Ip") != "" {
		t.Errorf("%v, arrived %+v", r, arrived)
	}
	if got := in.stub.told.Get(proxy.CallersKey); len(got) > 0 {
		t.Errorf("the agent is told that a caller with a certificate is %v", got)
	}
	if got := in.stub.lastCheck().GetSource().GetPrincipal(); got != "spiffe://test.example/shop/front" {
		t.Errorf("the agent is told of %q", got)
	}

	strict := startInbound(t, strings.Replace(orders, "{port: PORT, protocol: http}\n  backends", "{port: PORT, protocol: http}\n      tls: {mode: STRICT, certificate: {acm: {certificateARN: a}}}\n  backends", 1)+options)
	if r := rawFrom(t, alb, strict.addr, get+"\r\n"); r != nil {
		t.Errorf("a strict listener answered plaintext: %v", r)
	}
}

// There is no application behind a gateway that a load balancer could ask: it answers itself.
func TestAGatewayAnswersItsLoadBalancer(t *testing.T) {
	alb := loopback()
	mesh := edgeTLS + "---\napiVersion: signet.example/v1alpha1\nkind: VirtualGatewayOptions\nmetadata: {name: edge}\nspec: {listeners: [{port: PORT, ingress: [{name: alb, ranges: [" + alb + "], healthCheckPath: /up}]}]}\n"
	var seen []*http.Request
	serve := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = append(seen, r) })
	c := startCaller(t, mesh, []string{"s"}, callee{"n", plain("http"), serve})
	p := &gatewayPair{at: loopback(), pki: newPKI(t), caller: c}
	_, edge := p.cases(t, mesh)
	startProxy(t, edge, p.pki)
	at := net.JoinHostPort(p.at, strconv.FormatUint(uint64(c.port), 10))
	if code := corpus.Status(rawFrom(t, alb, at, "GET /up HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")); code != http.StatusOK || len(seen) > 0 {
		t.Errorf("its health check: %d, and the service saw %d", code, len(seen))
	}
	if path := c.stub.lastCheck().GetRequest().GetHttp().GetPath(); path != "/up" || !slices.Equal(c.stub.told.Get(proxy.CallersKey), []string{"ingress/alb"}) {
		t.Errorf("the agent was asked about %q of %v", path, c.stub.told)
	}
	if code := corpus.Status(rawFrom(t, alb, at, "GET /x HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n")); code != http.StatusOK || len(seen) != 1 ||
		!strings.HasPrefix(seen[0].Header.Get("X-Forwarded-For"), "203.0.113.9") {
		t.Errorf("%d, the service saw %v", code, seen)
	}
}

// proxyV2 is the header of the PROXY protocol, version 2, of a client of IPv4; without one it
// is the load balancer's own connection.
func proxyV2(client string) string {
	header := "\r\n\r\n\x00\r\nQUIT\n"
	if client == "" {
		return header + "\x20\x00\x00\x00"
	}
	a, here := netip.MustParseAddr(client).As4(), [4]byte{10, 0, 0, 1}
	return header + "\x21\x11\x00\x0c" + string(a[:]) + string(here[:]) + "\x30\x39\x01\xbb"
}

// Before the first byte of a client a load balancer of connections says who it is. That is
// believed of no other, and it is nobody's name.
func TestALoadBalancerOfConnectionsSaysWhoItsClientIsAndNobodyElse(t *testing.T) {
	nlb, stranger := loopback(), loopback()
	announced := func(port string) string {
		return "{port: " + port + ", proxyProtocol: true, ingress: [{name: nlb, ranges: [" + nlb + "], healthCheckPath: /up}]}"
	}
	mesh := edgeTLS + "---\napiVersion: signet.example/v1alpha1\nkind: VirtualGatewayOptions\nmetadata: {name: edge}\nspec: {listeners: [" + announced("PORT") + ", " + announced("1444") + "]}\n"
	seen := make(chan http.Header, 16)
	serve := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header })
	c := startCaller(t, mesh, []string{"s"}, callee{"n", plain("http"), serve})
	p := &gatewayPair{at: loopback(), pki: newPKI(t), caller: c}
	_, edge := p.cases(t, mesh)
	startProxy(t, edge, p.pki)
	at := net.JoinHostPort(p.at, strconv.FormatUint(uint64(c.port), 10))
	const request = "GET /x HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\nX-Real-Ip: 198.51.100.1\r\nX-Amzn-Oidc-Identity: ana\r\nConnection: close\r\n\r\n"
	for what, one := range map[string]struct{ header, client string }{
		"version 1": {"PROXY TCP4 203.0.113.9 10.0.0.1 12345 443\r\n", "203.0.113.9"},
		"version 2": {proxyV2("203.0.113.10"), "203.0.113.10"},
		"its own":   {proxyV2(""), nlb},
		"as if it were an ingress, by what it says": {proxyV2(nlb), nlb},
	} {
		if code := corpus.Status(rawFrom(t, nlb, at, one.header+request)); code != http.StatusOK || len(seen) != 1 {
			t.Errorf("%s: %d, the service saw %d", what, code, len(seen))
			continue
		}
		// What its client wrote of a client is gone.
		if h := <-seen; !strings.HasPrefix(h.Get("X-Forwarded-For"), one.client) || strings.Contains(h.Get("X-Forwarded-For"), "198.51.100.1") || h.Get("X-Forwarded-Proto") != "http" || h.Get("X-Real-Ip")+h.Get("X-Amzn-Oidc-Identity") != "" {
			t.Errorf("%s: the service saw %v", what, h)
		}
		if told := c.stub.told.Get(proxy.CallersKey); !slices.Equal(told, []string{"ingress/nlb"}) || c.stub.lastCheck().GetSource().GetPrincipal() != "" {
			t.Errorf("%s: the agent is told of %v", what, told)
		}
		// Nor does it say to which port: rules and exemptions go by the listener's own.
		if told := c.stub.told.Get(proxy.PortKey); !slices.Equal(told, []string{strconv.FormatUint(uint64(c.port), 10)}) {
			t.Errorf("%s: the agent is told that it came to port %v", what, told)
		}
	}
	if code := corpus.Status(rawFrom(t, nlb, at, proxyV2("203.0.113.9")+"GET /up HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")); code != http.StatusOK || len(seen) > 0 {
		t.Errorf("its health check: %d", code)
	}
	if end := c.stub.lastCheck().GetDestination().GetAddress().GetSocketAddress().GetPortValue(); end != 443 {
		t.Errorf("to Envoy the connection came to port %d, and not to that of the header: the port above tries nothing", end)
	}
	// Nobody else is answered, whatever he says that he is, and the load balancer not without it.
	for what, one := range map[string]struct{ from, text string }{
		"a stranger":                    {stranger, request},
		"one who says it is for others": {stranger, proxyV2("203.0.113.9") + request},
		"one who says he is of it":      {stranger, proxyV2(nlb) + request},
		"the same in version 1":         {stranger, "PROXY TCP4 " + nlb + " 10.0.0.1 12345 443\r\n" + request},
		"its connection without it":     {nlb, request},
	} {
		if r := rawFrom(t, one.from, at, one.text); r != nil || len(seen) > 0 {
			t.Errorf("%s: %v", what, r)
		}
	}

	// A client behind it who has a certificate is who that says, and says nothing of another one.
	front := *p.pki.svid(t, "spiffe://test.example/shop/front")
	secure := net.JoinHostPort(p.at, "1444")
	if r, err := tlsFrom(t, nlb, secure, proxyV2("203.0.113.11"), request, front); err != nil || corpus.Status(r) != http.StatusOK || len(seen) != 1 {
		t.Fatalf("by mTLS: %v, %v", r, err)
	}
	if h := <-seen; !strings.HasPrefix(h.Get("X-Forwarded-For"), "203.0.113.11") || strings.Contains(h.Get("X-Forwarded-For"), "198.51.100.1") || h.Get("X-Amzn-Oidc-Identity") != "" ||
		c.stub.lastCheck().GetSource().GetPrincipal() != "spiffe://test.example/shop/front" || len(c.stub.told.Get(proxy.CallersKey)) > 0 {
		t.Errorf("by mTLS: %v, %v", h, c.stub.told)
	}
	if r, err := tlsFrom(t, stranger, secure, proxyV2(nlb), request, front); err == nil {
		t.Errorf("from elsewhere by mTLS: %v", r)
	}
}

// tlsFrom sends a request by TLS from an address of this host, after what goes before it.
func tlsFrom(t *testing.T, from, addr, before, request string, certificates ...tls.Certificate) (*http.Response, error) {
	t.Helper()
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))}
	conn, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // one request
	if _, err := conn.Write([]byte(before)); err != nil {
		return nil, err
	}
	over := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, Certificates: certificates}) //nolint:gosec // whom it calls is not the question
	if err := over.HandshakeContext(t.Context()); err != nil {
		return nil, err
	}
	return corpus.HTTP1(t, over, request), nil
}

// Where an ingress is declared, others say for whom they call only if they have an identity.
func TestTLSAloneSaysNothingOfACallerBeforeIt(t *testing.T) {
	alb, caller := loopback(), loopback()
	const request = "GET /q HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.1\r\nConnection: close\r\n\r\n"
	ingress := "ingress: [{name: alb, ranges: [" + alb + "]}]"
	keeps := func(what, addr string, app func() []*http.Request, certificates ...tls.Certificate) bool {
		t.Helper()
		r, err := tlsFrom(t, caller, addr, "", request, certificates...)
		arrived := app()
		if err != nil || corpus.Status(r) != http.StatusOK || len(arrived) != 1 {
			t.Fatalf("%s: %v, %v, %d arrived", what, r, err, len(arrived))
		}
		return strings.Contains(arrived[0].Header.Get("X-Forwarded-For"), "198.51.100.1")
	}
	for options, want := range map[string]bool{"": true, optionsOf("orders", ingress): false} {
		in := startInbound(t, orders+options)
		if front := *in.pki.svid(t, "spiffe://test.example/shop/front"); !keeps("by mTLS", in.addr, in.app.take, front) {
			t.Errorf("%q: a caller with an identity lost for whom it calls", options)
		}
		in = startInbound(t, ofFiles+options)
		if got := keeps("by a file's authority", in.addr, in.app.take, *in.pki.files(t).named(t, nil, "front.shop")); got != want {
			t.Errorf("%q: a caller by a file's authority said for whom it calls: %t", options, got)
		}
	}
	for options, want := range map[string]bool{"": true, "---\napiVersion: signet.example/v1alpha1\nkind: VirtualGatewayOptions\nmetadata: {name: edge}\nspec: {listeners: [{port: 1443, " + ingress + "}]}\n": false} {
		var seen []*http.Request
		c := startCaller(t, edgeTLS+options, []string{"s"}, callee{"n", plain("http"), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = append(seen, r) })})
		p := &gatewayPair{at: loopback(), pki: newPKI(t), caller: c}
		_, edge := p.cases(t, edgeTLS+options)
		startProxy(t, edge, p.pki)
		if got := keeps("without a certificate", net.JoinHostPort(p.at, "1443"), func() []*http.Request { return seen }); got != want {
			t.Errorf("%q: a caller without a certificate said for whom it calls: %t", options, got)
		}
	}
}

// An application believes who its user is, and most of it is not signed: the agent has it taken
// from whoever is no load balancer, and passes none on. The load balancer of connections has its
// clients' taken.
func TestWhoItsUserIsAnApplicationHearsFromAnIngressAndWhoPassesItOn(t *testing.T) {
	const request = "GET /q HTTP/1.1\r\nHost: x\r\nX-Amzn-Oidc-Identity: ana\r\nX-Amzn-Oidc-Identity: eve\r\nX-AMZN-OIDC-ACCESSTOKEN: t\r\nX-Amzn-Mtls-Clientcert-Subject: CN=ana\r\nX-Amzn-Trace-Id: Root=1\r\nConnection: close\r\n\r\n"
	alb, unmoved, mtls, stranger := loopback(), loopback(), loopback(), loopback()
	login, err := jwt.ALBSpec{
		Issuer: "https://login.example", Clients: []string{"c"}, Signers: []string{"arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/front/50dc6c495c0c9188"},
		Ingress: []string{"alb"}, Callers: []string{"spiffe://test.example/shop/edge"},
	}.Build("login")
	if err != nil {
		t.Fatal(err)
	}
	decider, revision := startAllowAll(t, "spiffe://test.example/shop/orders", login)
	in := &inbound{app: startApplication(t), pki: newPKI(t)}
	bind := loopback()
	in.addr = net.JoinHostPort(bind, in.app.portText())
	of := func(annotation, options string) xdstest.Case {
		manifest := strings.Replace(strictCallee, "metadata: {name: shop}", "metadata: {name: shop, annotations: {"+annotation+"}}", 1) + options
		return xdstest.Case{
			Name: "users", Mesh: "shop", Node: "orders",
			Input: xds.Input{Graph: graphtest.Graph(t, "mesh.yaml", []byte(strings.ReplaceAll(manifest, "PORT", in.app.portText()))), TrustDomain: xdstest.TrustDomain, PolicyRevision: revision},
			Shape: proxy.Shape{Bind: bind, App: in.app.address, Egress: xdstest.EgressOn(bind), AuthzSocket: decider.socket, WayoutSocket: decider.socket, EnvoyVersion: "1.40.0"},
		}
	}
	in.proxy = startProxy(t, of("", optionsOf("orders", "ingress: [{name: alb, ranges: ["+alb+"]}, {name: unmoved, ranges: ["+unmoved+"]}, {name: mtls, ranges: ["+mtls+"], passes: [user-headers]}]")), in.pki)
	heard := func(r *http.Response) bool {
		t.Helper()
		arrived := in.app.take()
		if corpus.Status(r) != http.StatusOK || len(arrived) != 1 || arrived[0].Header.Get("X-Amzn-Trace-Id") != "Root=1" {
			t.Fatalf("%v, arrived %+v", r, arrived)
		}
		n := 0
		for name, values := range arrived[0].Header {
			if strings.HasPrefix(name, "X-Amzn-Oidc-") || strings.HasPrefix(name, "X-Amzn-Mtls-") {
				n += len(values)
			}
		}
		if n != 0 && n != 4 {
			t.Errorf("part of it arrived: %v", arrived[0].Header)
		}
		return n > 0
	}
	byMTLS := func(name string) *http.Response {
		r, err := tlsFrom(t, stranger, in.addr, "", request, *in.pki.svid(t, "spiffe://test.example/shop/"+name))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if !heard(rawFrom(t, alb, in.addr, request)) {
		t.Error("not from the load balancer")
	}
	if !heard(rawFrom(t, mtls, in.addr, request)) {
		t.Error("not from an ingress that passes it")
	}
	if heard(rawFrom(t, unmoved, in.addr, request)) {
		t.Error("from a neighbour that has not moved")
	}
	if heard(rawFrom(t, stranger, in.addr, request)) {
		t.Error("from a stranger")
	}
	if !heard(byMTLS("edge")) {
		t.Error("not from a caller who passes it on")
	}
	if heard(byMTLS("web")) {
		t.Error("from any caller of the mesh")
	}
	// Without an ingress Envoy takes nothing away by itself.
	in.proxy.publish(of("", ""), in.pki)
	in.proxy.settle()
	if heard(rawFrom(t, stranger, in.addr, request)) || heard(rawFrom(t, alb, in.addr, request)) {
		t.Error("from somebody where there is no ingress")
	}
	in.proxy.publish(of("signet.example/unsafe: user-headers", optionsOf("orders", "ingress: [{name: alb, ranges: ["+alb+"]}]")), in.pki)
	in.proxy.settle()
	if !heard(rawFrom(t, stranger, in.addr, request)) || !heard(byMTLS("web")) {
		t.Error("not where the mesh lets it through")
	}
}
