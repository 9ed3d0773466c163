package fleet

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/server/fault"
)

// reportOfSize has about as many bytes.
func reportOfSize(n int) *api.Report {
	r := &api.Report{}
	for ; n > 0; n -= 2000 {
		r.Own = append(r.Own, &api.AgentFinding{Text: strings.Repeat("x", min(n, 2000))})
	}
	return r
}

// reportOfATask is of one with so many proxies, with everything that an agent says of each.
func reportOfATask(proxies int) *api.Report {
	now := timestamppb.Now()
	id := "spiffe://test.example/mesh/shop/node/recommendations"
	node := &api.VirtualNodeRef{Mesh: "shop", Name: "recommendations"}
	r := &api.Report{PeerMode: api.Report_TASK.Enum(), Version: "1.12.3", PolicyRevision: strings.Repeat("a", 64)}
	svid := func(id string, of api.SVIDStatus_Consumer, word string) {
		r.Svids = append(r.Svids, &api.SVIDStatus{SpiffeId: id, Serial: strings.Repeat("1", 40), NotAfter: now, NextRenewal: now, LastRotation: now, Consumer: of.Enum(), ConsumerWord: word, OutageBudget: durationpb.New(1)})
	}
	svid("spiffe://test.example/signet/agent/0123456789abcdef0123456789abcdef", api.SVIDStatus_AGENT, "agent")
	for range proxies {
		svid(id, api.SVIDStatus_PROXY, "proxy:recommendations")
		svid(id, api.SVIDStatus_WORKLOAD, "workload")
		p := &api.ProxyStatus{
			Name: "recommendations", VirtualNode: node, Address: "10.112.113.114", Ports: []uint32{8080, 8443, 9090}, Healthy: true, EnvoyVersion: "1.36.2", Pid: 77,
			State: api.ProxyStatus_READY.Enum(), Speaker: "namespace of the task", Config: api.ProxyStatus_SYNCED.Enum(), ConfigVersion: strings.Repeat("c", 64), Acknowledged: now, Failing: []uint32{9090},
		}
		for range 6 {
			p.Types = append(p.Types, &api.TypeStatus{TypeUrl: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", Version: strings.Repeat("e", 16), Acknowledged: strings.Repeat("e", 16)})
		}
		r.Proxies = append(r.Proxies, p)
		r.Views = append(r.Views, &api.ViewStatus{VirtualNode: node, Version: strings.Repeat("d", 64), Proxies: 1, EnvoyVersion: "1.36.2"})
	}
	return r
}

// weightOf is that of a report as it is kept.
func weightOf(t *testing.T, r *api.Report) int {
	t.Helper()
	r = proto.CloneOf(r)
	if err := checkReport(r); err != nil {
		t.Fatal(err)
	}
	n, err := weight(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes on the wire, %d in memory", proto.Size(r), n)
	return n
}

// A9-78: what was counted were the bytes on the wire, of which two can be 150 in memory.
func TestReportsAreCountedByWhatTheyTakeInMemory(t *testing.T) {
	if n := weightOf(t, reportOfATask(4)); n > reportOfTask {
		t.Errorf("that of a task with four proxies takes %d bytes: no more than a few would be taken of a role", n)
	}
	const role = "aws_task:arn:aws:iam::111122223333:role/cart"
	known := inMemory()
	r := sessionsAt(known, "one", NewEndpoints(configOf(known)))
	report := func(agent string, m *api.Report) error {
		s := streamOf(r, agent, "of "+agent)
		s.peer.Principal = role
		r.enter(s)
		return r.handle(t.Context(), s, &api.SessionUp{Message: &api.SessionUp_Report{Report: m}})
	}
	empties := func(n, text int) *api.Report { // as small as this it was counted as a task's
		m := reportOfSize(text)
		for range n {
			m.Svids = append(m.Svids, &api.SVIDStatus{})
		}
		return m
	}
	taken := 0
	for n := range 400 {
		if err := report(fmt.Sprint("hog", n), empties(1200, 12_000)); err == nil {
			taken++
		} else if !errors.Is(err, fault.Limit) {
			t.Fatal(err)
		}
	}
	if most := mostOfLargeOnes / weightOf(t, empties(1200, 12_000)); taken != most {
		t.Errorf("%d were taken, and there is memory for %d", taken, most)
	}
	if err := report("task", reportOfATask(4)); err != nil {
		t.Errorf("beside these, of a task: %v", err)
	}
	if err := report("late", empties(8000, 0)); !errors.Is(err, fault.Invalid) {
		t.Errorf("one out of proportion: %v", err)
	}
}

// By a role of AWS one can join as thousands of agents: at 4 MiB each that was 20 GB.
func TestWhatIsKeptOfOneRolesReportsIsBounded(t *testing.T) {
	const role, size = "aws_task:arn:aws:iam::111122223333:role/cart", 1 << 20
	known := inMemory()
	r := sessionsAt(known, "one", NewEndpoints(configOf(known)))
	report := func(agent, principal string, bytes int) error {
		s := streamOf(r, agent, "of "+agent)
		s.peer.Principal = principal
		r.enter(s)
		return r.handle(t.Context(), s, &api.SessionUp{Message: &api.SessionUp_Report{Report: reportOfSize(bytes)}})
	}
	taken := 0
	for n := range 100 {
		if err := report(fmt.Sprint("hog", n), role, size); err == nil {
			taken++
		} else if !errors.Is(err, fault.Limit) || !strings.Contains(err.Error(), role) {
			t.Fatal(err)
		}
	}
	if most := mostOfLargeOnes / weightOf(t, reportOfSize(size)); taken != most {
		t.Errorf("%d reports of 1 MiB were taken of one role, and there is memory for %d", taken, most)
	}
	for what, err := range map[string]error{
		"of its tasks":      report("task", role, reportOfTask/2),
		"of another role's": report("other", role+"2", size),
		"of a host":         report("host", "", size),
		"again":             report("hog0", role, size),
	} {
		if err != nil {
			t.Errorf("a report %s: %v", what, err)
		}
	}
	if err := report("late", role, size); err == nil {
		t.Error("it was taken")
	}
	r.Drop("hog1")
	if err := report("late", role, size); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if err := report("hog0", role, 1); err != nil { // smaller from now on
		t.Error(err)
	}
	if err := report("later", role, size); err != nil {
		t.Errorf("with room again: %v", err)
	}
	for n := range 100 {
		r.Drop(fmt.Sprint("hog", n))
	}
	for _, agent := range []string{"late", "later", "other"} {
		r.Drop(agent)
	}
	if len(r.large) > 0 {
		t.Errorf("%v is kept of nobody", r.large)
	}
}

// A9-77: what the session before had reported stayed beside a small report, counted nowhere.
func TestNothingIsKeptOfTheLastSessionOnceTheNextHasReported(t *testing.T) {
	known := inMemory()
	r := sessionsAt(known, "one", NewEndpoints(configOf(known)))
	session := func(id string, bytes int) *stream {
		s := streamOf(r, "x", id)
		s.peer.Principal = "role"
		r.enter(s)
		if err := r.handle(t.Context(), s, &api.SessionUp{Message: &api.SessionUp_Report{Report: reportOfSize(bytes)}}); err != nil {
			t.Fatal(err)
		}
		return s
	}
	r.leave(session("first", 1<<20))
	if now, last := r.Of("x"); now != nil || len(last.Report.GetOwn()) == 0 || len(r.large) != 1 {
		t.Fatalf("after it: %v, and %d counted", now, len(r.large))
	}
	session("second", 1)
	now, last := r.Of("x")
	if n := len(now.Latest().GetOwn()); n != 1 || last.Report != nil || last.At.IsZero() || len(r.large) > 0 {
		t.Errorf("of the second: %d findings, of the first: %d at %s, and %v counted", n, len(last.Report.GetOwn()), last.At, r.large)
	}
}
