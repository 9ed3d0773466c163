package server_test

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/attestation/awstask"
	"signet.example/attestation/nodes"
	"signet.example/server"
	"signet.example/test/parts"
)

const awsAccount = "123456789012"

// webTasks is a group by a role, and what hangs on it.
const webTasks = registry + `
---
apiVersion: signet.example/v1alpha1
kind: NodeGroup
metadata: {name: web-tasks}
spec: {selectors: ["aws_task:role:arn:aws:iam::123456789012:role/web"]}
---
apiVersion: signet.example/v1alpha1
kind: Entry
metadata: {name: disk}
spec: {group: web-tasks, spiffeID: "spiffe://test.example/disk", selectors: ["unix:uid:1000"]}
`

// newTasks runs a server that takes tasks of an account with the roles web and job.
func newTasks(t *testing.T) (*rig, *parts.STS) {
	t.Helper()
	aws := parts.NewSTS(t, awsAccount)
	r := newRig(t)
	r.halt()
	r.cfg.Join.AWSTask.Accounts = []awstask.Account{{Account: awsAccount, Issuer: aws.Issuer(), Roles: []string{aws.ARN("web"), aws.ARN("job")}}}
	r.start()
	r.apply(webTasks)
	eventually(t, "the keys are fetched", func() bool { return aws.Fetches.Load() == 1 })
	return r, aws
}

// shown is what a task shows on a connection that asks there, with the claims as change
// makes them.
func (h *host) shown(l line, aws *parts.STS, change func(map[string]any)) *api.AttestRequest {
	h.t.Helper()
	aws.Tamper(change)
	for name, value := range aws.Environment(aws.ARN("web")) {
		h.t.Setenv(name, value)
	}
	give, err := nodes.HostConfig{AWSTask: awstask.Host{Region: "environment", Endpoint: aws.URL()}}.Evidence()
	if err != nil {
		h.t.Fatal(err)
	}
	req := &api.AttestRequest{Csr: newCSR(h.t, h.key), Hostname: "task"}
	if err := give(h.t.Context(), h.channel(l), req); err != nil {
		h.t.Fatal(err)
	}
	return req
}

func (h *host) showing(token string) *api.AttestRequest {
	return &api.AttestRequest{Csr: newCSR(h.t, h.key), Hostname: "task", Evidence: &api.AttestRequest_AwsTask{AwsTask: &api.AWSTask{Token: token}}}
}

func same(map[string]any) {}

func TestATaskJoinsByTheTokenOfItsRoleAndIsInTheGroupOfIt(t *testing.T) {
	r, aws := newTasks(t)
	h := newHost(r)
	l := h.connect()
	req := h.shown(l, aws, same)
	if err := h.send(l, req); err != nil {
		t.Fatal(err)
	}
	if got := h.may(); !slices.Equal(got, []string{"disk"}) {
		t.Errorf("it is given %v", got)
	}
	a := r.agent(h.id)
	want := []string{"aws_task:account:" + awsAccount, "aws_task:role:" + aws.ARN("web"), "aws_task:region:eu-west-1"}
	if a.GetGroup() != "web-tasks" || a.GetAttestation() != "aws_task" || !slices.Equal(a.GetSelectors(), want) {
		t.Errorf("%v", a)
	}
	if err := h.attest(""); err != nil { // by its host key from now on
		t.Error(err)
	}
	if rows := rowsOf(t, "attest"); !strings.Contains(rows[0], "joined group web-tasks") || !strings.Contains(rows[0], "aws_task:role:") {
		t.Errorf("%q", rows)
	}
	for _, row := range rowsOf(t, "attest") {
		if strings.Contains(row, req.GetAwsTask().GetToken()) {
			t.Error("the token is in the audit trail")
		}
	}
}

