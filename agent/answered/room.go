package answered

import (
	"maps"
	"slices"
	"time"
)

// forget drops what is older than a day.
func (d *Day) forget() {
	before := d.now().Add(-kept)
	for _, sh := range d.shares {
		d.drop(sh, before)
	}
}

// relieve makes room: whoever has most gives up some of it, again and again.
func (d *Day) relieve() {
	if d.forget(); d.size <= d.bytes {
		return
	}
	for enough := d.bytes - d.bytes/relief; d.size > enough; {
		sh := slices.MaxFunc(slices.Collect(maps.Values(d.shares)), func(a, b *share) int { return a.size - b.size })
		if !d.coarsen(sh) {
			d.drop(sh, sh.oldest().Add(1))
		}
	}
}

// coarsen joins records of a share, to no longer times than a part of it takes. It reports
// whether there was anything to join.
func (d *Day) coarsen(sh *share) bool {
	before := sh.size
	for within := 2 * time.Minute; within <= mostTime && sh.size > before-before/relief; within *= 2 {
		for _, s := range sh.series {
			d.grow(sh, -s.join(within))
		}
	}
	return sh.size < before
}

// oldest is when the oldest part of a share's records had ended.
func (sh *share) oldest() time.Time {
	var ends []time.Time
	for _, s := range sh.series {
		for _, r := range s.list {
			ends = append(ends, r.last)
		}
	}
	slices.SortFunc(ends, time.Time.Compare)
	return ends[len(ends)/relief]
}

// drop forgets what of a share ended before a time.
func (d *Day) drop(sh *share, before time.Time) {
	for k, s := range sh.series {
		freed := 0
		s.list = slices.DeleteFunc(s.list, func(r record) bool {
			old := r.last.Before(before)
			if old {
				freed += r.size()
			}
			return old
		})
		if len(s.list) == 0 {
			delete(sh.series, k)
			freed += k.size()
		}
		d.grow(sh, -freed)
	}
}

// join makes one of all records that began within the same time, and returns what that freed.
func (s *series) join(within time.Duration) (freed int) {
	joined := s.list[:0]
	for _, r := range s.list {
		if n := len(joined) - 1; n >= 0 && joined[n].first.Truncate(within).Equal(r.first.Truncate(within)) {
			if joined[n].count += r.count; r.last.After(joined[n].last) {
				joined[n].last = r.last
			}
			freed += r.size()
			continue
		}
		joined = append(joined, r)
	}
	clear(s.list[len(joined):])
	s.list = joined
	return freed
}
