package awscaller_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"signet.example/attestation/awscaller"
	"signet.example/attestation/platform"
	"signet.example/test/parts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	account     = "123456789012"
	trustDomain = "test.example"
)

var challenge = []byte(strings.Repeat("c", 32))

// kept is where it is kept what was used and taken.
type kept struct {
	mu   sync.Mutex
	used map[string]bool
	took []string
}

func (k *kept) Used(_ context.Context, hash []byte, _ time.Time) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.used[string(hash)], nil
}

func (k *kept) UseOnce(_ context.Context, hash []byte, _, _ time.Time) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	first := !k.used[string(hash)]
	k.used[string(hash)] = true
	return first, nil
}

func (k *kept) Take(principal string, _ []byte) error {
	k.took = append(k.took, principal)
	return nil
}

func config(aws *parts.STS, roles ...string) awscaller.Config {
	return awscaller.Config{Regions: []awscaller.Region{{Region: "eu-west-1", Endpoint: aws.URL()}}, Accounts: []awscaller.Account{{Account: aws.Account, Roles: roles}}}
}

func verifier(t testing.TB, cfg awscaller.Config) (*awscaller.Verifier, *kept) {
	t.Helper()
	k := &kept{used: map[string]bool{}}
	v, err := cfg.Open(platform.Server{Once: k, Quota: k, Group: func([]string) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return v, k
}

// signed is what a task with a role shows.
func signed(t testing.TB, aws *parts.STS, arn string) awscaller.Evidence {
	t.Helper()
	for name, value := range aws.Environment(arn) {
		if tt, ok := t.(*testing.T); ok {
			tt.Setenv(name, value)
		}
	}
	e, err := awscaller.Host{Region: "environment"}.Prove(t.Context(), trustDomain, challenge)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestATaskIsWhomSTSNamesOfWhatItSigned(t *testing.T) {
	aws := parts.NewSTS(t, account)
	v, k := verifier(t, config(aws, aws.ARN("admin"), aws.ARN("path/to/web")))
	e := signed(t, aws, aws.ARN("path/to/web"))
	if n := aws.Asked.Load(); n != 0 {
		t.Errorf("the task asked STS %d times", n)
	}
	sels, err := v.Verify(t.Context(), e, trustDomain, challenge, time.Now())
	want := []string{"aws_caller_identity:account:123456789012", "aws_caller_identity:role:arn:aws:iam::123456789012:role/path/to/web"}
	if err != nil || !slices.Equal(sels.Strings(), want) || !slices.Equal(k.took, want[1:]) || awscaller.Principal(sels.Strings()) != want[1] {
		t.Errorf("%v, %v; it took of %v", sels, err, k.took)
	}
	if _, err := v.Verify(t.Context(), e, trustDomain, challenge, time.Now()); err == nil || !strings.Contains(err.Error(), "used before") {
		t.Errorf("again: %v", err)
	}
}

func TestAQuestionThatIsNotForThisConnectionIsRefusedBySTS(t *testing.T) {
	aws := parts.NewSTS(t, account)
	v, k := verifier(t, config(aws, aws.ARN("web")))
	e, now := signed(t, aws, aws.ARN("web")), time.Now()
	other := []byte(strings.Repeat("d", 32))
	for what, err := range map[string]error{
		"another challenge":    second(v.Verify(t.Context(), e, trustDomain, other, now)),
		"another trust domain": second(v.Verify(t.Context(), e, "other.example", challenge, now)),
	} {
		if err == nil || err.Error() != `STS refuses it: 403 ("SignatureDoesNotMatch")` || errors.Is(err, platform.ErrNotNow) {
			t.Errorf("%s: %v", what, err)
		}
	}
	asked := aws.Asked.Load()
	change := func(f func(*awscaller.Evidence)) awscaller.Evidence {
		c := e
		f(&c)
		return c
	}
	for want, e := range map[string]awscaller.Evidence{
		`its region "eu-central-1" is not`:          change(func(e *awscaller.Evidence) { e.Region = "eu-central-1" }),
		`its region "evil.example/" is not`:         change(func(e *awscaller.Evidence) { e.Region = "evil.example/" }),
		"the id of its access key":                  change(func(e *awscaller.Evidence) { e.AccessKeyID += "/x" }),
		"its date is none, ":                        change(func(e *awscaller.Evidence) { e.Date += "\r\nX-Amz-Date: x" }),
		"its date is none":                          change(func(e *awscaller.Evidence) { e.Date = "20261399T999999Z" }),
		"its signature is none":                     change(func(e *awscaller.Evidence) { e.Signature = strings.ToUpper(e.Signature) }),
		"its session token is none":                 change(func(e *awscaller.Evidence) { e.SessionToken += "\r\nX-Signet-Audience: x" }),
		"it has no session token":                   change(func(e *awscaller.Evidence) { e.SessionToken = "" }),
		"it was signed more than 5m0s ago":          change(func(e *awscaller.Evidence) { e.Date = now.UTC().Add(-302 * time.Second).Format("20060102T150405Z") }),
		"it was signed more than 1m0s from now: on": change(func(e *awscaller.Evidence) { e.Date = now.UTC().Add(70 * time.Second).Format("20060102T150405Z") }),
	} {
		if _, err := v.Verify(t.Context(), e, trustDomain, challenge, now); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if n := aws.Asked.Load(); n != asked {
		t.Errorf("STS was asked %d times about what is no question", n-asked)
	}
	if _, err := v.Verify(t.Context(), change(func(e *awscaller.Evidence) { e.SessionToken += "x" }), trustDomain, challenge, now); err == nil {
		t.Error("another session token is taken")
	}
	if len(k.took) != 0 || len(k.used) != 0 {
		t.Errorf("what is refused took of %v", k.took)
	}
}

func second[T any](_ T, err error) error { return err }

func TestWhoIsNoRoleOfOursIsRefused(t *testing.T) {
	aws := parts.NewSTS(t, account)
	other := parts.NewSTS(t, "210987654321")
	v, _ := verifier(t, config(aws, aws.ARN("web")))
	theirs := config(other, aws.ARN("web"))
	theirs.Accounts[0].Account = account
	across, _ := verifier(t, theirs) // an account whose role has the same name
	for want, x := range map[string]struct {
		v   *awscaller.Verifier
		aws *parts.STS
		arn string
	}{
		`its role "admin" is not`:                          {v, aws, aws.ARN("admin")},
		`its role "Web" is not`:                            {v, aws, aws.ARN("Web")},
		`its role "web" is not among`:                      {v, aws, "arn:aws-cn:sts::123456789012:assumed-role/web/session-1"},
		`its account 210987654321 is not among`:            {across, other, other.ARN("web")},
		`its account is not that of its role`:              {v, aws, "arn:aws:sts::210987654321:assumed-role/web/session-1"},
		`it is signed by "arn:aws:iam::1234567890`:         {v, aws, "arn:aws:iam::123456789012:user/web"},
		`it is signed by "arn:aws:iam::123456789012:root"`: {v, aws, "arn:aws:iam::123456789012:root"},
		`it is signed by "arn:aws:sts::123456789012:fed`:   {v, aws, "arn:aws:sts::123456789012:federated-user/web"},
		`it is signed by "arn:aws:sts::123456789012:ass`:   {v, aws, "arn:aws:sts::123456789012:assumed-role/web/a/b"},
	} {
		if _, err := x.v.Verify(t.Context(), signed(t, x.aws, x.arn), trustDomain, challenge, time.Now()); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", x.arn, err, want)
		}
	}
}

// What is believed is the whole answer of one action, and nothing that stands somewhere in another.
func TestWhatIsNotTheAnswerOfSTSIsNotBelieved(t *testing.T) {
	aws := parts.NewSTS(t, account)
	v, k := verifier(t, config(aws, aws.ARN("web")))
	good := fmt.Sprintf(parts.CallerIdentity, "arn:aws:sts::123456789012:assumed-role/web/session-1", account)
	elsewhere := parts.NewSTS(t, account)
	text := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(s)) }
	}
	status := func(code int, s string) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) { w.WriteHeader(code); text(s)(w, req) }
	}
	throttled := `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Code>Throttling</Code></Error></ErrorResponse>`
	for name, x := range map[string]struct {
		answer http.HandlerFunc
		want   string
		later  bool
	}{
		"another action's":  {text(strings.ReplaceAll(good, "GetCallerIdentityRe", "AssumeRoleWithWebIdentityRe")), "what STS answers is not", false},
		"another service's": {text(strings.ReplaceAll(good, "https://sts.amazonaws.com/doc/2011-06-15/", "https://iam.amazonaws.com/doc/2010-05-08/")), "what STS answers is not", false},
		"of no service":     {text(strings.ReplaceAll(good, ` xmlns="https://sts.amazonaws.com/doc/2011-06-15/"`, "")), "what STS answers is not", false},
		"inside another":    {text("<Other>" + good + "</Other>"), "what STS answers is not", false},
		"twice":             {text(good + good), "what STS answers has more", false},
		"with two results":  {text(strings.Replace(good, "<ResponseMetadata>", "<GetCallerIdentityResult></GetCallerIdentityResult><ResponseMetadata>", 1)), "what STS answers names nobody, or several", false},
		"with two names":    {text(strings.Replace(good, "<Account>", "<Arn>x</Arn><Account>", 1)), "what STS answers names nobody, or several", false},
		"with nobody":       {text(strings.Replace(good, "Arn>", "Ann>", 2)), "what STS answers names nobody, or several", false},
		"JSON":              {text(`{"GetCallerIdentityResponse":{}}`), "what STS answers is not", false},
		"nothing":           {text(""), "what STS answers is not", false},
		"without end":       {text(good + strings.Repeat(" ", 16<<10)), "the answer of STS has more than 16384 bytes", false},
		"a redirect": {func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, elsewhere.URL(), http.StatusTemporaryRedirect)
		}, "STS refuses it: 307", false},
		"good, with a 201":     {status(http.StatusCreated, good), "STS refuses it: 201", false},
		"too often":            {status(http.StatusBadRequest, throttled), `STS answers 400 ("Throttling")`, true},
		"not now":              {status(http.StatusServiceUnavailable, ""), "STS answers 503 (no reason)", true},
		"a connection's end":   {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "sts.eu-west-1.amazonaws.com does not answer", true},
		"an error with a code": {status(http.StatusForbidden, strings.Replace(throttled, "Throttling", "\x1b", 1)), "STS refuses it: 403", false},
	} {
		aws.Answer(x.answer)
		_, err := v.Verify(t.Context(), signed(t, aws, aws.ARN("web")), trustDomain, challenge, time.Now())
		if err == nil || !strings.Contains(err.Error(), x.want) || errors.Is(err, platform.ErrLater) != x.later {
			t.Errorf("%s: %v, want %s", name, err, x.want)
		}
	}
	if n := elsewhere.Asked.Load(); n != 0 || len(k.took) != 0 {
		t.Errorf("a redirect was followed %d times; %v was taken", n, k.took)
	}
	aws.Answer(text(good + "\n"))
	if _, err := v.Verify(t.Context(), signed(t, aws, aws.ARN("web")), trustDomain, challenge, time.Now()); err != nil {
		t.Errorf("what STS answers: %v", err)
	}
}

