package server_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"signet.example/api"
	"signet.example/attestation/awscaller"
	"signet.example/attestation/nodes"
	"signet.example/test/parts"
)

// newCallers runs a server that asks STS who tasks of the roles web and job are.
func newCallers(t *testing.T) (*rig, *parts.STS) {
	t.Helper()
	aws := parts.NewSTS(t, awsAccount)
	r := newRig(t)
	r.halt()
	r.cfg.Join.AWSCaller = awscaller.Config{
		Regions:  []awscaller.Region{{Region: "eu-west-1", Endpoint: aws.URL()}},
		Accounts: []awscaller.Account{{Account: awsAccount, Roles: []string{aws.ARN("web"), aws.ARN("job")}}},
	}
	r.start()
	r.apply(strings.ReplaceAll(webTasks, "aws_task:", "aws_caller_identity:"))
	return r, aws
}

// asks is what a task with a role shows on a connection.
func (h *host) asks(l line, aws *parts.STS, role string) *api.AttestRequest {
	h.t.Helper()
	for name, value := range aws.Environment(aws.ARN(role)) {
		h.t.Setenv(name, value)
	}
	give, err := nodes.HostConfig{AWSCaller: awscaller.Host{Region: "environment"}}.Evidence()
	if err != nil {
		h.t.Fatal(err)
	}
	req := &api.AttestRequest{Csr: newCSR(h.t, h.key), Hostname: "task"}
	if err := give(h.t.Context(), h.channel(l), req); err != nil {
		h.t.Fatal(err)
	}
	return req
}

func TestATaskJoinsByAQuestionThatItSignedAndIsInTheGroupOfItsRole(t *testing.T) {
	r, aws := newCallers(t)
	h := newHost(r)
	l := h.connect()
	req := h.asks(l, aws, "web")
	if err := h.send(l, req); err != nil {
		t.Fatal(err)
	}
	if got := h.may(); !slices.Equal(got, []string{"disk"}) {
		t.Errorf("it is given %v", got)
	}
	want := []string{"aws_caller_identity:account:" + awsAccount, "aws_caller_identity:role:" + aws.ARN("web")}
	if a := r.agent(h.id); a.GetGroup() != "web-tasks" || a.GetAttestation() != "aws_caller_identity" || !slices.Equal(a.GetSelectors(), want) {
		t.Errorf("%v", a)
	}
	if err := h.attest(""); err != nil { // by its host key from now on
		t.Error(err)
	}
	for _, row := range rowsOf(t, "attest") {
		if e := req.GetAwsCallerIdentity(); strings.Contains(row, e.GetSessionToken()) || strings.Contains(row, e.GetSignature()) {
			t.Errorf("the audit trail has %q", row)
		}
	}
	if n := aws.Asked.Load(); n != 1 {
		t.Errorf("STS was asked %d times", n)
	}
	if err := h.leave(); err != nil {
		t.Errorf("a task that ends does not say goodbye: %v", err)
	}
}

func TestAQuestionOfATaskIsGoodOnceOnItsConnection(t *testing.T) {
	r, aws := newCallers(t)
	h, thief := newHost(r), newHost(r)
	one := h.connect()
	seen := h.asks(one, aws, "web")
	const elsewhere = "SignatureDoesNotMatch"
	wantCode(t, thief.send(thief.connect(), seen), codes.PermissionDenied, elsewhere)                        // another host key
	wantCode(t, h.send(h.connect(), seen), codes.PermissionDenied, elsewhere)                                // another connection of its own
	wantCode(t, thief.send(thief.connect(), thief.asks(one, aws, "web")), codes.PermissionDenied, elsewhere) // a server in between
	if err := h.send(one, seen); err != nil {
		t.Fatal(err)
	}
	wantCode(t, h.send(one, seen), codes.PermissionDenied, "was used before")
	old := newHost(r)
	l := old.connect()
	late := old.asks(l, aws, "web")
	late.GetAwsCallerIdentity().Date = time.Now().UTC().Add(-301 * time.Second).Format("20060102T150405Z")
	wantCode(t, old.send(l, late), codes.PermissionDenied, "more than 5m0s ago")
	other := newHost(r)
	l = other.connect()
	wantCode(t, other.send(l, other.asks(l, aws, "admin")), codes.PermissionDenied, `its role "admin"`)
	another := parts.NewSTS(t, "210987654321")
	l = other.connect()
	wantCode(t, other.send(l, other.asks(l, another, "web")), codes.PermissionDenied, elsewhere) // whose keys this STS has not
}

// STS is not always there, and what the task shows may be good.
func TestATaskIsToTryAgainWhereSTSDoesNotAnswer(t *testing.T) {
	r, aws := newCallers(t)
	aws.Answer(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	h := newHost(r)
	l := h.connect()
	req := h.asks(l, aws, "web")
	wantCode(t, h.send(l, req), codes.Unavailable, "sts.eu-west-1.amazonaws.com does not answer")
	aws.Answer(nil)
	if err := h.send(l, req); err != nil {
		t.Errorf("what was not answered was used up: %v", err)
	}
}

// While STS takes its time others are verified: with two processors one at a time is. It has four
// seconds, in which a slow host may not come to the other one.
func TestWhoWaitsForSTSKeepsNobodyElseWaiting(t *testing.T) {
	r, aws := newCallers(t)
	const tries = 3
	for n := 1; !r.servesWhileSTSWaits(aws); n++ {
		if n == tries {
			t.Fatalf("a stranger at the same address waited as long as STS, %d times", tries)
		}
	}
}

// servesWhileSTSWaits reports whether a stranger is answered before a task is about which STS is asked.
func (r *rig) servesWhileSTSWaits(aws *parts.STS) bool {
	r.t.Helper()
	asked, answer := make(chan struct{}), make(chan struct{})
	aws.Answer(func(http.ResponseWriter, *http.Request) {
		close(asked)
		<-answer
		panic(http.ErrAbortHandler)
	})
	h := newHost(r)
	l := h.connect()
	req := h.asks(l, aws, "web")
	done := make(chan error, 1)
	go func() { done <- h.send(l, req) }()
	<-asked
	err := newHost(r).attest("")
	waits := len(done) == 0
	close(answer)
	wantCode(r.t, err, codes.Unauthenticated)
	wantCode(r.t, <-done, codes.Unavailable)
	return waits
}

func TestAServerThatAsksNoSTSSaysSo(t *testing.T) {
	r, aws := newTasks(t)
	h := newHost(r)
	l := h.connect()
	wantCode(t, h.send(l, h.asks(l, aws, "web")), codes.PermissionDenied, "join.aws_caller_identity")
	if n := aws.Asked.Load(); n != 0 {
		t.Errorf("STS was asked %d times", n)
	}
}
