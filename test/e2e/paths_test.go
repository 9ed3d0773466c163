package e2e

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"signet.example/test/corpus"
	"signet.example/test/meshtest"
)

// openButAdmin is what a user would write who thinks of one path and one header.
const openButAdmin = `package signet.authz

allow contains "everything" if true

deny contains "nobody reaches the admin pages" if input.request.segments[0] == "admin"

deny contains "administrators use another way" if input.request.headers["x-role"][_] == "admin"
`

// door is an inbound listener, and the application behind it, as a member of the
// mesh meets them without a proxy of its own: with any bytes it likes.
type door struct {
	t       *testing.T
	w       *meshtest.World
	address string
	cert    *tls.Certificate
	app     *recorder
}

func openDoor(t *testing.T) *door {
	t.Helper()
	app := &recorder{}
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"front", "back"}, Apps: map[string]meshtest.App{"back": app},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "back"),
			meshtest.VirtualNode("back", meshtest.Strict("test.example", "back")), meshtest.ServiceOfNode("back", "back"), fmt.Sprintf(tester, uid())),
		Policy: map[string]string{"open.rego": openButAdmin},
	})
	w.AwaitRoute("front", "http://"+meshtest.HostOf("back")+"/")
	app.take()
	return &door{
		t: t, w: w, address: net.JoinHostPort(w.Nodes["back"].Bind, strconv.Itoa(meshtest.AppPort)),
		cert: certificate(t, identity(t, w)), app: app,
	}
}

// connect by TLS with the test's own SVID; protocol is an ALPN name or "".
func (d *door) connect(protocol string) *tls.Conn {
	d.t.Helper()
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, Certificates: []tls.Certificate{*d.cert}} //nolint:gosec // the server is what is tested
	if protocol != "" {
		cfg.NextProtos = []string{protocol}
	}
	conn, err := tls.Dial("tcp", d.address, cfg)
	if err != nil {
		d.t.Fatal(err)
	}
	return conn
}

// send a request's bytes; the status, 0 for none, and what arrived.
func (d *door) send(request string) (int, []arrival) {
	d.t.Helper()
	conn := d.connect("")
	defer func() { _ = conn.Close() }() // one request
	return corpus.Status(corpus.HTTP1(d.t, conn, request)), d.app.take()
}

// send2 sends header fields as HTTP/2 frames.
func (d *door) send2(fields ...[2]string) (int, []arrival) {
	d.t.Helper()
	conn := d.connect("h2")
	defer func() { _ = conn.Close() }() // one request
	return corpus.HTTP2(d.t, conn, fields...), d.app.take()
}

// sendTo a target by either version.
func (d *door) sendTo(version, target string) (int, []arrival) {
	if version == "HTTP/2" {
		return d.send2(ordinary(target)...)
	}
	return d.send("GET " + target + " HTTP/1.1\r\nHost: back\r\nConnection: close\r\n\r\n")
}

func ordinary(target string, more ...[2]string) [][2]string {
	return append([][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "back"}, {":path", target}}, more...)
}

func TestNoReadingOfAnyRequestReachesWhatIsDenied(t *testing.T) {
	d := openDoor(t)
	for version, control := range map[string]string{"HTTP/1.1": "/orders", "HTTP/2": "/orders"} {
		if status, arrived := d.sendTo(version, control); status != http.StatusOK || len(arrived) != 1 || arrived[0].target() != control {
			t.Fatalf("the control by %s: %d, arrived %v", version, status, arrived)
		}
		if status, arrived := d.sendTo(version, "/admin"); status != http.StatusForbidden || len(arrived) != 0 {
			t.Fatalf("/admin by %s: %d, arrived %v", version, status, arrived)
		}
	}
	t.Run("paths", d.paths)
	t.Run("headers and request lines", d.rows)
	t.Run("a header of two values", d.roles)
	t.Run("headers that are ours", d.spoofed)
}

