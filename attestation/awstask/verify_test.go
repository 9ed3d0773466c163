package awstask_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"signet.example/attestation/awstask"
	"signet.example/attestation/platform"
	"signet.example/test/parts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// read reads tokens and trusts them; what a token's form, signature and times
// are held to is tested where that is done (server/issuers, authz/jwt).
type read struct {
	now      time.Time
	audience string // that was asked for
}

func (r *read) Verify(_ []platform.Issuer, text, audience string, _ time.Time) (platform.Token, error) {
	r.audience = audience
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(text, ".")[1])
	if err != nil {
		return platform.Token{}, err
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		return platform.Token{}, err
	}
	t := platform.Token{Claims: claims}
	t.Issuer, _ = claims["iss"].(string)
	t.Subject, _ = claims["sub"].(string)
	if n, ok := claims["iat"].(float64); ok {
		t.Issued = time.Unix(int64(n), 0)
	}
	if n, ok := claims["exp"].(float64); ok {
		t.Expires = time.Unix(int64(n), 0)
	}
	switch aud := claims["aud"].(type) {
	case string:
		t.Audience = []string{aud}
	case []any:
		t.Audience = make([]string, len(aud))
	}
	return t, nil
}

// used is where it is kept what was used.
type used struct {
	mu    sync.Mutex
	until map[string]time.Time
	err   error
}

func (u *used) Used(_ context.Context, hash []byte, _ time.Time) (bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, known := u.until[string(hash)]
	return known, nil
}

func (u *used) UseOnce(_ context.Context, hash []byte, _, until time.Time) (bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, known := u.until[string(hash)]
	u.until[string(hash)] = until
	return !known, u.err
}

// quota is that of all roles.
type quota struct {
	err  error
	took []string
}

func (q *quota) Take(principal string, _ []byte) error {
	q.took = append(q.took, principal)
	return q.err
}

func config(aws *parts.STS, roles ...string) awstask.Config {
	return awstask.Config{Accounts: []awstask.Account{{Account: aws.Account, Issuer: aws.Issuer(), Roles: roles}}}
}

