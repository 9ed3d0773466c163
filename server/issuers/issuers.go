package issuers

import (
	"context"
	"fmt"
	"log/slog"
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
)

// failing is when keys that could not be fetched are fetched again, unless the refresh is
// sooner.
var failing = retry.Policy{First: 5 * time.Second, Most: 10 * time.Second, Jitter: 0.2}

const (
	parallel = 4
	patience = 3 * time.Second // of whoever applies an issuer
)

// Set is what was last fetched for one JWTIssuer, with success.
type Set struct {
	URL     string    `json:"url"`
	JWKS    []byte    `json:"jwks"`
	Fetched time.Time `json:"fetched"`
}

// Store is where the last good sets outlive the server, by the names of their issuers.
type Store interface {
	// Load is called once, before anything else.
	Load() (map[string]Set, error)
	// Save replaces all that was saved before. It is never called twice at a time, and
	// the newest sets come last.
	Save(sets map[string]Set) error
}

// held is a Set and what became of the last attempt.
type held struct {
	Set
	next   time.Time // when to fetch again
	failed int       // attempts since the last success
	err    string    // of the last attempt
	left   []error   // keys of the set that are not used
}

// Config of Keys. Every field is needed.
type Config struct {
	// List has the issuers that there are now. It may be called at any time.
	List  func() []jwt.Issuer
	Store Store
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

	saving sync.Mutex // held while the sets are saved; taken before mu

	mu   sync.Mutex       // guards keys and what they lead to
	keys map[string]*held // by issuer
}

// New returns Keys with what the store has. An error means that this could not be read:
// only a cache is lost, and the Keys are good.
func New(c Config) (*Keys, error) {
	k := &Keys{Config: c, renew: watched.NewSignal(), keys: map[string]*held{}}
	sets, err := c.Store.Load()
	if err != nil {
		return k, fmt.Errorf("last known issuer keys: %w", err)
	}
	for name, s := range sets {
		if jwt.CheckKeys(s.JWKS) == nil {
			k.keys[name] = &held{Set: s}
		}
	}
	return k, nil
}

// Renew has Run look at the list again. It never waits.
func (i *Keys) Renew() { i.renew.Wake() }

// Run fetches keys as they come due until ctx ends.
func (i *Keys) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-i.renew:
		case <-timer.C:
		}
		timer.Reset(i.refresh(ctx))
	}
}

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
	for _, k := range i.keys {
		if !k.next.IsZero() {
			next = min(next, max(k.next.Sub(i.Clock()), 100*time.Millisecond))
		}
	}
	return next
}

func (i *Keys) due(is jwt.Issuer) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	k := i.keys[is.Name]
	return k == nil || k.URL != is.JWKSURL || !k.next.After(i.Clock())
}

// forget drops what the model no longer has.
func (i *Keys) forget(list []jwt.Issuer) {
	urls := map[string]string{}
	for _, is := range list {
		urls[is.Name] = is.JWKSURL
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for name, k := range i.keys {
		if urls[name] != k.URL { // keys of another URL vouch for nothing here
			delete(i.keys, name)
		}
	}
}

func (i *Keys) learn(ctx context.Context, is jwt.Issuer, jwks []byte, left []error, err error) {
	if i.learned(ctx, is, jwks, left, err) {
		i.save(ctx)
	}
}

// learned reports whether the keys that are served have changed.
func (i *Keys) learned(ctx context.Context, is jwt.Issuer, jwks []byte, left []error, err error) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	failures := i.Failures.WithLabelValues(is.Name) // there from the first time, so that its first increase shows
	k := i.keys[is.Name]
	if k == nil || k.URL != is.JWKSURL {
		k = &held{Set: Set{URL: is.JWKSURL}}
		i.keys[is.Name] = k
	}
	if err != nil {
		k.failed++
		k.err, k.next = plain.Text(err.Error()), i.Clock().Add(min(is.Refresh, failing.Next(k.failed, nil)))
		failures.Inc()
		i.Log.WarnContext(ctx, "issuer keys not fetched; the last good ones stay", slog.String("issuer", is.Name), slog.Any("err", err))
		return false
	}
	if lost := Texts(left); !slices.Equal(lost, Texts(k.left)) && len(lost) > 0 {
		i.Log.WarnContext(ctx, "keys of the issuer's set are not used", slog.String("issuer", is.Name), slog.Any("left", lost))
	}
	k.left = left
	k.failed = 0
	same := string(k.JWKS) == string(jwks)
	k.JWKS, k.Fetched, k.err, k.next = jwks, i.Clock(), "", i.Clock().Add(is.Refresh)
	if same {
		return false
	}
	i.Changed()
	return true
}

// save remembers the keys for a restart. mu is not held over the disk: views are
// made with it.
func (i *Keys) save(ctx context.Context) {
	i.saving.Lock() // the newest is written last
	defer i.saving.Unlock()
	good := map[string]Set{}
	i.mu.Lock()
	for name, k := range i.keys {
		if len(k.JWKS) > 0 {
			good[name] = k.Set
		}
	}
	i.mu.Unlock()
	if err := i.Store.Save(good); err != nil {
		i.Log.WarnContext(ctx, "issuer keys not remembered", slog.Any("err", err))
	}
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
		if is.JWKSURL == "" {
			continue
		}
		g.Go(func() error {
			if _, _, err := Fetch(ctx, is.JWKSURL); err != nil {
				warnings[n] = fmt.Sprintf("JWTIssuer %s: its keys cannot be fetched now, and its tokens are refused as long as there are none: %s", is.Name, plain.Text(err.Error()))
			}
			return nil
		})
	}
	_ = g.Wait() // each failure is a warning
	return slices.DeleteFunc(warnings, func(w string) bool { return w == "" })
}

// noKeys is a key set by which every token is refused.
var noKeys = []byte(`{"keys":[]}`)

// Resources are the issuers with their keys, as agents are told.
func (i *Keys) Resources(list []jwt.Issuer) []*api.JWTIssuer {
	i.mu.Lock()
	defer i.mu.Unlock()
	var all []*api.JWTIssuer
	for _, is := range list {
		jwks := is.JWKS
		if is.JWKSURL != "" {
			jwks = noKeys
			if k := i.keys[is.Name]; k != nil && k.URL == is.JWKSURL && len(k.JWKS) > 0 {
				jwks = k.JWKS
			}
		}
		all = append(all, &api.JWTIssuer{Name: is.Name, Issuer: is.Issuer, Audiences: is.Audiences, AudienceClaim: is.AudienceClaim, Jwks: jwks})
	}
	return all
}

// Failure is of the last fetch; Fetched is when the keys in use were, if ever.
type Failure struct {
	Err     string
	Fetched time.Time
}

// Failing lists the issuers whose last fetch failed.
func (i *Keys) Failing() map[string]Failure {
	i.mu.Lock()
	defer i.mu.Unlock()
	out := map[string]Failure{}
	for name, k := range i.keys {
		if k.err != "" {
			out[name] = Failure{k.err, k.Fetched}
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
	for name, k := range i.keys {
		if len(k.left) > 0 {
			out[name] = k.left
		}
	}
	return out
}
