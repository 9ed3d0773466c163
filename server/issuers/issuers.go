package issuers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"signet.example/api"
	"signet.example/authz/jwt"
	"signet.example/internal/plain"
	"signet.example/internal/retry"
	"signet.example/internal/watched"
	"signet.example/server/shared"
)

// failing is when keys that could not be fetched are fetched again, unless the refresh is
// sooner.
var failing = retry.Policy{First: 5 * time.Second, Most: 10 * time.Second, Jitter: 0.2}

const (
	parallel = 4
	patience = 3 * time.Second // of whoever applies an issuer
)

// Set is what was last fetched for one issuer, with success.
type Set struct {
	URL     string    `json:"url"`
	JWKS    []byte    `json:"jwks"`
	Fetched time.Time `json:"fetched"`
}

// Sets are by the keys of their issuers ([jwt.Issuer.Key]). Immutable.
type Sets map[string]Set

// attempt is what became of the last one of this server to fetch an issuer's keys.
type attempt struct {
	url    string
	next   time.Time // when to fetch again
	failed int       // attempts since the last success
	err    string
	left   []error // keys of the set that are not used
}

// Config of Keys. Every field is needed.
type Config struct {
	// List has the issuers that there are now. It may be called at any time.
	List func() []jwt.Issuer
	// Shared is the last good sets, whichever server fetched them.
	Shared shared.Value[Sets]
	// Changed is called when the keys that are served are others. It must not wait.
	Changed  func()
	Log      *slog.Logger
	Clock    func() time.Time
	Failures *prometheus.CounterVec // of fetches, by issuer
}

// Keys keeps the public keys of end-user token issuers. Only the server
// fetches: agents and proxies need no way out, and what they trust is one thing.
// The last good keys are kept over failures and restarts; an issuer whose keys
// were never there is served without any, so that its tokens are refused: were
// it left out and no other there, tokens would not be looked at at all.
//
// Decision (A18): the URL was written by an operator over the admin socket, so a
// literal loopback or private address in it is meant. An address that a name
// resolves to is not: one of this host or of a metadata service (inside) is
// refused at the dial, or before a proxy is asked, as are redirects to another host.
type Keys struct {
	Config
	renew watched.Signal
	found *lookups

	mu    sync.Mutex          // guards tried and what it leads to
	tried map[string]*attempt // by issuer
}

// New returns Keys that have tried nothing.
func New(c Config) *Keys {
	return &Keys{Config: c, renew: watched.NewSignal(), found: newLookups(), tried: map[string]*attempt{}}
}

// sets are the last good ones.
func (i *Keys) sets() Sets {
	now, _ := i.Shared.Get()
	return now
}

// Renew has Run look at the list again. It never waits.
func (i *Keys) Renew() { i.renew.Wake() }

// Run fetches keys as they come due or are wanted, and follows what other servers fetch,
// until ctx ends.
func (i *Keys) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { return i.keep(ctx) })
	g.Go(func() error { return i.find(ctx) })
	return g.Wait()
}

// keep fetches sets as they come due.
func (i *Keys) keep(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var seen Sets // of which nobody was told
	for {
		now, changed := i.Shared.Get()
		if !maps.EqualFunc(now, seen, Set.same) {
			i.Changed()
		}
		seen = now
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-i.renew:
		case <-timer.C:
		}
		timer.Reset(i.refresh(ctx))
	}
}

// same reports whether the two are one set of keys, whenever it was fetched.
func (s Set) same(o Set) bool { return s.URL == o.URL && bytes.Equal(s.JWKS, o.JWKS) }

// refresh fetches what is due, and returns in how long the next is.
func (i *Keys) refresh(ctx context.Context) time.Duration {
	var g errgroup.Group
	g.SetLimit(parallel)
	list := i.List()
	i.forget(list)
	for _, is := range list {
		if is.JWKSURL == "" || !i.due(is) {
			continue
		}
		g.Go(func() error {
			jwks, left, err := Fetch(ctx, is.JWKSURL)
			i.learn(ctx, is, jwks, left, err)
			return nil
		})
	}
	_ = g.Wait() // learn has recorded each failure
	next := time.Hour
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, k := range i.tried {
		next = min(next, max(k.next.Sub(i.Clock()), 100*time.Millisecond))
	}
	return next
}