func (d *door) paths(t *testing.T) {
	rows := append(corpus.Rows(t, "path"), corpus.Ours...)
	passed, refused := map[string]int{}, map[string]int{}
	for _, target := range rows {
		for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
			if version == "HTTP/2" && !strings.HasPrefix(target, "/") {
				continue // not a :path (RFC 9113 section 8.3.1): the connection ends
			}
			status, arrived := d.sendTo(version, target)
			if (status == http.StatusOK) != (len(arrived) == 1) || len(arrived) > 1 {
				t.Errorf("%s %q: %d, but %d arrived", version, target, status, len(arrived))
			}
			if status == http.StatusOK {
				passed[version]++
			} else {
				refused[version]++
			}
			if corpus.MustPass[target] && status != http.StatusOK {
				t.Errorf("%s %q: %d, want it to pass", version, target, status)
			}
			for _, a := range arrived {
				if how := corpus.Under(a.target(), "/admin"); how != "" {
					t.Errorf("%s %q arrived as %q, which is under /admin for an application that %s", version, target, a.line, how)
				}
			}
		}
	}
	t.Logf("%d paths: passed %v, refused %v", len(rows), passed, refused)
}

// start of a request whose headers are under test; the empty line follows.
const start = "GET /q HTTP/1.1\r\nHost: back\r\nConnection: close\r\n"

// lines are the shared corpus's rows that are not paths, as bytes, and whether
// such a request may pass. What must be true of one that did is in harmless.
var lines = map[string]struct {
	request string
	passes  bool
}{
	"header x_role underscore":  {start + "x_role: admin\r\n\r\n", false},
	"header X-Role case":        {start + "X-Role: admin\r\n\r\n", false},
	"header x-role with comma":  {start + "x-role: user,admin\r\n\r\n", false},
	"header nul in value":       {start + "x-role: ad\x00min\r\n\r\n", false},
	"header space before colon": {start + "x-role : admin\r\n\r\n", false},
	"header xfcc from client":   {start + "x-forwarded-client-cert: URI=spiffe://test.example/test/forged\r\n\r\n", true},
	"header TE+CL":              {"POST /q HTTP/1.1\r\nHost: back\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nHost: back\r\n\r\n", false},
	"header x-envoy-internal":   {start + "x-envoy-internal: forged\r\n\r\n", true},
	"header latin1 value":       {start + "x-role: \xe9\r\n\r\n", false},
	"header host port":          {"GET /q HTTP/1.1\r\nHost: back:8443\r\nConnection: close\r\n\r\n", true},
	"line bare LF":              {"GET /admin HTTP/1.1\nHost: back\nConnection: close\n\n", false},
	"line CONNECT":              {"CONNECT back:443 HTTP/1.1\r\nHost: back:443\r\n\r\n", false},
	"line absolute upper host":  {"GET http://H/q HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", true},
	"line method junk":          {"G(ET /q HTTP/1.1\r\nHost: back\r\nConnection: close\r\n\r\n", false},
	"ours two hosts":            {"GET /q HTTP/1.1\r\nHost: back\r\nHost: evil\r\nConnection: close\r\n\r\n", false},
	"ours folded role":          {start + "x-role: user,\r\n admin\r\n\r\n", false},
	"ours CL twice":             {"POST /q HTTP/1.1\r\nHost: back\r\nContent-Length: 0\r\nContent-Length: 40\r\n\r\nGET /admin HTTP/1.1\r\nHost: back\r\n\r\n", false},
	"ours unknown TE":           {"POST /q HTTP/1.1\r\nHost: back\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", false},
	"ours pipelined admin":      {"GET /q HTTP/1.1\r\nHost: back\r\n\r\nGET /admin HTTP/1.1\r\nHost: back\r\nConnection: close\r\n\r\n", true},
}