// A9-61: PermissionDenied ends a task that joins anew, and with it its proxies.
func TestATaskThatIsInNoNodeGroupTriesAgainUntilItIsInOne(t *testing.T) {
	r, aws := newTasks(t)
	h := newHost(r)
	joins := func() error {
		l := h.connect()
		return h.send(l, h.shown(l, aws, func(c map[string]any) { c["sub"] = aws.ARN("job") }))
	}
	wantCode(t, joins(), codes.Unavailable, "no NodeGroup's selectors fit")
	wantCode(t, h.attest(""), codes.Unauthenticated)
	r.apply(groupOf("jobs", "aws_task:role:"+aws.ARN("job")) + "\n---\n" + groupOf("too", "aws_task:account:"+awsAccount))
	wantCode(t, joins(), codes.Unavailable, "jobs, too all fit this host")
	r.apply(groupOf("too", "aws_task:role:"+aws.ARN("other")))
	if err := joins(); err != nil {
		t.Error(err)
	}
}

func TestEvidenceOfATaskThatIsNotTheOneItShouldBeIsRefused(t *testing.T) {
	r, aws := newTasks(t)
	other := parts.NewSTS(t, "210987654321")
	set := func(name string, value any) func(map[string]any) {
		return func(c map[string]any) { c[name] = value }
	}
	for name, c := range map[string]struct {
		by     *parts.STS
		change func(map[string]any)
		want   string
	}{
		"another account, whose issuer nobody named": {other, same, "no JWTIssuer has its issuer"},
		"another account's key under our issuer":     {other, set("iss", aws.Issuer()), "signature is wrong"},
		"another account in our issuer's token": {aws, func(c map[string]any) {
			inner := maps.Clone(c["https://sts.amazonaws.com/"].(map[string]any)) //nolint:forcetypeassert // it is
			inner["aws_account"], c["https://sts.amazonaws.com/"] = "210987654321", inner
		}, "its account"},
		"another role":         {aws, set("sub", aws.ARN("admin")), "its role (sub)"},
		"another audience":     {aws, set("aud", "https://bank.example"), "its audience is another"},
		"another trust domain": {aws, func(c map[string]any) { c["aud"] = strings.Replace(c["aud"].(string), trustDomain, "other.example", 1) }, "its audience is another"}, //nolint:forcetypeassert // it is
		"no audience":          {aws, func(c map[string]any) { delete(c, "aud") }, "it has no audience"},
		"older than five minutes": {aws, func(c map[string]any) {
			c["iat"], c["exp"] = time.Now().Add(-301*time.Second).Unix(), time.Now().Add(time.Hour).Unix()
		}, "more than 5m0s ago"},
		"ended": {aws, func(c map[string]any) {
			c["iat"], c["exp"] = time.Now().Add(-200*time.Second).Unix(), time.Now().Add(-90*time.Second).Unix()
		}, "expired"},
		"to come":        {aws, set("iat", time.Now().Add(2*time.Minute).Unix()), "it was issued (iat) after it expires"},
		"without an end": {aws, func(c map[string]any) { delete(c, "exp") }, "it has no expiry"},
	} {
		h := newHost(r)
		l := h.connect()
		err := h.send(l, h.shown(l, c.by, c.change))
		wantCode(t, err, codes.PermissionDenied, c.want)
		wantCode(t, h.attest(""), codes.Unauthenticated)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	h := newHost(r)
	for _, junk := range []string{"", "a.b.c", strings.Repeat("a", 9<<10)} {
		wantCode(t, h.send(h.connect(), h.showing(junk)), codes.PermissionDenied, "aws_task")
	}
	if n := aws.Fetches.Load() + other.Fetches.Load(); n != 1 {
		t.Errorf("keys were fetched %d times", n)
	}
}

func TestATokenOfATaskIsGoodOnceOnItsConnection(t *testing.T) {
	r, aws := newTasks(t)
	h, thief := newHost(r), newHost(r)
	one := h.connect()
	seen := h.shown(one, aws, same)
	const elsewhere = "its audience is another"
	wantCode(t, thief.send(thief.connect(), seen), codes.PermissionDenied, elsewhere)                        // another host key
	wantCode(t, h.send(h.connect(), seen), codes.PermissionDenied, elsewhere)                                // another connection of its own
	wantCode(t, thief.send(thief.connect(), thief.shown(one, aws, same)), codes.PermissionDenied, elsewhere) // a server in between
	// Many at once, where it is good.
	const tries = 8
	errs := make([]error, tries)
	var wg sync.WaitGroup
	for n := range tries {
		wg.Go(func() { _, errs[n] = api.NewAgentAPIClient(one.conn).Attest(t.Context(), seen) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "used before (jti)") {
			t.Errorf("%v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d of %d were let in", won, tries)
	}
	// The same id in a token of another connection, and after a restart of the server.
	var id any
	again := newHost(r)
	l := again.connect()
	if err := again.send(l, again.shown(l, aws, func(c map[string]any) { id = c["jti"] })); err != nil {
		t.Fatal(err)
	}
	r.halt()
	r.start()
	late := newHost(r)
	l = late.connect()
	wantCode(t, late.send(l, late.shown(l, aws, func(c map[string]any) { c["jti"] = id })), codes.PermissionDenied, "used before (jti)")
	if n := aws.Fetches.Load(); n != 1 {
		t.Errorf("keys were fetched %d times, with a restart", n)
	}
}

// Whoever sends tokens of keys that nobody has cannot make the server fetch. A task whose
// token is by a key that is newer than those here is to try again.
func TestATokenOfAKeyThatIsNotHereWaitsAndMakesTheServerFetchNone(t *testing.T) {
	r, aws := newTasks(t)
	aws.Rotate()
	h := newHost(r)
	for range 5 {
		l := h.connect()
		wantCode(t, h.send(l, h.shown(l, aws, same)), codes.Unavailable, "its issuer has no key of its kid; this server fetches its keys every 1h0m0s")
	}
	if n := aws.Fetches.Load(); n != 1 {
		t.Errorf("keys were fetched %d times", n)
	}
}

// The host is to try again, for its token may be good.
func TestATaskIsToTryAgainWhereTheKeysAreNotThereYet(t *testing.T) {
	r := newRig(t)
	r.halt()
	aws := parts.NewSTS(t, awsAccount)
	nowhere := aws.URL() + "/nowhere"
	r.cfg.Join.AWSTask.Accounts = []awstask.Account{{Account: awsAccount, Issuer: nowhere, Roles: []string{aws.ARN("web")}}}
	r.start()
	r.apply(webTasks)
	h := newHost(r)
	l := h.connect()
	wantCode(t, h.send(l, h.shown(l, aws, func(c map[string]any) { c["iss"] = nowhere })), codes.Unavailable)
	if f := awaitFinding(t, r, "SIG014", "could not be fetched"); f.GetSubject() != "join.aws_task:"+awsAccount {
		t.Errorf("%v", f)
	}
}

// joins has a new task join with the claims as change makes them.
func (r *rig) joins(aws *parts.STS, change func(map[string]any)) (*host, error) {
	r.t.Helper()
	h := newHost(r)
	l := h.connect()
	return h, h.send(l, h.shown(l, aws, change))
}

// What is proven is the role, and whoever has it can join again and again.
func TestARoleHasAsManyAgentsAsItMay(t *testing.T) {
	r, aws := newTasks(t)
	r.halt()
	r.cfg.Join.AWSTask.AgentsPerRole = 3
	r.start()
	r.apply(strings.ReplaceAll(webTasks[strings.Index(webTasks, "---"):strings.LastIndex(webTasks, "---")], "web", "job"))
	var all []*host
	for range 3 {
		h, err := r.joins(aws, same)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, h)
	}
	var id any
	_, err := r.joins(aws, func(c map[string]any) { id = c["jti"] })
	wantCode(t, err, codes.ResourceExhausted, "aws_task:role:"+aws.ARN("web"), "has 3 agents", "join.aws_task.agents_per_role")
	if f := awaitFinding(t, r, "SIG044", "3 agents joined by it, and at 3"); f.GetSubject() != "aws_task:role:"+aws.ARN("web") {
		t.Errorf("%v", f)
	}
	if rows := rowsOf(t, "attest"); !slices.ContainsFunc(rows, func(s string) bool { return strings.Contains(s, "has 3 agents") }) {
		t.Errorf("the audit trail has %q", rows)
	}
	if _, err := r.joins(aws, func(c map[string]any) { c["sub"] = aws.ARN("job") }); err != nil {
		t.Errorf("a task of another role: %v", err)
	}
	if err := all[0].attest(""); err != nil {
		t.Errorf("one that is there already: %v", err)
	}
	if err := all[1].leave(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is forgotten", func() bool { return len(r.agents()) == 3 })
	if _, err := r.joins(aws, func(c map[string]any) { c["jti"] = id }); err != nil {
		t.Errorf("in the place of one that ended, by a token for which nothing was left: %v", err)
	}
	r.ban(all[2].id)
	if _, err := r.joins(aws, same); err != nil {
		t.Errorf("in the place of one that is banned: %v", err)
	}
}

// A role that is shut out is so with all that joined by it, and nobody else is.
func TestARoleThatIsTakenOutServesNoAgentThatJoinedByIt(t *testing.T) {
	r, aws := newTasks(t)
	r.apply(strings.ReplaceAll(webTasks[strings.Index(webTasks, "---"):strings.LastIndex(webTasks, "---")], "web", "job"))
	gone, err := r.joins(aws, same)
	if err != nil {
		t.Fatal(err)
	}
	stays, err := r.joins(aws, func(c map[string]any) { c["sub"] = aws.ARN("job") })
	if err != nil {
		t.Fatal(err)
	}
	front := r.join("front")
	log := &safeBuffer{}
	r.run = func(ctx context.Context, cfg server.Config, _ *slog.Logger) error {
		return runInProcess(ctx, cfg, slog.New(slog.NewTextHandler(log, nil)))
	}
	with := func(roles ...string) {
		r.halt()
		r.cfg.Join.AWSTask.Accounts[0].Roles = roles
		r.start()
	}
	with(aws.ARN("job"))
	why := "agent " + gone.id + ` is not served any more: its role "` + aws.ARN("web") + `" is not among those in join.aws_task.accounts`
	wantCode(t, gone.attest(""), codes.PermissionDenied, why)
	gone.conn = dial(t, r.addr.Agents, gone.svid, nil, grpc.WithPerRPCCredentials(gone.instance))
	_, err = gone.issue("disk")
	wantCode(t, err, codes.PermissionDenied, why)
	for _, h := range []*host{stays, front} {
		if err := h.attest(""); err != nil {
			t.Errorf("%s, by another role or none: %v", h.id, err)
		}
	}
	if !strings.Contains(string(log.bytes()), "agents=1 why=\"its role ") {
		t.Error("the log does not say how many are shut out")
	}
	with(aws.ARN("web"), aws.ARN("job"))
	if err := gone.attest(""); err != nil {
		t.Errorf("when its role is back: %v", err)
	}
}

// Those behind one address share it with whoever is there, too.
func TestRubbishFromAnAddressKeepsNoTaskOutThatIsThere(t *testing.T) {
	r, aws := newTasks(t)
	junk := newHost(r).showing("x")
	floodUntilDry(t, dial(t, r.addr.Agents, selfSigned(t), nil), junk)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil { // on a connection of its own each time
			conn := dial(t, r.addr.Agents, selfSigned(t), nil)
			_, _ = api.NewAgentAPIClient(conn).Attest(ctx, junk) // it is refused
			_ = conn.Close()                                     // and over
		}
	})
	t.Cleanup(func() { stop(); wg.Wait() })
	for range 10 {
		if _, err := r.joins(aws, same); err != nil {
			t.Errorf("a task with a good token: %v", err)
		}
	}
}

func TestAServerThatTakesNoTasksSaysSo(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	h := newHost(r)
	wantCode(t, h.send(h.connect(), h.showing("a.b.c")), codes.PermissionDenied, "join.aws_task")
}
