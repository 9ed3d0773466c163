package xdstest_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"signet.example/test/corpus"
)

var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func TestNativeDenialsHaveAnIDAClassAndARecord(t *testing.T) {
	in := startInbound(t, orders)
	ask := func(path string) *http.Response {
		return raw(t, in.addr, "GET "+path+" HTTP/1.1\r\nHost: orders\r\nx-request-id: 00000000-0000-4000-8000-000000000000\r\nConnection: close\r\n\r\n")
	}
	// The agent's own denial is left as it is.
	if r := ask("/admin"); corpus.Status(r) != 403 || r.Header.Get("X-Signet-Denied") != "policy" ||
		r.Header.Get("X-Signet-Decision-Id") != "00000000000000000000000000000001" || r.Header.Get(corpus.BodyHeader) != "denied: policy\n" {
		t.Errorf("the agent's denial: %v", r)
	}
	// What passes is stamped, and an application cannot pretend to deny.
	if r := ask("/ok"); corpus.Status(r) != 200 || r.Header.Get("X-Signet-Denied") != "" || r.Header.Get("X-Signet-Decision-Id") != "" {
		t.Errorf("an allowed request: %v", r)
	}
	if rev := in.stub.lastCheck().GetContextExtensions()["signet.policy_revision"]; rev != "rev-7" {
		t.Errorf("stamped with %q", rev)
	}
	in.app.take()

	ids := map[string]bool{}
	denied := func(path string, code int, class string) string {
		t.Helper()
		r := ask(path)
		id := r.Header.Get("X-Signet-Decision-Id")
		if corpus.Status(r) != code || r.Header.Get("X-Signet-Denied") != class || !uuid.MatchString(id) || strings.HasPrefix(id, "00000000") {
			t.Errorf("%s: %d %v", path, corpus.Status(r), r.Header)
		}
		if want := "denied: " + class + ", decision " + id + "\n"; r.Header.Get(corpus.BodyHeader) != want {
			t.Errorf("%s: body %q, want %q", path, r.Header.Get(corpus.BodyHeader), want)
		}
		if ids[id] {
			t.Errorf("%s: the id %s was used before", path, id)
		}
		ids[id] = true
		return id
	}
	logged := func(id string) {
		t.Helper()
		eventually(t, "the record of "+id, func() bool { return strings.Contains(in.proxy.envoy.Log(), id) })
	}
	logged(denied("/a;b?token=secret", 400, "ambiguous"))
	denied("/reroute", 500, "error") // the answer tries to change :path
	in.stub.stop()
	logged(denied("/ok?token=secret", 503, "unavailable"))
	logged(denied("/", 503, "unavailable"))
	if arrived := in.app.take(); len(arrived) > 0 {
		t.Errorf("%d denied requests arrived", len(arrived))
	}
	if strings.Contains(in.proxy.envoy.Log(), "secret") {
		t.Error("a record holds a query")
	}
}
