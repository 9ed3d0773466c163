package workloads

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"signet.example/agent/resources"
	"signet.example/agent/svids"
	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/internal/sampled"
	"signet.example/internal/watched"
	"signet.example/sds"
)

// workloadWait bounds how long a client waits for an SVID that is being issued
// for the first time, before it is told to come again.
const workloadWait = 3 * time.Second

// Config is what a Source is made of. Every field is needed.
type Config struct {
	// Socket is where its callers come, for the log.
	Socket string
	// State is what the servers told the agent for itself; nil before the first.
	State *watched.Value[*resources.Snapshot]
	// Connected is whether a connection to the servers stands.
	Connected *watched.Value[bool]
	// Trust is by which roots SVIDs are accepted.
	Trust  *watched.Value[*svids.Trust]
	Keeper *svids.Keeper
	// Stay is told of a call whose process is given something.
	Stay func(context.Context)
	// Refused counts processes that are given nothing.
	Refused prometheus.Counter
	Log     *slog.Logger
}

// Source is what the processes of this host may hold: an sds.Source.
type Source struct {
	Config

	// looked bounds for how many refusals a minute the nearest entry is looked for, as the log
	// bounds how many are written.
	looked sampled.Budget
}

// New returns one.
func New(c Config) *Source {
	return &Source{Config: c, looked: sampled.Budget{Most: 20, PerKey: 5, Window: time.Minute}}
}

// refuse counts and logs a process that has no identity here: what it was seen to
// be is what its entry's selectors would have to be, and the nearest entry the one that
// was probably meant. The process itself is told none of it.
func (w *Source) refuse(ctx context.Context, has identity.Selectors, err error) {
	w.Refused.Inc()
	attrs := []slog.Attr{slog.Any("selectors", has.Strings()), slog.Any("err", err)}
	user := ""
	if p, ok := attestation.PeerFromContext(ctx); ok {
		attrs = append(attrs, slog.Any("uid", p.UID()), slog.Int("pid", p.PID()))
		user = strconv.FormatUint(uint64(p.UID()), 10)
	}
	if s := w.State.Load(); s != nil && errors.Is(err, errNoEntry) {
		if ok, _ := w.looked.Take(time.Now(), user); ok {
			if name, lacks := s.Nearest(has); name != "" {
				attrs = append(attrs, slog.String("nearest", name), slog.Any("lacks", lacks.Strings()))
			}
		}
	}
	if hint := Hint(err); hint != "" {
		attrs = append(attrs, slog.String("hint", hint))
	}
	w.Log.LogAttrs(ctx, slog.LevelWarn, w.Socket+".sock: process refused", attrs...)
}

// Hint returns what to do where the kernel does not show the agent a process.
func Hint(err error) string {
	if errors.Is(err, os.ErrPermission) {
		return "the agent does not see other users' programs: give it CAP_SYS_PTRACE, or run it as root"
	}
	return ""
}

// look is what an answer is made of, at one moment.
type look struct {
	state *resources.Snapshot
	trust *svids.Trust
	names []svids.Name
	svids []*svids.SVID // those of names that are there and good
}

// same reports whether nothing that concerns the caller has changed since.
func (l look) same(o look) bool {
	if l.state != o.state || l.trust != o.trust || len(l.svids) != len(o.svids) {
		return false
	}
	for i := range l.svids {
		if l.svids[i] != o.svids[i] {
			return false
		}
	}
	return true
}

// Watch implements sds.Source.
func (w *Source) Watch(ctx context.Context, selectors func(context.Context) (identity.Selectors, error), send func(sds.Update) error) error {
	var last look
	deadline := time.NewTimer(workloadWait)
	defer deadline.Stop()
	late, sent := false, false
	for {
		s, stateChanged := w.State.Get()
		held, heldChanged := w.Keeper.Watch()
		t, trustChanged := w.Trust.Get()
		if s == nil {
			return fmt.Errorf("%w: %w", sds.ErrUnavailable, resources.ErrNone)
		}
		// A process is looked at again only when there may be something to send.
		now := look{state: s, trust: t, names: last.names, svids: good(held, last.names)}
		if late || last.state == nil || !now.same(last) {
			next, err := w.attest(ctx, now, held, selectors)
			if err != nil {
				return err
			}
			pending, failure := w.pending(next)
			switch {
			case len(next.svids) > 0 && (!pending || late || sent):
				if err := send(next.update()); err != nil {
					return err
				}
				sent = true
			case sent:
				// Its SVIDs ended in an outage: it is told when there are new ones.
			case late || !w.Connected.Load():
				return fmt.Errorf("%w: no SVID yet: %w", sds.ErrUnavailable, cmp.Or(failure, errNoServer))
			}
			last, late = next, false
		}
		select {
		case <-stateChanged:
		case <-heldChanged:
		case <-trustChanged:
		case <-deadline.C:
			late = !sent
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var errNoEntry = errors.New("no entry and no binding of this host's group fits what the process is")

var errNoServer = errors.New("no server to issue it")

// attest finds out what the caller is now and has what it may hold be issued.
func (w *Source) attest(ctx context.Context, l look, held map[string]*svids.SVID, selectors func(context.Context) (identity.Selectors, error)) (look, error) {
	has, err := selectors(ctx)
	if err != nil {
		w.refuse(ctx, nil, err)
		return l, err
	}
	l.names, err = l.state.Identities(has)
	if err == nil && len(l.names) == 0 {
		err = errNoEntry
	}
	if err != nil {
		w.refuse(ctx, has, err)
		return l, fmt.Errorf("%w: %w", sds.ErrNoIdentity, err)
	}
	w.Stay(ctx)
	w.Keeper.Need(l.names...)
	l.svids = good(held, l.names)
	return l, nil
}

func good(held map[string]*svids.SVID, names []svids.Name) []*svids.SVID {
	var svids []*svids.SVID
	for _, w := range names {
		if s := held[w.Entry]; s.Fresh(time.Now()) && s.ID == w.ID {
			svids = append(svids, s)
		}
	}
	return svids
}

// pending reports whether an SVID that is not there is worth waiting for: the server
// is there, and has not failed to issue it. failure is that of one that has.
func (w *Source) pending(l look) (pending bool, failure error) {
	connected := w.Connected.Load()
	for _, wanted := range l.names {
		if slices.ContainsFunc(l.svids, func(s *svids.SVID) bool { return s.Entry == wanted.Entry }) {
			continue
		}
		if err := w.Keeper.Failure(wanted.Entry); err != nil {
			failure = err
		} else if connected {
			pending = true
		}
	}
	return pending, failure
}

func (l look) update() sds.Update {
	u := sds.Update{Bundles: map[string][][]byte{l.trust.Roots.TrustDomain.IDString(): l.trust.DER}}
	for _, s := range l.svids {
		u.SVIDs = append(u.SVIDs, sds.SVID{ID: s.ID, Chain: s.Chain, Key: s.Key, Hint: l.state.Hint(s.Entry)})
	}
	return u
}

// Selectors are those of the process behind a call.
func Selectors(ctx context.Context) (identity.Selectors, error) {
	p, ok := attestation.PeerFromContext(ctx)
	if !ok {
		return nil, errors.New("the connection was not attested")
	}
	return p.Selectors(ctx)
}
