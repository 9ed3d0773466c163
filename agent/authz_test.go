package agent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"

	"signet.example/agent"
	"signet.example/api"
	"signet.example/internal/child"
	"signet.example/proxy"
	"signet.example/test/parts"
	"signet.example/test/peertest"
)

const allowReads = `package signet.authz

allow contains "reads" if input.request.method == "GET"
`

// check asks as this process, and waits as a proxy does; "" stands for no answer.
func (r *rig) check(client authv3.AuthorizationClient, method, revision string) (codes.Code, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), proxy.AnswerWithin)
	defer cancel()
	answer, err := client.Check(ctx, peertest.Present(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: map[string]string{"signet.policy_revision": revision},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: method, Path: "/orders", Host: "orders", Scheme: "https", Protocol: "HTTP/1.1",
			HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
				{Key: ":method", RawValue: []byte(method)},
				{Key: ":path", RawValue: []byte("/orders")},
				{Key: ":authority", RawValue: []byte("orders")},
				{Key: ":scheme", RawValue: []byte("https")},
			}},
		}},
	}}, "spiffe://test.example/shop/caller"))
	if err != nil {
		return 0, "", err
	}
	id := ""
	for _, h := range answer.GetDeniedResponse().GetHeaders() {
		if h.GetHeader().GetKey() == "x-signet-decision-id" {
			id = h.GetHeader().GetValue() + string(h.GetHeader().GetRawValue())
		}
	}
	return codes.Code(answer.GetStatus().GetCode()), id, nil //nolint:gosec // never negative
}

// authzPID finds the agent's authz process among this process's children.
func authzPID(t testing.TB) int {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			continue
		}
		for pid := range strings.FieldsSeq(string(b)) {
			cmdline, err := os.ReadFile("/proc/" + pid + "/cmdline")
			if err == nil && slices.Contains(strings.Split(string(cmdline), "\x00"), "authz") {
				n, err := strconv.Atoi(pid)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
		}
	}
	return 0
}

func newAuthzRig(t *testing.T) (*rig, *api.PolicyRevision, authv3.AuthorizationClient) {
	t.Helper()
	allow := revision(t, allowReads)
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{binding("web", "web", self(t)), entry("one", "/shop/one", self(t))}
		f.policies = []*api.PolicyRevision{allow}
	})
	r.ready(allow.GetId())
	return r, allow, authv3.NewAuthorizationClient(r.dial("authz.sock"))
}

func TestABoundProxyIsAnsweredAndItsDenialCanBeExplained(t *testing.T) {
	r, allow, client := newAuthzRig(t)
	if c, _, err := r.check(client, "GET", allow.GetId()); err != nil || c != codes.OK {
		t.Errorf("GET: %v %v", c, err)
	}
	c, id, err := r.check(client, "POST", allow.GetId())
	if err != nil || c == codes.OK || id == "" {
		t.Fatalf("POST: %v id %q %v", c, id, err)
	}
	r.explain <- id
	select {
	case a := <-r.answers:
		d := a.GetDecision()
		if d.GetId() != id || d.GetCause() != api.Cause_CAUSE_POLICY || d.GetDestination() != "spiffe://test.example/shop/web" || d.GetCommit() != "c0ffee" {
			t.Errorf("explained as %v", d)
		}
		if len(d.GetFailed()) != 1 || d.GetFailed()[0].GetName() != "reads" {
			t.Errorf("failed rules: %v", d.GetFailed())
		}
	case <-time.After(5 * time.Second):
		t.Error("no explanation")
	}
	r.explain <- "00000000000000000000000000000000"
	if a := <-r.answers; a.GetDecision() != nil {
		t.Errorf("explained what is not there: %v", a)
	}
	r.await("the metric", func() bool { return r.metric(`signet_authz_decisions_total{cause="policy",result="denied"}`) == "1" })
}

// executableForAll is this test's program where other users reach it.
func executableForAll(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "signet")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	name := filepath.Join(dir, "agent.test")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(name, b, 0o755), os.Chmod(name, 0o755)); err != nil {
		t.Fatal(err)
	}
	return name
}

// The process that decides is ended before the one with the keys: as another user
// where there may be one, whose /proc/self is not its own after it is confined.
func TestTheAuthzProcessIsEndedFirstWhereMemoryIsShort(t *testing.T) {
	uid := uint32(os.Geteuid()) //nolint:gosec // a uid has 32 bits
	if uid == 0 {
		uid = 64991
	}
	r := newRig(t, nil, func(c *agent.Config) {
		if os.Geteuid() == 0 {
			c.Authz.User, c.Executable = strconv.Itoa(int(uid)), executableForAll(t)
		}
	})
	r.await("its score", func() bool {
		proc := "/proc/" + strconv.Itoa(authzPID(t))
		status, err := os.ReadFile(proc + "/status")
		if err != nil || !strings.Contains(string(status), fmt.Sprintf("\nUid:\t%d\t", uid)) {
			return false
		}
		score, err := os.ReadFile(proc + "/oom_score_adj")
		return err == nil && string(score) == "500\n"
	})
}

