package authz

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"signet.example/authz/jwt"
	"signet.example/internal/lanes"
	"signet.example/policy"
	"signet.example/policy/sandbox"
	"signet.example/proxy"
)

const (
	defaultConcurrent = 256
	// mostSuspect are the checks that one destination of which an evaluation is suspect has under
	// way, all but one of which wait: so that others have turns meanwhile.
	mostSuspect = defaultConcurrent / 8
)

// Options of a Server. The zero value works.
type Options struct {
	// Record is called with each decision, from the goroutine that made it,
	// before the answer is sent; it must not block.
	Record func(Record)
	// MaxConcurrent checks at a time; one more waits. 0: 256.
	MaxConcurrent int
	// Clock is time.Now if nil. Tokens are judged by it and policies see it.
	Clock func() time.Time
	// Log is slog.Default() if nil.
	Log *slog.Logger
	// Evaluating is called before each evaluation, and what it returned after it,
	// both from the goroutine that makes it. It must not block.
	Evaluating func(Evaluation) (yield, end func())
	// WantKey is called where a request from an ingress needs a key of a load balancer that is
	// not here, not often for one key, and of few keys at a time. It must not block.
	WantKey func(jwt.UnknownKeyError)
}

// Evaluation is that of one destination's policy under one revision.
type Evaluation struct{ Destination, Revision string }

var errGaveUp = errors.New("the proxy gave up waiting")

// Config is everything that decisions are made by; it is replaced as a whole.
type Config struct {
	// Policies by revision id: a request is judged by the one it is stamped with.
	Policies []*policy.Compiled
	// Newest is the id of the one that connections are judged by: their listener bears no
	// stamp (docs/decisions/057).
	Newest  string
	Issuers []Issuer
	// Bans: SPIFFE IDs that are refused as source and as destination.
	Bans map[string]bool
	// TokenHashKey keys the hash of tokens in records; without it there is none.
	TokenHashKey []byte
	// Stopped evaluations are not made: they ended the process.
	Stopped map[Evaluation]bool
	// Suspect evaluations are made one at a time: one of them may have.
	Suspect map[Evaluation]bool
}

// Issuer of end-user tokens, with its keys in JWKS.
type Issuer = jwt.Issuer

// Server implements envoy.service.auth.v3.Authorization.
type Server struct {
	authv3.UnimplementedAuthorizationServer
	opts  Options
	turns *turns
	peers peers

	alone *lanes.Lanes // of suspect evaluations, by destination: one of all is made at a time
	keys  *wantedKeys

	configure sync.Mutex // one Configure at a time
	state     atomic.Pointer[state]
}

// state is one Config, ready to decide by. It is immutable except for the
// verifier's memory, which has a lock of its own.
type state struct {
	policies map[string]*policy.Compiled
	newest   string
	verifier *verifier // nil without issuers
	bans     map[string]bool
	hashKey  []byte
	stopped  map[Evaluation]bool
	suspect  map[Evaluation]bool
	replaced chan struct{} // closed when there is a newer one
}

// New returns a Server that denies everything until it is configured.
func New(opts Options) *Server {
	if opts.MaxConcurrent <= 0 {
		opts.MaxConcurrent = defaultConcurrent
	}
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	if opts.Record == nil {
		opts.Record = func(Record) {}
	}
	if opts.Evaluating == nil {
		opts.Evaluating = func(Evaluation) (yield, end func()) { return runtime.Gosched, func() {} }
	}
	if opts.WantKey == nil {
		opts.WantKey = func(jwt.UnknownKeyError) {}
	}
	alone := lanes.Of(1)
	alone.Most = mostSuspect
	return &Server{opts: opts, turns: newTurns(opts.MaxConcurrent), alone: alone, keys: newWantedKeys()}
}

// Configure swaps what decisions are made by. Checks under way end with what
// they began with. A key that cannot be used is left out and logged.
func (s *Server) Configure(c Config) {
	s.configure.Lock()
	defer s.configure.Unlock()
	next := &state{
		policies: map[string]*policy.Compiled{}, newest: c.Newest, bans: maps.Clone(c.Bans), hashKey: slices.Clone(c.TokenHashKey),
		stopped: maps.Clone(c.Stopped), suspect: maps.Clone(c.Suspect),
		replaced: make(chan struct{}),
	}
	for _, p := range c.Policies {
		if p != nil {
			next.policies[p.Revision().ID] = p
		}
	}
	if len(c.Issuers) > 0 {
		next.verifier = s.verifier(c.Issuers)
	}
	if old := s.state.Swap(next); old != nil {
		close(old.replaced)
	}
}

func (s *Server) verifier(issuers []Issuer) *verifier {
	if old := s.state.Load(); old != nil && old.verifier != nil && old.verifier.same(issuers) {
		return old.verifier
	}
	v, problems := newVerifier(issuers)
	for _, p := range problems {
		s.opts.Log.Warn("token key not used", slog.Any("err", p))
	}
	return v
}

