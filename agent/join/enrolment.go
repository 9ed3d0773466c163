package join

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/agent/svids"
	"signet.example/api"
	"signet.example/attestation/nodes"
	"signet.example/internal/retry"
	"signet.example/internal/watched"
)

// Config is what an enrolment is made of.
type Config struct {
	// Server is the control plane's agent address, host:port.
	Server string
	// TrustDomain that the server must belong to; learned from the join where empty.
	TrustDomain string
	// Attested counts how often the agent attested itself.
	Attested prometheus.Counter
	Log      *slog.Logger
}

// Enrolment is the agent's standing with the servers: the host key that it
// joined with, and what it trusts since. Both are kept in data_dir.
type Enrolment struct {
	config Config
	td     spiffeid.TrustDomain // zero: learned from the join
	host   tls.Certificate
	// earlier is true where the host key is that of an earlier run.
	earlier bool
	dir     *Dir
	// instance tells this run of the agent from others with the same host key.
	instance instance

	// trust is nil before the first answer of a server.
	trust watched.Value[*svids.Trust]
	own   nodes.HostConfig // what this host joins by, other than a token; set by Enter
	used  usedUp           // of own; owned by whoever calls Enter, and Renew afterwards

	mu        sync.Mutex
	kept      kept // guarded by mu, once Enter has written what it begins with
	unwritten bool // kept is not what the folder has; guarded by mu
}

// New reads what an earlier run has left in dir, and makes a host key where that is
// nothing. It does not ask a server.
func New(c Config, dir *Dir) (*Enrolment, error) {
	e := &Enrolment{config: c, dir: dir, instance: instance(rand.Text())}
	var err error
	if c.TrustDomain != "" {
		if e.td, err = spiffeid.TrustDomainFromString(c.TrustDomain); err != nil {
			return nil, fmt.Errorf("trust_domain: %w", err)
		}
	}
	key, k, err := dir.load()
	if err != nil {
		return nil, err
	}
	if key == nil {
		e.host, err = newHostKey(time.Now())
		return e, err
	}
	if e.host, err = hostCertificate(key, time.Now()); err != nil {
		return nil, err
	}
	e.earlier, e.kept = true, k
	if k.RootSet == "" {
		return e, nil
	}
	t, err := svids.ParseTrust([]byte(k.RootSet), k.Pin)
	if err != nil {
		return nil, err
	}
	if !e.td.IsZero() && e.td != t.Roots.TrustDomain {
		return nil, fmt.Errorf("trust_domain: the configuration says %s, and this host joined %s: correct one, or move %s away and join anew",
			e.td, t.Roots.TrustDomain, dir.path)
	}
	e.trust.Set(t)
	return e, nil
}

// Enter returns the agent's first SVID. A host that joined before is known by its
// key, and re-anchored by the root set that it kept: it needs no token, and spends
// none. It waits for a server that is not there; a refusal ends it.
func (e *Enrolment) Enter(ctx context.Context, source Ways) (*svids.SVID, error) {
	e.own = source.Own
	began, joined := len(e.kept.Pin) > 0, e.kept.AgentID != ""
	if joined {
		s, err := e.comeBack(ctx)
		if err == nil && source.given() {
			e.config.Log.InfoContext(ctx, "this host has joined already: the token was not used and stays good", slog.String("agent", e.kept.AgentID))
		}
		if err == nil || status.Code(err) != codes.Unauthenticated {
			return s, err
		}
		e.config.Log.WarnContext(ctx, "this host is not known any more", slog.Any("err", err))
	}
	how, err := source.read()
	unsure := e.earlier && !joined && !e.kept.Refused // before it is written over
	switch {
	case errors.Is(err, ErrNoToken) && began && !joined: // it ended while it joined
		return e.comeBack(ctx)
	case err != nil:
		return nil, err
	case joined && !bytes.Equal(how.pin, e.kept.Pin):
		return nil, &TokenError{fmt.Errorf("the token, or the root in trust, is of another trust domain than %s, to which %s belongs: move that away, and join as a new agent",
			e.trust.Load().Roots.TrustDomain, e.dir.path)}
	case !joined:
		key, ok := e.host.PrivateKey.(*ecdsa.PrivateKey)
		if !ok {
			return nil, fmt.Errorf("internal error: a host key of type %T", e.host.PrivateKey)
		}
		if e.kept, err = e.dir.begin(key, how.pin); err != nil {
			return nil, fmt.Errorf("data_dir: %w", err)
		}
	}
	s, err := e.join(ctx, how, unsure)
	if code := status.Code(err); !joined && (code == codes.PermissionDenied || code == codes.Unauthenticated) {
		e.remember(func(k *kept) { k.Refused = true })
	}
	return s, err
}

