package ca

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// MaxBatch is how many requests one call of Issue may carry.
const MaxBatch = 1024

// Issuer turns requests into certificates.
type Issuer struct {
	authority *Authority
	log       *Log
	profiles  Profiles
	prefix    serialPrefix
	broken    error // why every request is refused

	// cpu admits as many stages as there are processors, in order of arrival:
	// hundreds of callers at once would only make each other wait.
	cpu *semaphore.Weighted

	adopting sync.Mutex
	adopted  atomic.Pointer[issuing] // its certificate is recorded
}

// NewIssuer joins an authority and its log. Profiles that do not fit the
// authority make every request fail; see Profiles.Check.
func NewIssuer(a *Authority, l *Log, cfg Profiles) *Issuer {
	i := &Issuer{authority: a, log: l, prefix: serialPrefixOf(l.Origin()), cpu: semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0)))}
	i.profiles, i.broken = cfg.within(a.life())
	if l.TrustDomain() != a.td.Name() {
		i.broken = errors.Join(i.broken, fmt.Errorf("%w: the log is of trust domain %q, the authority of %q", ErrConfig, l.TrustDomain(), a.td.Name()))
	}
	return i
}

// Issue answers each request, in order, with a certificate or an error. Requests
// of one call share their two durable writes; one that fails does not stop the
// others. When a Result has a chain, the log has its record, durably.
func (i *Issuer) Issue(ctx context.Context, reqs []Request) []Result {
	b := &run{issuer: i, results: make([]Result, len(reqs)), now: i.authority.clock()}
	if len(reqs) > MaxBatch {
		b.failAll(fmt.Errorf("%w: %d requests at once: at most %d", ErrInvalid, len(reqs), MaxBatch))
		return b.results
	}
	by, err := i.ready(ctx, b.now)
	if err != nil {
		b.failAll(err)
		return b.results
	}
	drafts := stage(ctx, b, reqs, func(r Request) (*linted, error) {
		c, err := i.check(r)
		if err != nil {
			return nil, err
		}
		return i.lint(c, by, b.now)
	})
	reserved := b.reserve(ctx, drafts)
	done := stage(ctx, b, reserved, func(r *reservation) (*verified, error) {
		s, err := sign(r)
		if err != nil {
			return nil, err
		}
		return i.authority.verify(s, b.now)
	})
	b.abandon(reserved, done)
	b.answer(ctx, done)
	return b.results
}

// ready returns what to sign with now, recorded, if anything may be signed.
func (i *Issuer) ready(ctx context.Context, now time.Time) (*issuing, error) {
	if i.broken != nil {
		return nil, i.broken
	}
	// Before renewing: a wrong clock must not make a certificate of the future.
	if err := checkClock(now, i.log.Newest()); err != nil {
		return nil, err
	}
	by, err := i.authority.current(now)
	if err != nil {
		return nil, err
	}
	return by, i.adopt(ctx, by, now)
}

// adopt records a signing certificate before its first use, so that the log
// knows every authority's key.
func (i *Issuer) adopt(ctx context.Context, by *issuing, now time.Time) error {
	if i.adopted.Load() == by {
		return nil
	}
	i.adopting.Lock()
	defer i.adopting.Unlock()
	a := i.authority
	var records []Record
	for _, c := range rootsOf(a.root, by.cert) {
		spki, err := hashKey(c.PublicKey)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(c.Raw)
		if !i.log.knowsAuthority(spki[:], sum[:]) {
			records = append(records, Record{
				Time: now, Kind: KindAuthority, Serial: SerialText(c.SerialNumber), ID: a.td.IDString(),
				NotBefore: c.NotBefore, NotAfter: c.NotAfter, SPKI: spki[:], Certificate: sum[:],
			})
		}
	}
	if len(records) > 0 {
		if err := i.log.Append(ctx, records...); err != nil {
			return err
		}
	}
	i.adopted.Store(by)
	return nil
}

// run is one call of Issue. Index n everywhere is request n; nil is one that has
// already failed.
type run struct {
	issuer  *Issuer
	results []Result
	now     time.Time
}

func (b *run) failAll(err error) {
	for n := range b.results {
		b.results[n] = Result{Err: err}
	}
}

// stage maps what is left of a batch, on as many processors as are free.
func stage[In, Out any](ctx context.Context, b *run, in []In, f func(In) (*Out, error)) []*Out {
	out := make([]*Out, len(in))
	one := func(n int) {
		if b.results[n].Err != nil {
			return
		}
		if err := b.issuer.cpu.Acquire(ctx, 1); err != nil {
			b.results[n].Err = err
			return
		}
		defer b.issuer.cpu.Release(1)
		out[n], b.results[n].Err = f(in[n])
	}
	if len(in) == 1 {
		one(0)
		return out
	}
	var wg sync.WaitGroup
	var next atomic.Int64
	for range min(len(in), runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for n := int(next.Add(1)) - 1; n < len(in); n = int(next.Add(1)) - 1 {
				one(n)
			}
		})
	}
	wg.Wait()
	return out
}

// reserve makes one durable record for each draft, with one write.
func (b *run) reserve(ctx context.Context, drafts []*linted) []*reservation {
	var records []Record
	var at []int
	for n, d := range drafts {
		if d != nil {
			records, at = append(records, d.reserve(b.now)), append(at, n)
		}
	}
	reserved := make([]*reservation, len(drafts))
	if len(records) == 0 {
		return reserved
	}
	written, errs := b.issuer.log.submit(ctx, records)
	for k, n := range at {
		if b.results[n].Err = errs[k]; errs[k] == nil {
			reserved[n] = &reservation{linted: drafts[n], record: written[k]}
		}
	}
	return reserved
}

func (l *linted) reserve(now time.Time) Record {
	digest := sha256.Sum256(l.tbs)
	return Record{
		Time: now, Kind: KindReserved, Serial: l.serial, ID: l.id.String(), Requester: l.requester,
		Profile: l.profile, NotBefore: l.template.NotBefore, NotAfter: l.template.NotAfter,
		SPKI: l.spki[:], TBS: digest[:], Issuer: l.by.serial,
	}
}

// abandon ends the reservations that could not be signed.
func (b *run) abandon(reserved []*reservation, done []*verified) {
	for n, r := range reserved {
		if r != nil && done[n] == nil {
			b.issuer.log.abandon([]Record{r.record}, b.now, b.results[n].Err.Error())
		}
	}
}

// answer marks what was signed as issued, with one write, and only then puts
// the chains into the results.
func (b *run) answer(ctx context.Context, done []*verified) {
	var records []Record
	var at []int
	for n, v := range done {
		if v != nil {
			records, at = append(records, v.issued(b.now)), append(at, n)
		}
	}
	if len(records) == 0 {
		return
	}
	_, errs := b.issuer.log.submit(ctx, records)
	for k, n := range at {
		if errs[k] != nil {
			b.results[n].Err = errs[k]
			b.issuer.log.abandon([]Record{done[n].record}, b.now, "could not be marked issued")
			continue
		}
		b.results[n].Chain = done[n].chain
	}
}

func (v *verified) issued(now time.Time) Record {
	r := v.record
	sum := sha256.Sum256(v.der)
	return Record{
		Time: now, Kind: KindIssued, Serial: r.Serial, ID: r.ID, Requester: r.Requester, Profile: r.Profile,
		NotBefore: r.NotBefore, NotAfter: r.NotAfter, SPKI: r.SPKI, Certificate: sum[:], Issuer: r.Issuer,
	}
}
