package ads

import (
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Bounds of what one client may subscribe to.
const (
	maxNames = 10_000 // of one type
	maxName  = 2048   // bytes
)

// wildcard is the name that subscribes to everything.
const wildcard = "*"

// topic is one stream's subscription to one type, and what is known of the
// client's state. Each type has its own (XDS-23).
type topic struct {
	url   string
	delta bool

	all      bool                // subscribed to the wildcard
	explicit bool                // a name was given once: an empty list no longer means the wildcard
	names    map[string]struct{} // subscribed by name
	asked    map[string]struct{} // delta: names that an answer is due for, also "there is none"
	owe      bool                // an answer is due even if there is nothing to say
	subs     uint64              // counts changes of the subscription

	acked    []*Resource        // what the client has confirmed
	sent     []*Resource        // acked, and what is on its way
	flight   []response         // not yet answered, oldest first
	last     string             // nonce of the latest response
	removals map[string]removal // left the set, kept for the client for now

	filtered *filtered // memo of filter, for clients that ask for some
}

// removal is when a name left the set.
type removal struct {
	gen    uint64
	since  time.Time
	pinned bool // by refused routes or listeners; the bound begins after that
}

// response is one response on its way to the client.
type response struct {
	nonce   string
	changed []*Resource
	removed []string
	after   []*Resource // topic.sent once it was sent
}

// filtered is the last result of topic.filter and what it was made of.
type filtered struct {
	of, list []*Resource
	subs     uint64
}

// has reports whether the client subscribed to name.
func (t *topic) has(name string) bool {
	if t.all {
		return true
	}
	_, ok := t.names[name]
	return ok
}

// filter returns those of a set's resources that the client subscribed to.
func (t *topic) filter(rs []*Resource) []*Resource {
	if t.all {
		return rs
	}
	if w := t.filtered; w != nil && w.subs == t.subs && same(w.of, rs) {
		return w.list
	}
	var list []*Resource
	if len(t.names) < len(rs)/8 {
		for n := range t.names {
			if r := find(rs, n); r != nil {
				list = append(list, r)
			}
		}
		slices.SortFunc(list, byName)
	} else {
		for _, r := range rs {
			if t.has(r.Name) {
				list = append(list, r)
			}
		}
	}
	if len(list) == len(rs) {
		list = rs // which all streams share
	}
	t.filtered = &filtered{of: rs, list: list, subs: t.subs}
	return list
}

// forget makes the next pass send name again, whatever the client has.
func (t *topic) forget(name string) {
	t.acked, t.sent = without(t.acked, name), without(t.sent, name)
}

// prune forgets what the client is no longer subscribed to.
func (t *topic) prune() {
	keep := func(r *Resource) bool { return t.has(r.Name) }
	t.acked, t.sent = patch(t.acked, nil, keep), patch(t.sent, nil, keep)
}

// subscribe applies a delta request's changes. fresh is the first request of
// the type on the stream. The subscription changes whatever nonce the request
// carries (XDS-07).
func (t *topic) subscribe(add, drop []string, versions map[string]string, fresh bool, set []*Resource) error {
	if err := checkNames(add); err != nil {
		return err
	}
	if fresh && len(add) == 0 {
		t.all = true // the legacy wildcard
	}
	if len(add)+len(drop) > 0 || fresh {
		t.subs++
	}
	t.drop(drop)
	for _, n := range add {
		t.explicit = true
		if n == wildcard {
			t.owe = t.owe || !t.all
			t.all = true
			continue
		}
		put(&t.names, n)
		put(&t.asked, n)
	}
	// asked keeps names that were dropped again under a wildcard.
	if len(t.names) > maxNames || len(t.asked) > 2*maxNames {
		return tooMany(t.url)
	}
	t.forgetAll(add)
	if !fresh {
		return nil
	}
	if err := t.resume(versions, set); err != nil {
		return err
	}
	t.owe = t.all && len(t.sent) == 0
	return nil
}

// put adds a name to a set, which is made with its first one: most streams ask for
// everything, and name nothing.
func put(set *map[string]struct{}, name string) {
	if *set == nil {
		*set = map[string]struct{}{}
	}
	(*set)[name] = struct{}{}
}

// drop ends subscriptions. A name that the wildcard still covers is sent
// again, or its absence told (XDS-19); a name never subscribed is no error (XDS-18).
func (t *topic) drop(names []string) {
	pruned := false
	for _, n := range names {
		if n == wildcard {
			pruned = pruned || t.all
			t.all = false
			continue
		}
		if _, ok := t.names[n]; !ok {
			continue
		}
		delete(t.names, n)
		if t.all {
			t.forget(n)
			put(&t.asked, n)
		} else {
			delete(t.asked, n)
			pruned = true
		}
	}
	if pruned {
		t.prune()
	}
}

// forgetAll is forget for many names at the cost of one.
func (t *topic) forgetAll(names []string) {
	if len(t.sent) == 0 && len(t.acked) == 0 || len(names) == 0 {
		return
	}
	again := make(map[string]struct{}, len(names))
	for _, n := range names {
		again[n] = struct{}{}
	}
	keep := func(r *Resource) bool {
		_, ok := again[r.Name]
		return !ok
	}
	t.acked, t.sent = patch(t.acked, nil, keep), patch(t.sent, nil, keep)
}

// resume takes what a reconnecting client says it has. Such resources have a
// version and no body: they can be found equal or replaced, never sent. Those that are
// equal to what there is are that, which costs nothing.
func (t *topic) resume(versions map[string]string, set []*Resource) error {
	if len(versions) > maxNames {
		return status.Errorf(codes.InvalidArgument, "%d initial resource versions of %s, at most %d are served", len(versions), t.url, maxNames)
	}
	for n, v := range versions {
		if len(n) > maxName || len(v) > maxName {
			return status.Errorf(codes.InvalidArgument, "an initial resource version of %s is longer than %d bytes", t.url, maxName)
		}
		if !t.has(n) {
			continue
		}
		r := find(set, n)
		if r == nil || r.Version != v {
			r = &Resource{Type: t.url, Name: n, Version: v}
		}
		t.sent = append(t.sent, r)
	}
	slices.SortFunc(t.sent, byName)
	t.acked = t.sent
	return nil
}

// replace applies a state-of-the-world request's list, which is the whole subscription.
func (t *topic) replace(list []string) error {
	if err := checkNames(list); err != nil {
		return err
	}
	if len(list) > 0 {
		t.explicit = true
	}
	all := len(list) == 0 && !t.explicit
	names := make(map[string]struct{}, len(list))
	grown := false
	for _, n := range list {
		if n == wildcard {
			all = true
			continue
		}
		names[n] = struct{}{}
		if _, ok := t.names[n]; !ok {
			grown = true
		}
	}
	grown = grown || all && !t.all
	if !grown && all == t.all && len(names) == len(t.names) {
		return nil // an acknowledgement
	}
	t.all, t.names = all, names
	t.subs++
	t.prune()
	// Full types: absence is how a name is known not to exist (XDS-13).
	t.owe = t.owe || grown && isFull(t.url)
	return nil
}

func checkNames(names []string) error {
	if len(names) > maxNames {
		return tooMany("one type")
	}
	for _, n := range names {
		if n == "" || len(n) > maxName {
			return status.Errorf(codes.InvalidArgument, "a resource name of %d bytes: 1 to %d are served", len(n), maxName)
		}
	}
	return nil
}

func tooMany(what string) error {
	return status.Errorf(codes.InvalidArgument, "more than %d names of %s", maxNames, what)
}
