package awstask

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"signet.example/attestation/platform"
	"signet.example/identity"
	"signet.example/internal/awsclient"
)

const (
	maxAccounts = 16 // each has keys by which a token may have to be verified
	maxID       = 256
	// maxAge is how long after it was issued a token is taken, whatever it says itself.
	maxAge = 5 * time.Minute
)

// roleSelector begins the one of a role.
const roleSelector = Name + ":role:"

// namespace is the claim in which STS says what is AWS's own.
const namespace = "https://sts.amazonaws.com/"

// Config is the server's end, as configured. Without accounts the method is off.
type Config struct {
	Accounts []Account `yaml:"accounts" json:"accounts"`
	// AgentsPerRole is how many agents may be there at a time that joined by one role; 5,000
	// where it is not given. What is proven is the role: whoever has it can join again and again.
	AgentsPerRole int `yaml:"agents_per_role" json:"agents_per_role"`
}

// MostOfRole is how many agents a role may have.
func (c Config) MostOfRole() int { return cmp.Or(c.AgentsPerRole, platform.DefaultAgents) }

// Account is an account of AWS whose tasks may join.
type Account struct {
	// Account is its number, of twelve digits.
	Account string `yaml:"account" json:"account"`
	// Issuer is the URL that `aws iam get-outbound-web-identity-federation-info` has for it.
	Issuer string `yaml:"issuer" json:"issuer"`
	// Roles, by ARN, whose tasks may join.
	Roles []string `yaml:"roles" json:"roles"`
}

// Takes returns why tasks with these selectors are not let in any more that joined once: their
// role is not named now.
func (c Config) Takes(selectors []string) error {
	role := strings.TrimPrefix(Principal(selectors), roleSelector)
	if slices.ContainsFunc(c.Accounts, func(a Account) bool { return slices.Contains(a.Roles, role) }) {
		return nil
	}
	return fmt.Errorf("its role %s is not among those in join.%s.accounts of the server", identity.Abbreviate(role), Name)
}

// Issuers are those of the accounts. Their keys are at the one path that AWS documents:
// no discovery document says where else.
func (c Config) Issuers() []platform.Issuer {
	var list []platform.Issuer
	for _, a := range c.Accounts {
		list = append(list, platform.Issuer{Name: "join." + Name + ":" + a.Account, URL: a.Issuer, Keys: a.Issuer + "/.well-known/jwks.json"})
	}
	return list
}

// Verifier checks evidence.
type Verifier struct {
	accounts map[string]Account // by issuer
	issuers  []platform.Issuer
	server   platform.Server
}

// Open checks the configuration; nil where the method is off. An error begins with the key.
func (c Config) Open(s platform.Server) (*Verifier, error) {
	if err := platform.CheckAgents(c.AgentsPerRole); err != nil {
		return nil, fmt.Errorf("agents_per_role: %w", err)
	}
	if len(c.Accounts) == 0 {
		return nil, nil
	}
	if n := len(c.Accounts); n > maxAccounts {
		return nil, fmt.Errorf("accounts: %d of them: at most %d", n, maxAccounts)
	}
	v := &Verifier{accounts: map[string]Account{}, issuers: c.Issuers(), server: s}
	for i, a := range c.Accounts {
		if err := a.check(); err != nil {
			return nil, fmt.Errorf("accounts[%d].%w", i, err)
		}
		if _, twice := v.accounts[a.Issuer]; twice {
			return nil, fmt.Errorf("accounts[%d].issuer: it is another account's, too: each has its own", i)
		}
		if slices.ContainsFunc(c.Accounts[:i], func(b Account) bool { return a.Account == b.Account }) {
			return nil, fmt.Errorf("accounts[%d].account: %s is there twice", i, a.Account)
		}
		v.accounts[a.Issuer] = a
	}
	return v, nil
}

func (a Account) check() error {
	if err := awsclient.CheckAccount(a.Account); err != nil {
		return fmt.Errorf("account: %w", err)
	}
	if err := checkIssuer(a.Issuer); err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	return awsclient.CheckRoles(a.Account, a.Roles)
}

