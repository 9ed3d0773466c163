package issuers

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"signet.example/authz/jwt"
	"signet.example/internal/paced"
	"signet.example/internal/plain"
	"signet.example/internal/watched"
)

// The keys of load balancers are published one by one, each under its id: which there are
// nobody lists. So an agent says which a request needs that came from an ingress, and here
// it is found, below the URL of its issuer and nowhere else. Ids may be made up by whoever
// reaches a load balancer: what they can bring about is bounded, and delays a key that is
// new, never one that is here (docs/decisions/084).
const (
	// fetchesPerSecond and fetchesBurst of keys of one issuer that are not here.
	fetchesPerSecond, fetchesBurst = 0.2, 8
	// asksPerSecond and asksBurst of one agent are looked at.
	asksPerSecond, asksBurst = 2, 32
	// wantedMost of one issuer wait to be fetched.
	wantedMost = 64
	// noneFor is how long one that is not there is not asked for again, and noneMost how many
	// of these are remembered.
	noneFor  = 10 * time.Minute
	noneMost = 1024
	// lookedAgain is when a key that is here is looked at again: one that is there no more
	// is not trusted any more.
	lookedAgain = time.Hour
	// missedAgain is when one that is not there is looked at again, and missedMost how often.
	missedAgain, missedMost = time.Minute, 3
)

// noKeyID is that of no key (RFC 9562 5.9).
const noKeyID = "00000000-0000-0000-0000-000000000000"

var errNoKey = errors.New("there is no key of this id")

// place is where the keys of an issuer are found.
type place struct{ issuer, url string }

// lookup is of one key.
type lookup struct {
	place
	kid string
}

func placeOf(is jwt.Issuer) place { return place{is.Key(), is.ALB.KeysURL} }

// lookups are what is known of keys, but the keys.
type lookups struct {
	wake    watched.Signal
	fetches *paced.Each[string] // by issuer
	asks    *paced.Each[string] // by agent

	mu     sync.Mutex // guards the following
	wanted map[lookup]bool
	none   map[lookup]time.Time // until when
	again  map[lookup]time.Time // of those that are here
	missed map[lookup]int       // how often those that are here were not there
	failed map[place]string     // why the last fetch did
}

func newLookups() *lookups {
	return &lookups{
		wake: watched.NewSignal(), fetches: paced.New[string](fetchesPerSecond, fetchesBurst), asks: paced.New[string](asksPerSecond, asksBurst),
		wanted: map[lookup]bool{}, none: map[lookup]time.Time{}, again: map[lookup]time.Time{}, missed: map[lookup]int{}, failed: map[place]string{},
	}
}

// Want has a key found that an agent needs, if it may be. It never waits.
func (i *Keys) Want(agent, issuer, kid string) {
	if !jwt.IsALBKeyID(kid) || !i.found.asks.Allow(agent) {
		return
	}
	for _, is := range i.List() {
		if is.ALB != nil && is.Key() == issuer && !i.has(is, kid) && i.found.want(lookup{placeOf(is), kid}, i.Clock()) {
			i.found.wake.Wake()
		}
	}
}

// here are the ids of those of an issuer's keys that there are.
func (i *Keys) here(is jwt.Issuer) []string {
	s := i.sets()[is.Key()]
	if s.URL != is.ALB.KeysURL {
		return nil
	}
	return jwt.ALBKeyIDs(s.JWKS)
}

func (i *Keys) has(is jwt.Issuer, kid string) bool { return slices.Contains(i.here(is), kid) }

// want reports whether a key is one more to be found.
func (l *lookups) want(k lookup, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wanted[k] || now.Before(l.none[k]) {
		return false
	}
	n := 0
	for other := range l.wanted {
		if other.place == k.place {
			n++
		}
	}
	if n >= wantedMost {
		return false
	}
	l.wanted[k] = true
	return true
}

// find fetches keys that are wanted, and looks at those that are here from time to time,
// until ctx ends.
func (i *Keys) find(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-i.found.wake:
		case <-timer.C:
		}
		list := i.List()
		i.found.forget(list)
		var g errgroup.Group
		g.SetLimit(parallel)
		for _, is := range list {
			if is.ALB == nil {
				continue
			}
			i.Failures.WithLabelValues(is.Key()) // there from the first time, so that its first increase shows
			for _, kid := range i.dueKeys(is) {
				g.Go(func() error {
					i.look(ctx, is, kid)
					return nil
				})
			}
		}
		_ = g.Wait() // look has recorded each failure
		timer.Reset(i.found.wait(i.Clock()))
	}
}

