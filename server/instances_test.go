package server_test

import (
	"crypto/rand"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/server"
	"signet.example/store"
)

// again is another run of an agent with the same host key.
func (h *host) again() *host {
	next := newHost(h.rig)
	next.hostKey = h.hostKey
	return next
}

// stay keeps a session open that answers probes; it returns the addresses that the
// agent was told of.
func (h *host) stay() <-chan string {
	report, session := h.session()
	report(&api.Report{})
	told := answering(session)
	eventually(h.t, "its session", func() bool { return len(connected(h.t, h.rig)) == 1 })
	return told
}

func TestAHostKeyThatIsInUseIsRefusedFromAnotherPlaceAndBothAreTold(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	h := r.join("front")
	told := h.stay()
	thief := h.again()
	wantCode(t, thief.attest(""), codes.FailedPrecondition, "connected already", h.id)
	if from := <-told; from != "127.0.0.1" {
		t.Errorf("the agent was told of %q", from)
	}
	if f := awaitFinding(t, r, "SIG020", "127.0.0.1"); f.GetSeverity() != api.Finding_ERROR || !strings.Contains(f.GetFix(), "signet ban "+h.id) {
		t.Errorf("%v", f)
	}
	rows, err := server.AuditTrail(t.Context())
	if err != nil || !slices.ContainsFunc(rows, func(row store.AuditRow) bool { return strings.Contains(row.Detail, "is in use") }) {
		t.Errorf("%v, %v", rows, err)
	}
	if err := h.attest(""); err != nil { // its own SVID may have ended
		t.Errorf("the same run: %v", err)
	}
	if _, err := h.issue("job"); err != nil {
		t.Error(err)
	}
	r.ban(h.id)
	resp, err := r.admin.Check(t.Context(), &api.CheckRequest{})
	if err != nil || strings.Contains(resp.String(), "SIG020") {
		t.Errorf("after the ban: %v, %v", resp, err)
	}
}

// Answers pass no limit that a newcomer can fill, however many come at once.
func TestManyThievesAtOnceDoNotDisplaceALiveAgent(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	h := r.join("front")
	h.stay()
	var thieves sync.WaitGroup
	for from := byte(2); from < 5; from++ {
		conn := dialFrom(t, r.addr.Agents, h.hostKey, net.IPv4(127, 0, 0, from))
		for range 150 {
			csr := newCSR(t, newKey(t))
			thieves.Go(func() {
				ctx := metadata.AppendToOutgoingContext(t.Context(), "signet-instance", rand.Text())
				_, err := api.NewAgentAPIClient(conn).Attest(ctx, &api.AttestRequest{Csr: csr})
				// Refused for the agent that lives, or since one key asks too often.
				if code := status.Code(err); code != codes.FailedPrecondition && code != codes.Unavailable && code != codes.ResourceExhausted {
					t.Errorf("a thief was answered %v", err)
				}
			})
		}
	}
	thieves.Wait()
	if _, err := h.issue("job"); err != nil {
		t.Errorf("the agent: %v", err)
	}
	if list := connected(t, r); len(list) != 1 {
		t.Errorf("connected are %v", list)
	}
}

// What a refused caller opens does not count as the agent's, of which the oldest gives way.
func TestACopyThatOnceHadACertificateDoesNotDisplaceALiveAgentHoweverManyConnectionsItOpens(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	h := r.join("front")
	thief := h.again()
	if err := thief.attest(""); err != nil { // the agent is away
		t.Fatal(err)
	}
	if err := h.attest(""); err != nil { // the copy holds no session
		t.Fatal(err)
	}
	h.stay()
	for range 3 * server.MostOfOneAgent {
		conn := dial(t, r.addr.Agents, thief.svid, nil, grpc.WithPerRPCCredentials(thief.instance))
		_, err := api.NewAgentAPIClient(conn).Issue(t.Context(), &api.IssueRequest{})
		wantCode(t, err, codes.FailedPrecondition, "connected already")
		if list := connected(t, r); len(list) != 1 {
			t.Fatalf("connected are %v", list)
		}
	}
	wantCode(t, thief.attest(""), codes.FailedPrecondition, "connected already")
	if _, err := h.issue("job"); err != nil {
		t.Errorf("the agent: %v", err)
	}
}

func TestARestartedAgentIsLetInAtOnce(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	h := r.join("front")
	for range 3 {
		h.stay()
		if err := h.conn.Close(); err != nil { // as the kernel does for a process that was killed
			t.Fatal(err)
		}
		next, begun := h.again(), time.Now()
		if err := next.attest(""); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 2*time.Second || next.id != h.id {
			t.Errorf("after %s, as %s and not %s", took, next.id, h.id)
		}
		h = next
	}
	resp, err := r.admin.Check(t.Context(), &api.CheckRequest{})
	if err != nil || strings.Contains(resp.String(), "SIG020") {
		t.Errorf("%v, %v", resp, err)
	}
}

// A host without power closes no connection.
func TestAnAgentThatDoesNotAnswerGivesItsPlaceToTheNext(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(registry)
	h := r.join("front")
	report, silent := h.session()
	report(&api.Report{})
	eventually(t, "its session", func() bool { return len(connected(t, r)) == 1 })
	next := h.again()
	if err := next.attest(""); err != nil {
		t.Fatal(err)
	}
	next.stay()
	var err error
	for err == nil { // the probe comes first
		_, err = silent.Recv()
	}
	wantCode(t, err, codes.FailedPrecondition, "connected already")
	_, err = h.issue("job") // it wakes up: now it is the second one
	wantCode(t, err, codes.FailedPrecondition, "connected already")
	awaitFinding(t, r, "SIG020", "two places")
}

func TestAnAnswerToAnotherSessionsProbeIsNone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(registry)
	h, other := r.join("front"), r.join("front")
	report, silent := h.session()
	report(&api.Report{})
	report, liar := other.session()
	report(&api.Report{})
	eventually(t, "their sessions", func() bool { return len(connected(t, r)) == 2 })
	go func() {
		for {
			m, err := silent.Recv()
			if err != nil {
				return
			}
			if p := m.GetProbe(); p != nil {
				_ = liar.Send(&api.SessionUp{Message: &api.SessionUp_Alive{Alive: p.GetNonce()}})
			}
		}
	}()
	if err := h.again().attest(""); err != nil {
		t.Errorf("another agent kept it out: %v", err)
	}
}

func TestAnInstanceThatIsTooLongIsRefused(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	h := newHost(r)
	h.instance = runOf(strings.Repeat(rand.Text(), 4))
	wantCode(t, h.attest(r.token("front")), codes.InvalidArgument, "signet-instance")
}