func checkIssuer(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(s, "/") {
		return fmt.Errorf("%q: want the URL that `aws iam get-outbound-web-identity-federation-info` has, such as https://….tokens.sts.global.api.aws", s)
	}
	a, _ := netip.ParseAddr(u.Hostname())
	if u.Scheme != "https" && (u.Scheme != "http" || !a.IsLoopback()) {
		return fmt.Errorf("%q: it must be https: who sits on the wire would write the keys", s)
	}
	return nil
}

// Evidence is what a task shows.
type Evidence struct {
	Token string
	// Task is its ARN by its own word, "" where it has none: it proves nothing.
	Task string
}

// Verify checks evidence about a challenge of a trust domain, takes an agent of its role's quota
// and uses it up. It returns the task's selectors. An error other than platform.ErrNotNow is the host's fault.
func (v *Verifier) Verify(ctx context.Context, e Evidence, trustDomain string, challenge []byte, now time.Time) (identity.Selectors, error) {
	if err := platform.CheckToken(e.Token); err != nil {
		return nil, err
	}
	t, err := v.server.Tokens.Verify(v.issuers, e.Token, audience(trustDomain, challenge), now)
	if err != nil {
		return nil, err
	}
	id, sels, err := v.judge(t, now)
	if err == nil {
		err = awsclient.SameTask(e.Task, v.accounts[t.Issuer].Account, "")
	}
	if err != nil {
		return nil, err
	}
	first, err := v.server.Use(ctx, Principal(sels.Strings()), sels.Strings(), nil, id, now, t.Expires)
	switch {
	case err != nil:
		return nil, err
	case !first:
		return nil, errors.New("the token was used before (jti)")
	}
	return sels, nil
}

// judge looks at the claims of a token whose signature is good. It returns by what the token is
// known, and what it shows.
func (v *Verifier) judge(t platform.Token, now time.Time) (id []byte, sels identity.Selectors, err error) {
	account, ok := v.accounts[t.Issuer]
	if !ok {
		return nil, nil, errors.New("its issuer (iss) is that of no account in join." + Name + ".accounts")
	}
	aws, _ := t.Claims[namespace].(map[string]any)
	number, _ := aws["aws_account"].(string)
	jti, _ := t.Claims["jti"].(string)
	switch {
	case len(t.Audience) != 1:
		return nil, nil, errors.New("it is for more than one audience (aud)")
	case number != account.Account:
		return nil, nil, errors.New("its account (aws_account) is not that of its issuer")
	case !slices.Contains(account.Roles, t.Subject):
		return nil, nil, fmt.Errorf("its role (sub) %s is not among the roles of account %s in join.%s.accounts", identity.Abbreviate(t.Subject), account.Account, Name)
	case t.Issued.IsZero() || now.Sub(t.Issued) > maxAge:
		return nil, nil, fmt.Errorf("it was issued (iat) more than %s ago", maxAge)
	case jti == "" || len(jti) > maxID:
		return nil, nil, fmt.Errorf("it has no id (jti) of 1 to %d bytes", maxID)
	}
	region, _ := aws["source_region"].(string)
	return platform.Hash(Name, t.Issuer, jti), selectorsOf(account.Account, t.Subject, region), nil
}

// Selectors are the forms that a task has, each with a check of the value. All are AWS's
// word: what a task says of itself is none of them.
var Selectors = map[string]func(string) error{
	"account": awsclient.CheckAccount,
	"role":    awsclient.CheckRole,
	"region":  awsclient.CheckRegion,
}

// Principal is who vouched for a task with these selectors: the one of its role.
func Principal(selectors []string) string {
	i := slices.IndexFunc(selectors, func(s string) bool { return strings.HasPrefix(s, roleSelector) })
	if i < 0 {
		return ""
	}
	return selectors[i]
}

// selectorsOf leaves out what no group can name.
func selectorsOf(account, role, region string) identity.Selectors {
	var sels identity.Selectors
	for _, s := range [][2]string{{"account", account}, {"role", role}, {"region", region}} {
		parsed, err := identity.ParseSelector(Name + ":" + s[0] + ":" + s[1])
		if err == nil && Selectors[s[0]](s[1]) == nil {
			sels = append(sels, parsed)
		}
	}
	return sels
}