// dueKeys are the ids of those of an issuer's keys that are to be fetched now.
func (i *Keys) dueKeys(is jwt.Issuer) []string {
	l, at, now, here := i.found, placeOf(is), i.Clock(), i.here(is)
	l.mu.Lock()
	defer l.mu.Unlock()
	other := func(k lookup) bool { return k.place == at && !slices.Contains(here, k.kid) }
	maps.DeleteFunc(l.again, func(k lookup, _ time.Time) bool { return other(k) })
	maps.DeleteFunc(l.missed, func(k lookup, _ int) bool { return other(k) })
	due := slices.DeleteFunc(slices.Clone(here), func(kid string) bool { return now.Before(l.again[lookup{at, kid}]) })
	// In no order, so that none that is asked for again and again is behind others for good.
	for k := range l.wanted {
		if k.place == at && l.fetches.Allow(at.issuer) {
			due = append(due, k.kid)
		}
	}
	return due
}

// wait is how long nothing is due.
func (l *lookups) wait(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wanted) > 0 {
		return time.Second // until its issuer may be asked again
	}
	next := lookedAgain
	for _, at := range l.again {
		next = min(next, max(at.Sub(now), time.Second))
	}
	return next
}

// forget drops what is of issuers that are there no more, or elsewhere.
func (l *lookups) forget(list []jwt.Issuer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	there := map[place]bool{}
	for _, is := range list {
		if is.ALB != nil {
			there[placeOf(is)] = true
		}
	}
	maps.DeleteFunc(l.wanted, func(k lookup, _ bool) bool { return !there[k.place] })
	gone := func(k lookup, _ time.Time) bool { return !there[k.place] }
	maps.DeleteFunc(l.none, gone)
	maps.DeleteFunc(l.again, gone)
	maps.DeleteFunc(l.missed, func(k lookup, _ int) bool { return !there[k.place] })
	maps.DeleteFunc(l.failed, func(p place, _ string) bool { return !there[p] })
}

// look fetches one key, and keeps what came of it.
func (i *Keys) look(ctx context.Context, is jwt.Issuer, kid string) {
	key := is.Key()
	text, err := lookUp(ctx, is.ALB.KeysURL, kid)
	if err == nil {
		_, err = jwt.WithALBKey(nil, kid, text) // whether it is one
	}
	gone := i.found.looked(lookup{placeOf(is), kid}, i.has(is, kid), err, i.Clock())
	switch {
	case err == nil:
		i.put(is, func(set []byte) ([]byte, error) { return jwt.WithALBKey(set, kid, text) })
	case gone:
		i.put(is, func(set []byte) ([]byte, error) { return jwt.WithoutALBKey(set, kid) })
		i.Log.WarnContext(ctx, "a load balancer's key is published no more and not trusted any more", slog.String("issuer", key), slog.String("kid", kid))
	case !errors.Is(err, errNoKey) && ctx.Err() == nil:
		i.Failures.WithLabelValues(key).Inc()
		i.Log.WarnContext(ctx, "a load balancer's key not fetched; those that are here stay", slog.String("issuer", key), slog.String("kid", kid), slog.Any("err", err))
	}
}

// looked takes what came of looking for a key, and reports whether one that was here is gone:
// it was not there several times.
func (l *lookups) looked(k lookup, here bool, err error, now time.Time) (gone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.wanted, k)
	switch {
	case err == nil:
		l.again[k] = now.Add(lookedAgain)
		delete(l.missed, k)
		delete(l.failed, k.place)
	case !errors.Is(err, errNoKey):
		l.failed[k.place] = plain.Text(err.Error())
		l.again[k] = now.Add(failing.Most)
	case here:
		l.again[k] = now.Add(missedAgain)
		l.missed[k]++
		gone = l.missed[k] >= missedMost
		delete(l.failed, k.place)
	default:
		if len(l.none) >= noneMost {
			maps.DeleteFunc(l.none, func(lookup, time.Time) bool { return true })
		}
		l.none[k] = now.Add(noneFor)
		delete(l.failed, k.place)
	}
	return gone
}

// failing are the issuers whose last fetch failed.
func (l *lookups) failing() map[string]Failure {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]Failure{}
	for p, err := range l.failed {
		out[p.issuer] = Failure{Err: err}
	}
	return out
}

// lookUp fetches what is published under an id, which is checked to be no more than one.
func lookUp(ctx context.Context, below, kid string) ([]byte, error) {
	text, err := get(ctx, below+"/"+kid, "application/x-pem-file")
	if status := new(statusError); errors.As(err, &status) && status.code >= 400 && status.code < 500 && status.code != http.StatusTooManyRequests {
		return nil, errNoKey
	}
	return text, err
}