// join gives what the host joins by, which spends a token. Where it is unsure whether an
// earlier attempt spent it and enrolled our key, the key is what we may be known by.
func (e *Enrolment) join(ctx context.Context, how way, unsure bool) (*svids.SVID, error) {
	verify := byPin(how.pin, e.td)
	s, err := e.untilAnswered(ctx, func() (*svids.SVID, error) {
		s, err := e.show(ctx, how.evidence, how.pin, verify)
		if err != nil && unsure && (refusal(err) || api.Used(err)) {
			if known, keyErr := e.attest(ctx, nil, how.pin, verify); !refusal(keyErr) {
				s, err = known, keyErr
			}
		}
		unsure = unsure || !api.Used(err) // the next attempt: what had been used before enrolled nobody now
		return s, err
	})
	if errors.Is(err, errPin) {
		err = fmt.Errorf("%w: %w", err, how.elsewhere)
	}
	if err != nil {
		return nil, e.notJoined(err, how.refused)
	}
	return s, nil
}

// notJoined is the error of a join; todo is what to do where it was refused.
func (e *Enrolment) notJoined(err, todo error) error {
	if status.Code(err) == codes.PermissionDenied {
		return fmt.Errorf("join %s: %w: %w", e.config.Server, err, todo)
	}
	return fmt.Errorf("join %s: %w", e.config.Server, err)
}

// comeBack attests by the host key of an earlier run.
func (e *Enrolment) comeBack(ctx context.Context) (*svids.SVID, error) {
	s, err := e.untilAnswered(ctx, func() (*svids.SVID, error) { return e.byKey(ctx) })
	switch {
	case api.Banned(err):
		return nil, fmt.Errorf("attest to %s: %w: move %s away, and start the agent with one of these", e.config.Server, err, e.dir.path)
	case api.Elsewhere(err):
		return nil, fmt.Errorf("attest to %s: %w: if %s is a copy of another host's, move it away and join this host as a new agent with a new token, or a certificate for a key of its own; if this is the right host, ban the agent: its key was stolen",
			e.config.Server, err, e.dir.path)
	case status.Code(err) == codes.Unauthenticated:
		return nil, fmt.Errorf("attest to %s: %w: %w", e.config.Server, err, ErrNoToken)
	case err != nil:
		return nil, fmt.Errorf("attest to %s: %w", e.config.Server, err)
	}
	return s, nil
}

// untilAnswered repeats attempt until a server has answered, one way or the other.
func (e *Enrolment) untilAnswered(ctx context.Context, attempt func() (*svids.SVID, error)) (*svids.SVID, error) {
	for tries := (retry.Tries{Policy: svids.Asking}); ; {
		s, err := attempt()
		if err == nil || refusal(err) || ctx.Err() != nil {
			return s, err
		}
		what := "no server answers, trying again"
		if errors.Is(err, errNothingToShow) { // who reads of the server looks at the network
			what = "the server is there and nothing is asked of it, trying again"
		}
		e.config.Log.WarnContext(ctx, what, slog.String("server", e.config.Server), slog.Any("err", err))
		if !watched.Sleep(ctx, tries.Failed(0, err)) {
			return nil, fmt.Errorf("%w; the last attempt: %w", context.Cause(ctx), err)
		}
	}
}

