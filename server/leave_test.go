package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"signet.example/api"
	"signet.example/server"
	"signet.example/test/parts"
)

// task joins one with the role web.
func task(t *testing.T, r *rig, aws *parts.STS) *host {
	t.Helper()
	h := newHost(r)
	l := h.connect()
	if err := h.send(l, h.shown(l, aws, same)); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) leave() error {
	_, err := api.NewAgentAPIClient(h.conn).Leave(h.t.Context(), &api.LeaveRequest{})
	return err
}

// agents are the ids of those that joined.
func (r *rig) agents() []string {
	r.t.Helper()
	resp, err := r.admin.Agents(r.t.Context(), &api.AgentsRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	var ids []string
	for _, a := range resp.GetAgents() {
		ids = append(ids, a.GetId())
	}
	return ids
}

func TestATaskThatSaysGoodbyeIsForgottenAndNobodyElse(t *testing.T) {
	r, aws := newTasks(t)
	one, other, banned, byToken := task(t, r, aws), task(t, r, aws), task(t, r, aws), r.join("front")
	other.stay()
	r.ban(banned.id)
	wantCode(t, banned.leave(), codes.PermissionDenied, "banned") // its row is what keeps it out
	wantCode(t, byToken.leave(), codes.InvalidArgument, "joined by join_token")
	if err := one.leave(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is forgotten", func() bool { return !slices.Contains(r.agents(), one.id) })
	for who, h := range map[string]*host{"another task": other, "a banned one": banned, "a host": byToken} {
		if !slices.Contains(r.agents(), h.id) {
			t.Errorf("%s is forgotten", who)
		}
	}
	if _, err := one.issue("disk"); err == nil {
		t.Error("it is served still")
	}
	wantCode(t, one.attest(""), codes.Unauthenticated)
	wantCode(t, banned.attest(""), codes.PermissionDenied, "banned")
	if got := other.may(); !slices.Equal(got, []string{"disk"}) {
		t.Errorf("the other task is given %v", got)
	}
	if rows := rowsOf(t, "delete"); !strings.Contains(rows[0], "agent "+one.id) {
		t.Errorf("%q", rows)
	}
	// A copy of a task's certificate is not the run that was let in.
	copied := newHost(r)
	copied.svid, copied.id = other.svid, other.id
	copied.conn = dial(t, r.addr.Agents, other.svid, nil)
	if err := copied.leave(); err == nil {
		t.Error("a copy said goodbye for a task that is connected")
	}
	r.halt()
	r.start()
	if all := r.agents(); slices.Contains(all, one.id) || !slices.Contains(all, banned.id) || len(all) != 3 {
		t.Errorf("after a restart there are %v", all)
	}
}

// A9-60: what it had reported was kept for ever, and who has a role can have that without end.
func TestNothingIsKeptOfATaskThatSaysGoodbyeWhileItHasASession(t *testing.T) {
	r, aws := newTasks(t)
	before := server.Instances()
	h := task(t, r, aws)
	report, session := h.session()
	report(proxyReport("p", "shop", "nobody's", "127.0.0.1", 80))
	eventually(t, "its proxy is refused", func() bool { return server.Refused() == 1 })
	if err := h.leave(); err != nil {
		t.Fatal(err)
	}
	for err := error(nil); err == nil; { // until its session has ended
		_, err = session.Recv()
	}
	eventually(t, "it is forgotten", func() bool { return !slices.Contains(r.agents(), h.id) })
	eventually(t, "nothing of it is kept", func() bool { return server.Refused() == 0 && server.Instances() == before })
	if err := server.ServeSession(t.Context(), h.id); err != nil { // that was on its way
		t.Fatal(err)
	}
	if n := server.Instances(); n != before {
		t.Errorf("%d runs are kept, before there were %d", n, before)
	}
}

// A task that is not connected is no host to be looked for.
func TestATaskThatIsAwayIsNoFinding(t *testing.T) {
	r, aws := newTasks(t)
	h, lost := task(t, r, aws), r.join("front")
	awaitFinding(t, r, "SIG001", "it is not connected")
	for _, f := range r.findings("SIG001", "") {
		if s := fmt.Sprint(f); strings.Contains(s, h.id) || !strings.Contains(s, lost.id) && !strings.Contains(s, "agents") {
			t.Error(s)
		}
	}
}