func verifier(t testing.TB, aws *parts.STS, roles ...string) (*awstask.Verifier, *read) {
	t.Helper()
	tokens := &read{now: time.Now()}
	v, err := config(aws, roles...).Open(platform.Server{Tokens: tokens, Once: &used{until: map[string]time.Time{}}, Quota: &quota{}, Group: func([]string) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return v, tokens
}

func TestATokenThatShowsAnotherThingIsRefused(t *testing.T) {
	aws := parts.NewSTS(t, account)
	v, tokens := verifier(t, aws, aws.ARN("web"), aws.ARN("path/orders"))
	claims := aws.Claims(aws.ARN("web"), "eu-west-1", audience(), time.Minute)
	inside := func(with map[string]any) map[string]any {
		inner := maps.Clone(claims["https://sts.amazonaws.com/"].(map[string]any)) //nolint:forcetypeassert // it is
		maps.Copy(inner, with)
		return map[string]any{"https://sts.amazonaws.com/": inner}
	}
	for name, c := range map[string]struct {
		claims map[string]any
		want   string // of the error; "" for none
	}{
		"good":                         {claims, ""},
		"of another role here":         {parts.Without(claims, map[string]any{"sub": aws.ARN("path/orders"), "jti": "2"}), ""},
		"of a role that is not listed": {parts.Without(claims, map[string]any{"sub": aws.ARN("admin")}), "its role (sub)"},
		"of a role in another case":    {parts.Without(claims, map[string]any{"sub": aws.ARN("Web")}), "its role (sub)"},
		"of a user":                    {parts.Without(claims, map[string]any{"sub": "arn:aws:iam::123456789012:user/web"}), "its role (sub)"},
		"of no role":                   {parts.Without(claims, nil, "sub"), "its role (sub)"},
		"of another account":           {parts.Without(claims, inside(map[string]any{"aws_account": "210987654321"})), "its account"},
		"of an account as a number":    {parts.Without(claims, inside(map[string]any{"aws_account": 123456789012})), "its account"},
		"of no account":                {parts.Without(claims, nil, "https://sts.amazonaws.com/"), "its account"},
		"of an account outside":        {parts.Without(claims, map[string]any{"aws_account": account}, "https://sts.amazonaws.com/"), "its account"},
		"of another issuer":            {parts.Without(claims, map[string]any{"iss": "https://other.example"}), "its issuer"},
		"for two":                      {parts.Without(claims, map[string]any{"aud": []string{audience(), "https://bank.example"}}), "it is for more than one"},
		"that is old":                  {parts.Without(claims, map[string]any{"iat": tokens.now.Add(-5*time.Minute - 2*time.Second).Unix(), "exp": tokens.now.Add(time.Hour).Unix()}), "it was issued (iat) more than 5m0s ago"},
		"that is nearly old":           {parts.Without(claims, map[string]any{"jti": "3", "iat": tokens.now.Add(-5*time.Minute + 2*time.Second).Unix()}), ""},
		"without a time":               {parts.Without(claims, nil, "iat"), "it was issued"},
		"without an id":                {parts.Without(claims, nil, "jti"), "it has no id"},
		"with an empty id":             {parts.Without(claims, map[string]any{"jti": ""}), "it has no id"},
		"with a long id":               {parts.Without(claims, map[string]any{"jti": strings.Repeat("j", 257)}), "it has no id"},
		"with an id as a number":       {parts.Without(claims, map[string]any{"jti": 7}), "it has no id"},
	} {
		sels, err := v.Verify(t.Context(), awstask.Evidence{Token: aws.Sign(c.claims)}, "test.example", challenge, tokens.now)
		if (err == nil) != (c.want == "") || (err == nil) != (sels != nil) || err != nil && !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v, %v", name, sels, err)
		}
	}
	if _, err := v.Verify(t.Context(), awstask.Evidence{Token: aws.Sign(claims)}, "test.example", challenge, tokens.now); err == nil || !strings.Contains(err.Error(), "used before") {
		t.Errorf("again: %v", err)
	}
	for _, text := range []string{"", strings.Repeat("a", 8<<10+1)} {
		if err := platform.CheckToken(text); err == nil {
			t.Errorf("%d bytes are looked at", len(text))
		}
	}
}

func TestATokenIsOneAccountsAndUsedIsUsedThere(t *testing.T) {
	one, other := parts.NewSTS(t, account), parts.NewSTS(t, "210987654321")
	tokens, once := &read{now: time.Now()}, &used{until: map[string]time.Time{}}
	cfg := awstask.Config{Accounts: append(config(one, one.ARN("web")).Accounts, config(other, other.ARN("web")).Accounts...)}
	v, err := cfg.Open(platform.Server{Tokens: tokens, Once: once, Quota: &quota{}, Group: func([]string) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	verify := func(s *parts.STS, claims map[string]any) error {
		_, err := v.Verify(t.Context(), awstask.Evidence{Token: s.Sign(claims)}, "test.example", challenge, tokens.now)
		return err
	}
	mine := one.Claims(one.ARN("web"), "eu-west-1", audience(), time.Minute)
	theirs := other.Claims(other.ARN("web"), "eu-west-1", audience(), time.Minute)
	theirs["jti"] = mine["jti"] // ids are an issuer's own
	if err := errors.Join(verify(one, mine), verify(other, theirs)); err != nil {
		t.Error(err)
	}
	// An account's issuer says nothing of another one.
	theirs["iss"], theirs["jti"] = one.Issuer(), "2"
	if err := verify(one, theirs); err == nil || !strings.Contains(err.Error(), "not that of its issuer") {
		t.Error(err)
	}
	for _, until := range once.until {
		if d := until.Sub(tokens.now); d < time.Hour || d > time.Hour+2*time.Minute {
			t.Errorf("remembered for %s", d)
		}
	}
	once.err = errors.New("no disk")
	mine["jti"] = "3"
	if err := verify(one, mine); !errors.Is(err, platform.ErrNotNow) {
		t.Errorf("where it cannot be kept that it was used: %v", err)
	}
}

// Nobody uses up what a role has whose token he does not have, and a task for which nothing is
// left has used up nothing either.
func TestATokenTakesOfItsRolesQuotaWhenAllElseIsGoodAndBeforeItIsUsedUp(t *testing.T) {
	aws := parts.NewSTS(t, account)
	tokens, once, left := &read{now: time.Now()}, &used{until: map[string]time.Time{}}, &quota{}
	v, err := config(aws, aws.ARN("web")).Open(platform.Server{Tokens: tokens, Once: once, Quota: left, Group: func([]string) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	claims := aws.Claims(aws.ARN("web"), "eu-west-1", audience(), time.Minute)
	verify := func(claims map[string]any) error {
		_, err := v.Verify(t.Context(), awstask.Evidence{Token: aws.Sign(claims)}, "test.example", challenge, tokens.now)
		return err
	}
	for _, bad := range []map[string]any{
		parts.Without(claims, map[string]any{"sub": aws.ARN("admin")}), parts.Without(claims, nil, "jti"), parts.Without(claims, map[string]any{"iat": 1}),
	} {
		if verify(bad) == nil || len(left.took) != 0 {
			t.Errorf("%v took of the quota of %q", bad, left.took)
		}
	}
	full := errors.New("full")
	left.err = full
	if err := verify(claims); !errors.Is(err, platform.ErrNotNow) || !errors.Is(err, full) || len(once.until) != 0 {
		t.Errorf("with nothing left: %v, %d used up", err, len(once.until))
	}
	left.err = nil
	if err := verify(claims); err != nil || !slices.Equal(left.took, []string{"aws_task:role:" + aws.ARN("web"), "aws_task:role:" + aws.ARN("web")}) {
		t.Errorf("with something left: %v, of %q", err, left.took)
	}
}

func TestAServersConfigurationIsRefusedByItsKey(t *testing.T) {
	const issuer, role = "https://a1.tokens.sts.global.api.aws", "arn:aws:iam::123456789012:role/web"
	good := awstask.Account{Account: account, Issuer: issuer, Roles: []string{role}}
	change := func(f func(*awstask.Account)) awstask.Config {
		a := good
		f(&a)
		return awstask.Config{Accounts: []awstask.Account{a}}
	}
	if v, err := (awstask.Config{}).Open(platform.Server{}); v != nil || err != nil {
		t.Errorf("without accounts: %v, %v", v, err)
	}
	if _, err := change(func(*awstask.Account) {}).Open(platform.Server{}); err != nil {
		t.Error(err)
	}
	twice := awstask.Config{Accounts: []awstask.Account{good, good}}
	same := awstask.Config{Accounts: []awstask.Account{good, {Account: account, Issuer: issuer + ".example", Roles: good.Roles}}}
	for name, c := range map[string]struct {
		cfg  awstask.Config
		want string
	}{
		"no number":      {change(func(a *awstask.Account) { a.Account = "1234" }), "accounts[0].account: "},
		"no issuer":      {change(func(a *awstask.Account) { a.Issuer = "" }), "accounts[0].issuer: "},
		"a path's end":   {change(func(a *awstask.Account) { a.Issuer += "/" }), "accounts[0].issuer: "},
		"plain http":     {change(func(a *awstask.Account) { a.Issuer = "http://a1.example" }), "accounts[0].issuer: "},
		"a query":        {change(func(a *awstask.Account) { a.Issuer += "?x" }), "accounts[0].issuer: "},
		"a password":     {change(func(a *awstask.Account) { a.Issuer = "https://u:p@a1.example" }), "accounts[0].issuer: "},
		"no roles":       {change(func(a *awstask.Account) { a.Roles = nil }), "accounts[0].roles: "},
		"all roles":      {change(func(a *awstask.Account) { a.Roles = []string{"*"} }), "accounts[0].roles[0]: "},
		"another's role": {change(func(a *awstask.Account) { a.Roles = []string{role, strings.Replace(role, "12:", "13:", 1)} }), "accounts[0].roles[1]: "},
		"one issuer":     {twice, "accounts[1].issuer: "},
		"one account":    {same, "accounts[1].account: "},
		"no agents":      {awstask.Config{Accounts: []awstask.Account{good}, AgentsPerRole: -1}, "agents_per_role: "},
		"all agents":     {awstask.Config{Accounts: []awstask.Account{good}, AgentsPerRole: 16001}, "agents_per_role: "},
		"too many":       {awstask.Config{Accounts: make([]awstask.Account, 17)}, "accounts: "},
	} {
		if _, err := c.cfg.Open(platform.Server{}); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if got := (awstask.Config{Accounts: []awstask.Account{good}}).Issuers(); len(got) != 1 || got[0].Keys != issuer+"/.well-known/jwks.json" || got[0].Name != "join.aws_task:123456789012" {
		t.Errorf("%+v", got)
	}
}

func TestATaskIsOfARoleThatIsNamedNow(t *testing.T) {
	const role = "arn:aws:iam::123456789012:role/web"
	cfg := awstask.Config{Accounts: []awstask.Account{{Roles: []string{"arn:aws:iam::123456789012:role/job"}}, {Roles: []string{role}}}}
	has := []string{"aws_task:account:123456789012", "aws_task:role:" + role, "aws_task:region:eu-west-1"}
	if err := cfg.Takes(has); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"another role": cfg.Takes([]string{"aws_task:role:" + role + "s"}), "no role": cfg.Takes(has[:1]), "no account any more": (awstask.Config{}).Takes(has),
	} {
		if err == nil {
			t.Errorf("%s is taken", what)
		}
	}
}

func TestASelectorHasTheOneFormThatTasksHave(t *testing.T) {
	for form, values := range map[string]struct{ good, bad []string }{
		"account": {[]string{account}, []string{"", "1", "12345678901a"}},
		"role":    {[]string{"arn:aws:iam::123456789012:role/web"}, []string{"", "web", "arn:aws:iam::123456789012:role/*"}},
		"region":  {[]string{"eu-west-1"}, []string{"", "EU", "eu-west-*"}},
	} {
		for _, s := range values.good {
			if err := awstask.Selectors[form](s); err != nil {
				t.Errorf("%s:%s: %v", form, s, err)
			}
		}
		for _, s := range values.bad {
			if awstask.Selectors[form](s) == nil {
				t.Errorf("%s:%s is taken", form, s)
			}
		}
	}
}

func FuzzClaims(f *testing.F) {
	aws := parts.NewSTS(f, account)
	good, err := json.Marshal(aws.Claims(aws.ARN("web"), "eu-west-1", audience(), time.Minute))
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{string(good), `{}`, `{"iss":7,"https://sts.amazonaws.com/":[]}`, strings.Replace(string(good), "eu-west-1", "\x00", 1), strings.Replace(string(good), "role/web", "role/web\\u0000", 1)} {
		f.Add([]byte(s))
	}
	now := time.Now()
	f.Fuzz(func(t *testing.T, payload []byte) {
		var claims map[string]any
		if json.Unmarshal(payload, &claims) != nil {
			return
		}
		v, _ := verifier(t, aws, aws.ARN("web"))
		sels, err := v.Verify(t.Context(), awstask.Evidence{Token: "x." + base64.RawURLEncoding.EncodeToString(payload) + ".x"}, "test.example", challenge, now)
		if (err == nil) != (sels != nil) {
			t.Fatalf("%v, %v", sels, err)
		}
		if err == nil && (claims["sub"] != aws.ARN("web") || claims["iss"] != aws.Issuer()) {
			t.Errorf("%s shows a task of ours", payload)
		}
	})
}

// What ECS says of a task is its own word: it is compared, and nothing is used up where it is another.
func TestATaskOfAnotherAccountThanItsTokenSaysIsRefused(t *testing.T) {
	aws := parts.NewSTS(t, account)
	v, tokens := verifier(t, aws, aws.ARN("web"))
	e := awstask.Evidence{Token: aws.Sign(aws.Claims(aws.ARN("web"), "eu-west-1", audience(), time.Minute)), Task: "arn:aws:ecs:eu-west-1:210987654321:task/prod/" + strings.Repeat("0", 32)}
	if _, err := v.Verify(t.Context(), e, "test.example", challenge, tokens.now); err == nil || errors.Is(err, platform.ErrNotNow) || !strings.Contains(err.Error(), "a task of account 210987654321") {
		t.Errorf("%v", err)
	}
	e.Task = parts.ECSTaskARN(strings.Repeat("0", 32))
	if _, err := v.Verify(t.Context(), e, "test.example", challenge, tokens.now); err != nil {
		t.Errorf("the task itself: %v", err)
	}
}