// Check decides one request. It never returns an error: Envoy's answer to one
// is a matter of its configuration (CVE-2024-23324), to a denial it is not.
func (s *Server) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	began := time.Now()
	a := &answer{record: Record{ID: newID(), Time: s.opts.Clock()}}
	s.guarded(ctx, req, a)
	a.record.Duration = time.Since(began)
	answer := a.response()
	if req.GetAttributes().GetRequest().GetHttp() != nil { // a connection gets none; of a request even the method is the caller's
		a.record.Status = uint32(answer.GetDeniedResponse().GetStatus().GetCode()) //nolint:gosec // a status of HTTP
	}
	s.report(a.record)
	return answer, nil
}

// newID cannot fail: without randomness crypto/rand ends the program.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// report keeps a panic of the recorder from becoming one of the request.
func (s *Server) report(r Record) {
	defer func() {
		if p := recover(); p != nil {
			s.opts.Log.Error("decision not recorded", slog.String("decision", r.ID), slog.String("panic", fmt.Sprintf("%T", p)))
		}
	}()
	s.opts.Record(r)
}

// guarded decides when its turn has come, for as long as the proxy waits, and turns a panic into
// a denial.
func (s *Server) guarded(ctx context.Context, req *authv3.CheckRequest, a *answer) {
	defer func() {
		if p := recover(); p != nil {
			// What panicked may quote the request; its type does not.
			s.opts.Log.ErrorContext(ctx, "decision panicked", slog.String("decision", a.record.ID), slog.String("panic", fmt.Sprintf("%T", p)))
			a.deny(CauseError, "internal error while deciding")
		}
	}()
	caller, _ := CallerFromContext(ctx)
	if err := s.turns.enter(ctx, caller.Destination.String(), req); err != nil {
		if !errors.Is(err, errTooManyWait) {
			err = errGaveUp
		}
		a.caller(caller)
		a.deny(CauseUnavailable, err.Error())
		return
	}
	defer s.turns.leave()
	s.decide(ctx, req, a)
}

// decide goes through the steps in an order in which no later one can allow
// what an earlier one refused.
func (s *Server) decide(ctx context.Context, req *authv3.CheckRequest, a *answer) {
	caller, ok := CallerFromContext(ctx)
	if !ok {
		a.deny(CauseError, "the asking proxy is not attested")
		return
	}
	a.caller(caller)
	st := s.state.Load()
	if st == nil {
		a.deny(CauseUnavailable, "no configuration has arrived yet")
		return
	}
	in, err := s.peers.newInput(ctx, req, caller, a.record.Time)
	a.request(in)
	a.peer(req)
	if err == nil {
		err = st.checkBans(in)
	}
	if err != nil {
		a.refuse(err)
		return
	}
	a.withheld = st.withholdUsers(ctx, in)
	revision := stamped(req)
	if in.Connection != nil {
		revision = st.newest
	}
	compiled := st.policies[revision]
	if s.checkToken(ctx, st, &in, a) {
		s.evaluate(ctx, st, revision, in, a)
	}
	if compiled != nil && compiled.Observes(in) {
		a.policy(compiled.Revision())
		a.observe(in, compiled.Settable(in))
	}
}

func stamped(req *authv3.CheckRequest) string {
	return req.GetAttributes().GetContextExtensions()[proxy.PolicyRevisionKey]
}

// checkBans comes before everything that could allow.
func (st *state) checkBans(in policy.Input) error {
	if !in.Source.ID.IsZero() && st.bans[in.Source.ID.String()] || st.bans[in.Destination.ID.String()] {
		return &refusedRequest{"signet: banned identity", "source or destination is banned"}
	}
	return nil
}

func (s *Server) evaluate(ctx context.Context, st *state, revision string, in policy.Input, a *answer) {
	compiled := st.policies[revision]
	if compiled == nil || revision == "" {
		a.record.PolicyRevision = escape(revision, 64)
		a.deny(CauseUnavailable, "the policy revision that the question is for is not loaded")
		return
	}
	rev := compiled.Revision()
	a.policy(rev)
	which := Evaluation{Destination: in.Destination.ID.String(), Revision: rev.ID}
	if st.stopped[which] {
		a.deny(CauseError, "an evaluation for this destination under this revision ended the authz process: none is made for a time, or until the policy changes")
		return
	}
	if st.suspect[which] {
		leave := s.alone.EnterUntil(which.Destination, ctx.Done())
		if leave == nil {
			err := errTooManyWait
			if ctx.Err() != nil {
				err = errGaveUp
			}
			a.deny(CauseUnavailable, err.Error())
			return
		}
		defer leave(0)
	}
	yield, end := s.opts.Evaluating(which)
	defer end()
	d, err := compiled.Evaluate(sandbox.Yielding(ctx, yield), in)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		a.deny(CauseUnavailable, errGaveUp.Error())
	case err != nil:
		a.deny(CauseError, err.Error())
	case !d.Allowed && len(rev.Modules) == 0:
		a.noPolicy()
	default:
		a.decided(d, in)
	}
}