// What is signed is what AWS documents and nothing of the task's choice.
func TestTheQuestionNamesTheConnectionInASignedHeader(t *testing.T) {
	aws := parts.NewSTS(t, account)
	v, _ := verifier(t, config(aws, aws.ARN("web")))
	e := signed(t, aws, aws.ARN("web"))
	aws.Answer(func(_ http.ResponseWriter, req *http.Request) {
		sum := sha256.Sum256(challenge)
		if got := req.Header.Values("X-Signet-Audience"); !slices.Equal(got, []string{"signet:test.example:" + hex.EncodeToString(sum[:])}) {
			t.Errorf("the header has %q", got)
		}
		if !strings.Contains(req.Header.Get("Authorization"), "SignedHeaders=content-length;content-type;host;x-amz-date;x-amz-security-token;x-signet-audience, ") {
			t.Errorf("it is signed by %s", req.Header.Get("Authorization"))
		}
		if req.Host != "sts.eu-west-1.amazonaws.com" || req.Method != http.MethodPost || req.RequestURI != "/" || req.PostForm.Encode() != "Action=GetCallerIdentity&Version=2011-06-15" {
			t.Errorf("%s %s at %s: %s", req.Method, req.RequestURI, req.Host, req.PostForm.Encode())
		}
		panic(http.ErrAbortHandler)
	})
	if _, err := v.Verify(t.Context(), e, trustDomain, challenge, time.Now()); !errors.Is(err, platform.ErrLater) {
		t.Error(err)
	}
}

