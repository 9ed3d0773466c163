package answered

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
)

const (
	// kept is how long a record is.
	kept = 24 * time.Hour
	// Bytes is what a host's Day may have: with what the collector leaves of what was
	// replaced it stays below 64 MiB.
	Bytes = 24 << 20
	// perRecord is what a record takes beside its sample, and perSeries what the key of a
	// series does beside its texts.
	perRecord, perSeries = 64, 256
	// mostTime is the longest that records of one series are joined to.
	mostTime = time.Hour
	// relief is the part of all room that is made at once, so that making it is seldom.
	relief = 8
)

// Day is what a host keeps.
type Day struct {
	bytes int // that it may have
	now   func() time.Time

	mu     sync.Mutex
	size   int               // guarded by mu, as what follows
	added  uint64            // answers, ever
	shares map[string]*share // by proxy
}

// share is what one proxy has.
type share struct {
	size   int
	series map[key]*series
}

// key is what answers of one series have in common.
type key struct {
	source, destination, kind string
	observed                  bool
}

// series are the records of one key, oldest first.
type series struct{ list []record }

// record is one or more answers from first until last.
type record struct {
	first, last time.Time
	count       uint64
	sample      []byte // the first of them, encoded without its key
}

func (r record) size() int { return perRecord + len(r.sample) }

func keyOf(a *api.Decision) key {
	return key{a.GetSource(), cmp.Or(a.GetDestination(), a.GetHost()), a.GetKind(), a.GetObserved()}
}

func (k key) size() int { return perSeries + len(k.source) + len(k.destination) + len(k.kind) }

// New returns an empty one that may have so many bytes.
func New(bytes int) *Day { return &Day{bytes: bytes, now: time.Now, shares: map[string]*share{}} }

// Add keeps an answer, and nothing of a itself.
func (d *Day) Add(a *api.Decision) {
	at := a.GetTime().AsTime()
	k := keyOf(a)
	d.mu.Lock()
	defer d.mu.Unlock()
	if at.Before(d.now().Add(-kept)) {
		return
	}
	d.added++
	if s := d.shares[a.GetProxy()]; s != nil && s.series[k].take(at) {
		return
	}
	d.put(a.GetProxy(), k, record{first: at, last: at, count: 1, sample: encoded(a)})
	if d.size > d.bytes {
		d.relieve()
	}
}

// take counts an answer to the newest record where that is of the same minute.
func (s *series) take(at time.Time) bool {
	if s == nil {
		return false
	}
	r := &s.list[len(s.list)-1]
	if at.Truncate(time.Minute).After(r.last) || at.Before(r.first.Truncate(time.Minute)) {
		return false
	}
	if r.count++; at.After(r.last) {
		r.last = at
	}
	return true
}

func (d *Day) put(proxy string, k key, r record) {
	sh := d.shares[proxy]
	if sh == nil {
		sh = &share{series: map[key]*series{}}
		d.shares[proxy] = sh
	}
	s := sh.series[k]
	if s == nil {
		s = &series{}
		sh.series[k] = s
		d.grow(sh, k.size())
	}
	at := len(s.list)
	for at > 0 && s.list[at-1].first.After(r.first) { // they come in order, a few moments apart
		at--
	}
	s.list = slices.Insert(s.list, at, r)
	d.grow(sh, r.size())
}

func (d *Day) grow(sh *share, by int) {
	sh.size += by
	d.size += by
}

// encoded is a sample without what its key has.
func encoded(a *api.Decision) []byte {
	c := proto.CloneOf(a)
	c.Source, c.Kind, c.Observed, c.Proxy, c.Count, c.First, c.Last = "", "", false, "", 0, nil, nil
	if c.Headers = nil; c.GetDestination() != "" {
		c.Destination = destination
	}
	b, err := proto.Marshal(c)
	if err != nil { // a string that is not UTF-8: what there is without any
		b, _ = proto.Marshal(&api.Decision{Id: a.GetId(), Time: a.GetTime(), Status: a.GetStatus()})
	}
	return b
}

// destination marks that the key's is one, and no host.
const destination = "-"

func decoded(proxy string, k key, r record) *api.Decision {
	a := &api.Decision{}
	_ = proto.Unmarshal(r.sample, a) // it was marshalled here
	if a.GetDestination() != "" {
		a.Destination = k.destination
	}
	a.Source, a.Kind, a.Observed, a.Proxy = k.source, k.kind, k.observed, proxy
	a.Count, a.First, a.Last = r.count, timestamppb.New(r.first), timestamppb.New(r.last)
	return a
}

// List is what a filter asks for, newest first: one for each key, with how many there are of it.
func (d *Day) List(f *api.DecisionFilter) []*api.Decision {
	var list []*api.Decision
	d.mu.Lock()
	d.forget()
	for proxy, sh := range d.shares {
		for k, s := range sh.series {
			if r, ok := s.within(f); ok {
				if a := decoded(proxy, k, r); f.Takes(a) {
					list = append(list, a)
				}
			}
		}
	}
	d.mu.Unlock()
	slices.SortFunc(list, func(a, b *api.Decision) int {
		return cmp.Or(api.NewestFirst(a, b), strings.Compare(a.GetId(), b.GetId()))
	})
	return list
}

// within is one record of all that are in a filter's time, with the newest one's sample.
func (s *series) within(f *api.DecisionFilter) (all record, ok bool) {
	for _, r := range s.list {
		if f.GetSince() != nil && r.last.Before(f.GetSince().AsTime()) || f.GetUntil() != nil && r.first.After(f.GetUntil().AsTime()) {
			continue
		}
		if r.count += all.count; ok {
			r.first = all.first
		}
		all, ok = r, true
	}
	return all, ok
}

// Get returns the answer with this id, where it was the first of its minute.
func (d *Day) Get(id string) *api.Decision {
	d.mu.Lock()
	defer d.mu.Unlock()
	for proxy, sh := range d.shares {
		for k, s := range sh.series {
			for _, r := range s.list {
				if !strings.Contains(string(r.sample), id) {
					continue
				}
				if a := decoded(proxy, k, r); a.GetId() == id {
					return a
				}
			}
		}
	}
	return nil
}