// Renew attests by the host key, when the agent's SVID ended during an outage. A task that the
// servers have forgotten meanwhile joins anew, as another agent: what it joins by is good for as
// long as it runs. An agent of a host is deleted by an operator alone, and stays out.
func (e *Enrolment) Renew(ctx context.Context) (*svids.SVID, error) {
	s, err := e.byKey(ctx)
	if status.Code(err) != codes.Unauthenticated || !e.own.Ends() {
		return s, err
	}
	evidence, err := e.own.Evidence()
	if err != nil {
		return nil, err
	}
	e.config.Log.WarnContext(ctx, "this task is not known any more, and joins anew", slog.String("agent", e.agentID()))
	if s, err = e.show(ctx, evidence, e.trust.Load().Roots.Pin(), byTrust(e.trust.Load, time.Now)); err != nil {
		return nil, e.notJoined(err, ErrOwnEvidence)
	}
	return s, nil
}

// byKey attests by the host key.
func (e *Enrolment) byKey(ctx context.Context) (*svids.SVID, error) {
	if t := e.trust.Load(); t != nil {
		return e.attest(ctx, nil, t.Roots.Pin(), byTrust(e.trust.Load, time.Now))
	}
	return e.attest(ctx, nil, e.kept.Pin, byPin(e.kept.Pin, e.td)) // it ended while it joined
}

// refusal reports whether an error is the server's answer, and no failure to get one.
func refusal(err error) bool {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument, codes.FailedPrecondition, codes.Unimplemented:
		return true
	}
	return errors.Is(err, svids.ErrBadAnswer)
}

// keep takes a root set unless a newer one is known, and writes down what this
// host is known by where that has changed.
func (e *Enrolment) keep(t *svids.Trust, agentID string) {
	e.trust.Update(func(old *svids.Trust) *svids.Trust {
		if old != nil && old.Roots.Number >= t.Roots.Number {
			return old
		}
		return t
	})
	e.remember(func(k *kept) { k.AgentID, k.RootSet = agentID, string(e.trust.Load().Signed) })
}

// remember writes down what changes of the host's standing, and what could not be
// written the last time.
func (e *Enrolment) remember(change func(*kept)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	next := e.kept
	change(&next)
	if !e.unwritten && next.AgentID == e.kept.AgentID && next.RootSet == e.kept.RootSet && next.Refused == e.kept.Refused {
		return
	}
	// Known from here on, written or not: a later root set is never written without the id.
	e.kept = next
	err := e.dir.save(next)
	if e.unwritten = err != nil; e.unwritten { // what the folder has still finds the way back, by older roots or by the pin
		e.config.Log.Error("standing not written, trying again with the next news of the servers", slog.String("data_dir", e.dir.path), slog.Any("err", err))
	}
}

// Trust is by which roots servers and SVIDs are accepted now; nil before the first answer.
func (e *Enrolment) Trust() *svids.Trust { return e.trust.Load() }

// Trusted is Trust with its changes. Nobody else sets it.
func (e *Enrolment) Trusted() *watched.Value[*svids.Trust] { return &e.trust }

// Keep takes a root set unless a newer one is known.
func (e *Enrolment) Keep(t *svids.Trust) { e.keep(t, e.agentID()) }

// Dial opens the connection over which everything goes once the host has joined. It
// shows the certificate of the moment at each handshake.
func (e *Enrolment) Dial(certificate func() *tls.Certificate) (*Line, error) {
	return dial(e.config.Server, e.instance, certificate, byTrust(e.trust.Load, time.Now))
}

// agentID is the agent's id as it is kept.
func (e *Enrolment) agentID() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.kept.AgentID
}