// due reports whether an issuer's keys are to be fetched: it is time, or another server
// whose list is older has let go of them. What was fetched before a restart is not fetched
// again because of it.
func (i *Keys) due(is jwt.Issuer) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	k, now := i.tried[is.Name], i.Clock()
	if s := i.sets()[is.Name]; k == nil && s.URL == is.JWKSURL && !s.Fetched.After(now) && s.Fetched.Add(is.Refresh).After(now) {
		k = &attempt{url: is.JWKSURL, next: s.Fetched.Add(is.Refresh)}
		i.tried[is.Name] = k
	}
	return k == nil || k.url != is.JWKSURL || !k.next.After(now) || k.err == "" && i.sets()[is.Name].URL != is.JWKSURL
}

// forget drops what the model no longer has: keys of another URL vouch for nothing here.
func (i *Keys) forget(list []jwt.Issuer) {
	urls := map[string]string{}
	for _, is := range list {
		urls[is.Key()] = sourceOf(is)
	}
	gone := func(name string, s Set) bool { return urls[name] != s.URL }
	for name, s := range i.sets() {
		if gone(name, s) {
			i.Shared.Update(func(now Sets) Sets {
				next := maps.Clone(now)
				maps.DeleteFunc(next, gone)
				return next
			})
			break
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	maps.DeleteFunc(i.tried, func(name string, k *attempt) bool { return urls[name] != k.url })
}

// sourceOf is where an issuer's keys are fetched; "" if they are inline.
func sourceOf(is jwt.Issuer) string {
	if is.ALB != nil {
		return is.ALB.KeysURL
	}
	return is.JWKSURL
}

// learn takes what came of a fetch.
func (i *Keys) learn(ctx context.Context, is jwt.Issuer, jwks []byte, left []error, err error) {
	i.noted(ctx, is, left, err)
	if err != nil {
		return
	}
	i.put(is, func([]byte) ([]byte, error) { return jwks, nil })
}

// put makes an issuer's set what it becomes; it stays as it is where that is an error.
func (i *Keys) put(is jwt.Issuer, becomes func(jwks []byte) ([]byte, error)) {
	changed := false
	i.Shared.Update(func(now Sets) Sets {
		old := now[is.Key()]
		if old.URL != sourceOf(is) {
			old = Set{}
		}
		jwks, err := becomes(old.JWKS)
		if err != nil {
			return now
		}
		set := Set{URL: sourceOf(is), JWKS: jwks, Fetched: i.Clock()}
		changed = !old.same(set)
		next := maps.Clone(now)
		if next == nil {
			next = Sets{}
		}
		next[is.Key()] = set
		return next
	})
	if changed {
		i.Changed()
	}
}

// noted keeps what became of an attempt.
func (i *Keys) noted(ctx context.Context, is jwt.Issuer, left []error, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	failures := i.Failures.WithLabelValues(is.Name) // there from the first time, so that its first increase shows
	k := i.tried[is.Name]
	if k == nil || k.url != is.JWKSURL {
		k = &attempt{url: is.JWKSURL}
		i.tried[is.Name] = k
	}
	if err != nil {
		k.failed++
		k.err, k.next = plain.Text(err.Error()), i.Clock().Add(min(is.Refresh, failing.Next(k.failed, nil)))
		failures.Inc()
		i.Log.WarnContext(ctx, "issuer keys not fetched; the last good ones stay", slog.String("issuer", is.Name), slog.Any("err", err))
		return
	}
	if lost := Texts(left); !slices.Equal(lost, Texts(k.left)) && len(lost) > 0 {
		i.Log.WarnContext(ctx, "keys of the issuer's set are not used", slog.String("issuer", is.Name), slog.Any("left", lost))
	}
	k.left, k.failed, k.err, k.next = left, 0, "", i.Clock().Add(is.Refresh)
}

// Warnings names issuers whose keys cannot be fetched now: each is asked once,
// within a few seconds.
func Warnings(ctx context.Context, list []jwt.Issuer) []string {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(parallel)
	warnings := make([]string, len(list))
	for n, is := range list {
		if sourceOf(is) == "" {
			continue
		}
		g.Go(func() error {
			if err := reach(ctx, is); err != nil {
				kind, name := jwt.KindOf(is.Key())
				warnings[n] = fmt.Sprintf("%s %s: its keys cannot be fetched now, and its tokens are refused as long as there are none: %s", kind, name, plain.Text(err.Error()))
			}
			return nil
		})
	}
	_ = g.Wait() // each failure is a warning
	return slices.DeleteFunc(warnings, func(w string) bool { return w == "" })
}

// reach tries to fetch keys. Which a load balancer has is not known, but who answers that
// there is none of an id is there.
func reach(ctx context.Context, is jwt.Issuer) error {
	if is.ALB == nil {
		_, _, err := Fetch(ctx, is.JWKSURL)
		return err
	}
	_, err := lookUp(ctx, is.ALB.KeysURL, noKeyID)
	if errors.Is(err, errNoKey) {
		return nil
	}
	return err
}

// noKeys is a key set by which every token is refused.
var noKeys = []byte(`{"keys":[]}`)

// Resources are the issuers with their keys, as agents are told.
func (i *Keys) Resources(list []jwt.Issuer) []*api.JWTIssuer {
	var all []*api.JWTIssuer
	for _, is := range list {
		all = append(all, resource(is, i.of(is)))
	}
	return all
}

func resource(is jwt.Issuer, jwks []byte) *api.JWTIssuer {
	if b := is.ALB; b != nil {
		return &api.JWTIssuer{Name: is.Key(), LoadBalancer: &api.LoadBalancerIssuer{
			Issuer: is.Issuer, Clients: is.Audiences, Signers: b.Signers, Ingress: b.Ingress, Callers: b.Callers, Jwks: jwks,
		}}
	}
	return &api.JWTIssuer{Name: is.Key(), Issuer: is.Issuer, Audiences: is.Audiences, AudienceClaim: is.AudienceClaim, Jwks: jwks}
}

// of is the key set of an issuer, as it is now.
func (i *Keys) of(is jwt.Issuer) []byte {
	url := sourceOf(is)
	if url == "" {
		return is.JWKS
	}
	if s := i.sets()[is.Key()]; s.URL == url && len(s.JWKS) > 0 {
		return s.JWKS
	}
	return noKeys
}

// Verify checks a token of one of these issuers for an audience, by the keys that there are
// now, which no token causes to be fetched.
func (i *Keys) Verify(list []jwt.Issuer, text, audience string, now time.Time) (*jwt.Token, error) {
	c, err := jwt.Parse(text)
	if err != nil {
		return nil, err
	}
	list = slices.Clone(list)
	for n, is := range list {
		list[n].Audiences, list[n].JWKS = []string{audience}, i.of(is)
	}
	known, _ := jwt.NewIssuers(list) // a key that is left out is a finding since it was fetched
	t, err := known.Verify(c)
	if err != nil {
		return nil, err
	}
	return t, t.CheckTime(now)
}

// Failure is of the last fetch; Fetched is when the keys in use were, if ever.
type Failure struct {
	Err     string
	Fetched time.Time
}

// Failing lists the issuers, by key, whose last fetch by this server failed.
func (i *Keys) Failing() map[string]Failure {
	out := i.found.failing()
	for key, f := range out {
		f.Fetched = i.sets()[key].Fetched
		out[key] = f
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for name, k := range i.tried {
		if k.err != "" {
			f := Failure{Err: k.err}
			if s := i.sets()[name]; s.URL == k.url {
				f.Fetched = s.Fetched
			}
			out[name] = f
		}
	}
	return out
}

// Texts are errors as they may be shown.
func Texts(errs []error) []string {
	var list []string
	for _, err := range errs {
		list = append(list, plain.Text(err.Error()))
	}
	return list
}

// Losing lists the issuers whose set has keys that are not used.
func (i *Keys) Losing() map[string][]error {
	i.mu.Lock()
	defer i.mu.Unlock()
	out := map[string][]error{}
	for name, k := range i.tried {
		if len(k.left) > 0 {
			out[name] = k.left
		}
	}
	return out
}