func (d *door) rows(t *testing.T) {
	for _, kind := range []string{"header", "line"} {
		for _, row := range corpus.Rows(t, kind) {
			if _, ok := lines[kind+" "+row]; !ok {
				t.Errorf("no request for row %s %q of the shared corpus", kind, row)
			}
		}
	}
	passed := 0
	for name, l := range lines {
		status, arrived := d.send(l.request)
		if (status == http.StatusOK) != l.passes || l.passes != (len(arrived) == 1) {
			t.Errorf("%s: %d, %d arrived, want it to pass: %t", name, status, len(arrived), l.passes)
		}
		passed += len(arrived)
		for _, a := range arrived {
			d.harmless(t, name, a)
		}
	}
	t.Logf("%d header and line rows: %d passed, %d refused", len(lines), passed, len(lines)-passed)
}

// harmless is what must hold of every request that reached the application.
func (d *door) harmless(t *testing.T, name string, a arrival) {
	t.Helper()
	if how := corpus.Under(a.target(), "/admin"); how != "" {
		t.Errorf("%s: arrived as %q, which is under /admin for an application that %s", name, a.line, how)
	}
	if slices.Contains(a.tokens("x-role"), "admin") {
		t.Errorf("%s: arrived as administrator: %v", name, a.headers)
	}
	for header, values := range a.headers {
		if strings.Contains(strings.Join(values, " "), "forged") {
			t.Errorf("%s: the caller's own %s arrived: %q", name, header, values)
		}
	}
	if xfcc := a.headers.Values("X-Forwarded-Client-Cert"); len(xfcc) != 1 || strings.Count(xfcc[0], "URI=") != 1 ||
		!strings.HasSuffix(xfcc[0], "URI=spiffe://test.example/test/tester") {
		t.Errorf("%s: the application is told that the caller is %q", name, xfcc)
	}
}

// roles are ways to say two values of one header, one of them denied.
var roles = map[string][][2]string{
	"denied alone":              {{"x-role", "admin"}},
	"denied last":               {{"x-role", "user"}, {"x-role", "admin"}},
	"denied first":              {{"x-role", "admin"}, {"x-role", "user"}},
	"comma":                     {{"x-role", "user,admin"}},
	"comma, swapped":            {{"x-role", "admin,user"}},
	"comma and space":           {{"x-role", "user, admin"}},
	"commas, tabs and nothing":  {{"x-role", "user,,\tadmin\t,"}},
	"a list and a line":         {{"x-role", "user,guest"}, {"x-role", "admin"}},
	"a line and a list":         {{"x-role", "user"}, {"x-role", "guest , admin"}},
	"names of mixed case":       {{"X-Role", "user"}, {"x-ROLE", "admin"}},
	"apart":                     {{"x-role", "user"}, {"accept", "*/*"}, {"x-role", "admin"}},
	"an empty one first":        {{"x-role", ""}, {"x-role", "admin"}},
	"forty harmless ones first": append(slices.Repeat([][2]string{{"x-role", "user"}}, 40), [2]string{"x-role", "admin"}),
}

func (d *door) roles(t *testing.T) {
	if status, arrived := d.send(start + "x-role: user\r\nX-Role: guest\r\n\r\n"); status != http.StatusOK || len(arrived) != 1 || !slices.Equal(arrived[0].tokens("x-role"), []string{"user", "guest"}) {
		t.Fatalf("the control: %d, arrived %v", status, arrived)
	}
	for name, headers := range roles {
		request, lower := start, [][2]string(nil)
		for _, h := range headers {
			request += h[0] + ": " + h[1] + "\r\n"
			lower = append(lower, [2]string{strings.ToLower(h[0]), strings.TrimSpace(h[1])})
		}
		if status, arrived := d.send(request + "\r\n"); status != http.StatusForbidden || len(arrived) > 0 {
			t.Errorf("%s by HTTP/1.1: %d, arrived %v", name, status, arrived)
		}
		if status, arrived := d.send2(ordinary("/q", lower...)...); status != http.StatusForbidden || len(arrived) > 0 {
			t.Errorf("%s by HTTP/2: %d, arrived %v", name, status, arrived)
		}
	}
	if status, arrived := d.send2(ordinary("/q", [2]string{"X-Role", "admin"})...); status == http.StatusOK || len(arrived) > 0 {
		t.Errorf("a name in upper case by HTTP/2: %d, arrived %v", status, arrived)
	}
}

