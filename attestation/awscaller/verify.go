package awscaller

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"signet.example/attestation/platform"
	"signet.example/identity"
	"signet.example/internal/awsclient"
)

const (
	// maxAge is how long after it was signed a question is asked; ahead is how far the clocks of
	// the two ends may be apart the other way.
	maxAge, ahead = 5 * time.Minute, time.Minute
	maxSession    = 8 << 10
)

// Each part is of a form in which there is no end of a header, and no room for a second one.
var (
	keyIDRE     = regexp.MustCompile(`^[A-Z0-9]{16,128}$`)
	dateRE      = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z$`)
	signatureRE = regexp.MustCompile(`^[0-9a-f]{64}$`)
	tokenRE     = regexp.MustCompile(`^[A-Za-z0-9+/=_-]+$`)
	callerRE    = regexp.MustCompile(`^arn:([a-z-]+):sts::([0-9]{12}):assumed-role/([\w+=,.@-]{1,64})/([\w+=,.@-]{2,64})$`)
)

// check refuses what is no evidence. It verifies nothing.
func (e Evidence) check() error {
	switch {
	case !keyIDRE.MatchString(e.AccessKeyID):
		return errors.New("the id of its access key is none")
	case !dateRE.MatchString(e.Date):
		return errors.New("its date is none, such as 20260102T150405Z")
	case !signatureRE.MatchString(e.Signature):
		return errors.New("its signature is none: want 64 digits in hex")
	case e.SessionToken == "":
		return errors.New("it has no session token: want the credentials of a role, and not the keys of a user")
	case len(e.SessionToken) > maxSession || !tokenRE.MatchString(e.SessionToken):
		return errors.New("its session token is none of 1 to 8192 letters of base64")
	}
	return nil
}

// Check refuses evidence that is not to be looked at. It verifies nothing.
func Check(e Evidence) error { return e.check() }

// Verifier checks evidence.
type Verifier struct {
	regions map[string]string // the endpoint, "" for its own
	cfg     Config
	server  platform.Server
}

// Open checks the configuration; nil where the method is off. An error begins with the key.
func (c Config) Open(s platform.Server) (*Verifier, error) {
	if err := platform.CheckAgents(c.AgentsPerRole); err != nil {
		return nil, fmt.Errorf("agents_per_role: %w", err)
	}
	if len(c.Accounts) == 0 {
		return nil, nil
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	v := &Verifier{regions: map[string]string{}, cfg: c, server: s}
	for _, r := range c.Regions {
		v.regions[r.Region] = r.Endpoint
	}
	return v, nil
}

// Verify asks STS a question about a challenge of a trust domain, takes an agent of its role's
// quota and uses it up. It returns the task's selectors. An error other than platform.ErrNotNow is
// the host's fault.
func (v *Verifier) Verify(ctx context.Context, e Evidence, trustDomain string, challenge []byte, now time.Time) (identity.Selectors, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	endpoint, ok := v.regions[e.Region]
	if !ok {
		return nil, fmt.Errorf("its region %s is not among those in join.%s.regions", identity.Abbreviate(e.Region), Name)
	}
	signed, err := time.Parse(dateForm, e.Date)
	switch {
	case err != nil:
		return nil, errors.New("its date is none")
	case now.Sub(signed) > maxAge:
		return nil, fmt.Errorf("it was signed more than %s ago", maxAge)
	case signed.Sub(now) > ahead:
		return nil, fmt.Errorf("it was signed more than %s from now: one of two clocks is wrong", ahead)
	}
	req, err := e.question(ctx, endpoint, audience(trustDomain, challenge))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", e.authorization())
	who, err := ask(req)
	if err != nil {
		return nil, err
	}
	sels, err := v.judge(who, e.Task)
	if err != nil {
		return nil, err
	}
	first, err := v.server.Use(ctx, Principal(sels.Strings()), sels.Strings(), nil, platform.Hash(Name, e.Signature), now, signed.Add(maxAge))
	switch {
	case err != nil:
		return nil, err
	case !first:
		return nil, errors.New("the question was used before")
	}
	return sels, nil
}

// judge looks at whom STS named, and whether the task says that it is another.
func (v *Verifier) judge(who caller, task string) (identity.Selectors, error) {
	parts := callerRE.FindStringSubmatch(who.ARN)
	if parts == nil {
		return nil, fmt.Errorf("it is signed by %s, which is no role that was assumed", identity.Abbreviate(who.ARN))
	}
	partition, account, name := parts[1], parts[2], parts[3]
	if account != who.Account {
		return nil, errors.New("its account is not that of its role")
	}
	if err := awsclient.SameTask(task, account, parts[4]); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(v.cfg.Accounts, func(a Account) bool { return a.Account == account })
	if i < 0 {
		return nil, fmt.Errorf("its account %s is not among those in join.%s.accounts", account, Name)
	}
	prefix := "arn:" + partition + ":iam::" + account + ":role/"
	j := slices.IndexFunc(v.cfg.Accounts[i].Roles, func(r string) bool { return nameOf(r) == name && r[:min(len(r), len(prefix))] == prefix })
	if j < 0 {
		return nil, fmt.Errorf("its role %s is not among the roles of account %s in join.%s.accounts", identity.Abbreviate(name), account, Name)
	}
	return identity.ParseSelectors([]string{Name + ":account:" + account, roleSelector + v.cfg.Accounts[i].Roles[j]})
}