// The program lies where no other user may enter, as tests' do.
func TestTheAuthzProcessOfARootAgentIsNotRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		parts.Missing(t, "root: the rule for an agent that is root")
	}
	r, allow, client := newAuthzRig(t)
	for range 2 {
		pid := authzPID(t)
		status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitSeq(string(status), "\n") {
			if f := strings.Fields(line); len(f) > 0 && (f[0] == "Uid:" || f[0] == "Gid:" || f[0] == "Groups:") {
				for _, text := range f[1:] {
					id, err := strconv.ParseUint(text, 10, 32)
					if err != nil || !child.IsSpare(uint32(id)) {
						t.Errorf("%s", line)
					}
				}
			}
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		r.await("decisions", func() bool {
			c, _, err := r.check(client, "GET", allow.GetId())
			return err == nil && c == codes.OK
		})
	}
}

func TestAnUnknownRevisionIsDeniedAsUnavailable(t *testing.T) {
	r, _, client := newAuthzRig(t)
	c, id, err := r.check(client, "GET", "another")
	if err != nil || c == codes.OK || id == "" {
		t.Errorf("%v %q %v", c, id, err)
	}
}

// A06; D26.
func TestAKilledAuthzProcessDeniesAndIsBackAndTouchesNothingElse(t *testing.T) {
	r, allow, client := newAuthzRig(t)
	workload := r.fetch()
	next(t, workload)
	for range 3 {
		if c, _, err := r.check(client, "GET", allow.GetId()); err != nil || c != codes.OK {
			t.Fatalf("before: %v %v", c, err)
		}
		pid := authzPID(t)
		if pid == 0 {
			t.Fatal("no authz process")
		}
		begun := time.Now()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		r.await("decisions", func() bool {
			c, _, err := r.check(client, "GET", allow.GetId())
			return err == nil && c == codes.OK
		})
		t.Logf("decided again %s after the kill", time.Since(begun))
	}
	// The stream is still the same one.
	r.change(func(f *fakeServer) { f.entries = append(f.entries, entry("two", "/shop/two", self(t))) })
	if ids := next(t, workload); len(ids) != 3 { // the binding's too
		t.Errorf("got %v", ids)
	}
	r.await("the metric", func() bool { return r.metric("signet_agent_authz_restarts_total") == "3" })
}

func TestOnlyBoundProxiesMayAsk(t *testing.T) {
	allow := revision(t, allowReads)
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{entry("one", "/shop/one", self(t)), binding("web", "web", "unix:path:/bin/other")}
		f.policies = []*api.PolicyRevision{allow}
	})
	r.ready(allow.GetId())
	c, err := net.Dial("unix", filepath.Join(r.dir, "authz.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
		t.Errorf("read %d bytes, %v: want the connection closed", n, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	r.await("the metric", func() bool { return r.metric(`signet_agent_peers_refused_total{socket="authz"}`) == "1" })
}

func TestATakenBindingEndsItsConnections(t *testing.T) {
	r, allow, client := newAuthzRig(t)
	if c, _, err := r.check(client, "GET", allow.GetId()); err != nil || c != codes.OK {
		t.Fatalf("before: %v %v", c, err)
	}
	pid := authzPID(t)
	r.change(func(f *fakeServer) { f.entries = nil })
	r.await("denial", func() bool {
		_, _, err := r.check(client, "GET", allow.GetId())
		return err != nil
	})
	if now := authzPID(t); now != pid || r.metric("signet_agent_authz_restarts_total") != "0" {
		t.Errorf("it ended the process that decides for all: %d, then %d", pid, now)
	}
	r.change(func(f *fakeServer) { f.entries = []*api.Entry{binding("web", "web", self(t))} })
	again := authv3.NewAuthorizationClient(r.dial("authz.sock"))
	r.await("decisions", func() bool {
		c, _, err := r.check(again, "GET", allow.GetId())
		return err == nil && c == codes.OK
	})
}

// The binding still grants the identity, but not to this process any more.
func TestABindingThatNoLongerFitsEndsItsConnections(t *testing.T) {
	r, allow, client := newAuthzRig(t)
	if c, _, err := r.check(client, "GET", allow.GetId()); err != nil || c != codes.OK {
		t.Fatalf("before: %v %v", c, err)
	}
	r.change(func(f *fakeServer) { f.entries = []*api.Entry{binding("web", "web", "unix:path:/bin/other")} })
	r.await("denial", func() bool {
		_, _, err := r.check(client, "GET", allow.GetId())
		return err != nil
	})
}