func TestAConfigurationIsRefusedByItsKey(t *testing.T) {
	region, role := awscaller.Region{Region: "eu-west-1"}, "arn:aws:iam::123456789012:role/web"
	of := func(roles ...string) awscaller.Config {
		return awscaller.Config{Regions: []awscaller.Region{region}, Accounts: []awscaller.Account{{Account: account, Roles: roles}}}
	}
	regions := func(r ...awscaller.Region) awscaller.Config {
		c := of(role)
		c.Regions = r
		return c
	}
	twice := of(role)
	twice.Accounts = slices.Repeat(twice.Accounts, 2)
	for want, c := range map[string]awscaller.Config{
		"regions: 0 of them":                     regions(),
		"regions[0].region: \"mars\"":            regions(awscaller.Region{Region: "mars"}),
		"regions[0].region: us-iso-east-1: the":  regions(awscaller.Region{Region: "us-iso-east-1"}),
		"regions[0].endpoint: \"http://sts.exam": regions(awscaller.Region{Region: "eu-west-1", Endpoint: "http://sts.example"}),
		"regions[1].region: eu-west-1 is there":  regions(region, region),
		"accounts[0].account: \"12\"":            {Regions: []awscaller.Region{region}, Accounts: []awscaller.Account{{Account: "12", Roles: []string{role}}}},
		"accounts[0].roles: 0 of them":           of(),
		"accounts[0].roles[0]: \"web\"":          of("web"),
		"accounts[0].roles[0]: arn:aws:iam::21":  of("arn:aws:iam::210987654321:role/web"),
		"accounts[0].roles[1]: ":                 of(role, "arn:aws:iam::123456789012:role/path/WEB"),
		"accounts[1].account: 123456789012 is":   twice,
		"agents_per_role: -1":                    {AgentsPerRole: -1},
	} {
		if _, err := c.Open(platform.Server{}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if v, err := (awscaller.Config{Regions: []awscaller.Region{region}}).Open(platform.Server{}); v != nil || err != nil {
		t.Errorf("no account: %v, %v", v, err)
	}
	c := of(role)
	if err := c.Takes([]string{"aws_caller_identity:role:" + role}); err != nil {
		t.Error(err)
	}
	if err := c.Takes([]string{"aws_caller_identity:role:" + role + "2"}); err == nil {
		t.Error("a role that is not named is taken")
	}
	t.Setenv("AWS_REGION", "")
	for _, h := range []awscaller.Host{{}, {Region: "environment"}, {Region: "mars"}, {Region: "us-isob-east-1"}} {
		if err := h.Try(); err == nil || !strings.HasPrefix(err.Error(), "region: ") {
			t.Errorf("%+v: %v", h, err)
		}
	}
}

// ECS names the session of a task's role by the task's id.
func TestATaskOfAnotherSessionThanItsOwnIsRefused(t *testing.T) {
	aws := parts.NewSTS(t, account)
	v, k := verifier(t, config(aws, aws.ARN("web")))
	e, mine, other := signed(t, aws, aws.ARN("web")), strings.Repeat("0", 32), strings.Repeat("f", 32)
	aws.Answer(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, parts.CallerIdentity, "arn:aws:sts::"+account+":assumed-role/web/"+mine, account)
	})
	e.Task = parts.ECSTaskARN(other)
	if _, err := v.Verify(t.Context(), e, trustDomain, challenge, time.Now()); err == nil || errors.Is(err, platform.ErrNotNow) || !strings.Contains(err.Error(), "it is task "+other+", and its evidence is of task "+mine) || len(k.took)+len(k.used) != 0 {
		t.Errorf("%v, it took of %v", err, k.took)
	}
	e.Task = parts.ECSTaskARN(mine)
	if _, err := v.Verify(t.Context(), e, trustDomain, challenge, time.Now()); err != nil {
		t.Errorf("the task itself: %v", err)
	}
}