// forgeries are headers by which a caller would speak in a proxy's name.
var forgeries = []string{
	"x-forwarded-client-cert", "x-envoy-internal", "x-envoy-original-path", "x-envoy-original-host", "x-envoy-external-address",
	"x-envoy-downstream-service-cluster", "x-envoy-downstream-service-node", "x-envoy-decorator-operation", "x-envoy-peer-metadata",
	"x-envoy-upstream-rq-timeout-ms", "x-envoy-upstream-rq-per-try-timeout-ms", "x-envoy-expected-rq-timeout-ms", "x-envoy-retry-on", "x-envoy-max-retries",
	"x-envoy-upstream-alt-stat-name", "x-envoy-hedge-on-per-try-timeout", "x-envoy-force-trace", "x-envoy-ip-tags", "x-envoy-attempt-count",
	"x-signet-decision-id", "x-signet-denied", "x-signet-spiffe-id", "x-signet-policy-revision",
}

var proxies = regexp.MustCompile(`^X-(Envoy|Signet)-`)

func (d *door) spoofed(t *testing.T) {
	one := func(name string, status int, arrived []arrival) {
		t.Helper()
		if status != http.StatusOK || len(arrived) != 1 {
			t.Errorf("%s: %d, arrived %v", name, status, arrived)
			return
		}
		d.harmless(t, name, arrived[0])
	}
	value := "forged;URI=spiffe://test.example/test/forged"
	for _, h := range forgeries {
		for form, request := range map[string]string{
			"once":         start + h + ": " + value + "\r\n\r\n",
			"twice":        start + h + ": " + value + "\r\n" + strings.ToUpper(h) + ": " + value + "\r\n\r\n",
			"as a hop's":   "GET /q HTTP/1.1\r\nHost: back\r\n" + h + ": " + value + "\r\nConnection: close, " + h + "\r\n\r\n",
			"only removed": "GET /q HTTP/1.1\r\nHost: back\r\nConnection: close, " + h + "\r\n\r\n",
		} {
			status, arrived := d.send(request)
			if strings.Contains(request, "close, ") && status == http.StatusBadRequest && len(arrived) == 0 {
				continue // a proxy may refuse to have its own header taken away
			}
			one(h+" "+form, status, arrived)
		}
		status, arrived := d.send2(ordinary("/q", [2]string{h, value})...)
		one(h+" by HTTP/2", status, arrived)
		if status, arrived := d.send(start + strings.ReplaceAll(h, "-", "_") + ": " + value + "\r\n\r\n"); status == http.StatusOK || len(arrived) > 0 {
			t.Errorf("%s with underscores: %d, arrived %v", h, status, arrived)
		}
	}
	// What the application sees of a proxy's headers is the same whoever asks.
	_, plain := d.send(start + "\r\n")
	var own []string
	for h := range plain[0].headers {
		if proxies.MatchString(h) {
			own = append(own, h)
		}
	}
	slices.Sort(own)
	t.Logf("%d headers, none arrived; the proxy's own are %v", len(forgeries), own)
	// By way of a proxy the caller is that proxy's identity, whatever the application says.
	a, err := meshtest.Do(t, d.w.Client("front"), http.MethodGet, "http://"+meshtest.HostOf("back")+"/q", "X-Forwarded-Client-Cert", value, "X-Envoy-Internal", "forged")
	arrived := d.app.take()
	if err != nil || a.Status != http.StatusOK || len(arrived) != 1 || !strings.HasSuffix(arrived[0].headers.Get("X-Forwarded-Client-Cert"), "URI=spiffe://test.example/test/front") ||
		strings.Contains(fmt.Sprint(arrived[0].headers), "forged") {
		t.Errorf("through a proxy: %d %v, arrived %v", a.Status, err, arrived)
	}
}
