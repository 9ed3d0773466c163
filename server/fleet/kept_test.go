package fleet

import (
	"errors"
	"fmt"
	"strings"
	"testing"

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
	if taken != mostOfLargeOnes/size-1 { // a report has some bytes beside that
		t.Errorf("%d reports of 1 MiB were taken of one role", taken)
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
