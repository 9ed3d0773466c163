package issuance

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/api"
	"signet.example/identity"
	"signet.example/internal/plain"
	"signet.example/server/fault"
)

const (
	maxBatch = 256     // SVIDs in one request
	maxCSR   = 8 << 10 // bytes
)

// Issuer has a batch signed: one result for each item, in their order, and what they
// have of certificates is in the log, durably. The caller has decided that the
// requesters may have them. After an error nothing is known of any item. It is called
// from many goroutines.
type Issuer interface {
	Issue(ctx context.Context, items []*api.SignItem) ([]*api.SignResult, error)
}

// Batches is an Issuer of which those who ask take turns.
type Batches interface {
	Issue(ctx context.Context, whose Share, items []*api.SignItem) ([]*api.SignResult, error)
}

// Limits is how much each may ask for.
type Limits interface {
	// Take takes so much of what key has left, or nothing and returns an error for the
	// agent: fault.Limit, which may say when there is enough.
	Take(key string, n int) error
}

// Metrics are what SVIDs counts.
type Metrics struct {
	Issued  func(p api.Profile, outcome string) prometheus.Counter // outcome: ok, refused, failed
	Limited prometheus.Counter
}

// Config of SVIDs. Every field is needed.
type Config struct {
	// Batches is what answers requests of agents that joined, One what answers one that
	// joins.
	Batches Batches
	One     Issuer
	Limits  Limits // by agent
	Metrics Metrics
	// Agent is the lifetime of agents' own SVIDs, Workload of those whose entry names none.
	Agent, Workload time.Duration
}

// SVIDs is what agents get certificates from.
type SVIDs struct{ cfg Config }

// New returns SVIDs that have issued nothing.
func New(cfg Config) *SVIDs { return &SVIDs{cfg} }

// Requester is an agent that was let in.
type Requester struct {
	ID    spiffeid.ID
	Agent string // its id, by which it is limited
	// Principal is whose turns it shares, "" where it has its own.
	Principal string
	// Entry finds what the agent may hold, by its name. What is another's is not there.
	Entry func(name string) (identity.Entry, bool)
}

// Batch signs SVIDs in a batch. What the requester may not have, and what the signer
// finds wrong with its requests, is in refused, for the audit trail; it is empty where
// there is none. An entry that is another's looks like one that does not exist.
func (s *SVIDs) Batch(ctx context.Context, who Requester, req *api.IssueRequest) (resp *api.IssueResponse, refused string, err error) {
	n := len(req.GetRequests())
	if n > maxBatch {
		return nil, "", fault.New(fault.Invalid, "%d requests in one batch: at most %d", n, maxBatch)
	}
	if err := s.cfg.Limits.Take(who.Agent, n); err != nil {
		s.cfg.Metrics.Limited.Inc()
		return nil, "", err // says when there is enough
	}
	b := batch{results: make([]*api.SVIDResult, n)}
	for i, r := range req.GetRequests() {
		item, err := s.item(who, r)
		if err != nil {
			b.results[i] = &api.SVIDResult{Error: err.Error()}
			b.refused = append(b.refused, fmt.Sprintf("entry %q: %s", plain.Clip(r.GetEntry(), 64), err))
			s.cfg.Metrics.Issued(api.Profile_PROFILE_WORKLOAD, "refused").Inc()
			continue
		}
		b.items, b.at = append(b.items, item), append(b.at, i)
	}
	err = s.sign(ctx, Share{Principal: who.Principal, Agent: who.Agent}, &b)
	if len(b.refused) > 0 {
		refused = fmt.Sprintf("%d of %d: %s", len(b.refused), n, strings.Join(b.refused[:min(len(b.refused), 4)], "; "))
	}
	if err != nil {
		return nil, refused, err
	}
	return &api.IssueResponse{Results: b.results}, refused, nil
}

// item returns what is to be signed for one request.
func (s *SVIDs) item(who Requester, r *api.SVIDRequest) (*api.SignItem, error) {
	if err := checkSize(r.GetCsr()); err != nil {
		return nil, err
	}
	if r.GetEntry() == "" {
		return s.own(who.ID, r.GetCsr()), nil
	}
	entry, ok := who.Entry(r.GetEntry())
	if !ok {
		return nil, fault.Denied // not there, or not yours: the same answer (A27)
	}
	lifetime := s.cfg.Workload
	if entry.TTL > 0 {
		lifetime = entry.TTL
	}
	return &api.SignItem{
		SpiffeId: entry.ID.String(), Csr: r.GetCsr(), Profile: api.Profile_PROFILE_WORKLOAD, Requester: who.ID.String(),
		Lifetime: durationpb.New(lifetime),
	}, nil
}

// own is an agent's own SVID.
func (s *SVIDs) own(agent spiffeid.ID, csr []byte) *api.SignItem {
	return &api.SignItem{
		SpiffeId: agent.String(), Csr: csr, Profile: api.Profile_PROFILE_AGENT, Requester: agent.String(),
		Lifetime: durationpb.New(s.cfg.Agent),
	}
}

// batch is a request under way.
type batch struct {
	items   []*api.SignItem
	at      []int // where each item's result belongs
	results []*api.SVIDResult
	refused []string
}

// sign asks the signer once for all, and puts the answers in their places.
func (s *SVIDs) sign(ctx context.Context, whose Share, b *batch) error {
	if len(b.items) == 0 {
		return nil
	}
	signed, err := s.cfg.Batches.Issue(ctx, whose, b.items)
	if err != nil {
		for _, item := range b.items {
			s.cfg.Metrics.Issued(item.GetProfile(), "failed").Inc()
		}
		return unanswered(err)
	}
	for j, r := range signed {
		out := &api.SVIDResult{Chain: r.GetChain()}
		outcome := "ok"
		if r.GetError() != "" {
			out, outcome = &api.SVIDResult{Error: signerError(r).Error()}, "failed"
		}
		if r.GetInvalid() {
			outcome = "refused"
			b.refused = append(b.refused, b.items[j].GetSpiffeId()+": "+r.GetError())
		}
		b.results[b.at[j]] = out
		s.cfg.Metrics.Issued(b.items[j].GetProfile(), outcome).Inc()
	}
	return nil
}

// Agent issues the own SVID of an agent that joins.
func (s *SVIDs) Agent(ctx context.Context, agent spiffeid.ID, csr []byte) (chain [][]byte, err error) {
	chain, err = one(ctx, s.cfg.One, s.own(agent, csr))
	outcome := "ok"
	if err != nil {
		outcome = "failed"
	}
	s.cfg.Metrics.Issued(api.Profile_PROFILE_AGENT, outcome).Inc()
	return chain, err
}

// CheckCSR returns why an agent's own request has no chance, before anything is spent on it. The
// signer checks again, and more: it trusts nobody.
func (s *SVIDs) CheckCSR(der []byte) error {
	if err := checkSize(der); err != nil {
		return err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return fault.New(fault.Invalid, "certificate request: %v", err)
	}
	if err := checkKey(csr.PublicKey); err != nil { // before anything is computed with it
		return err
	}
	if err := csr.CheckSignature(); err != nil {
		return fault.New(fault.Invalid, "certificate request: %v", err)
	}
	return nil
}

// checkKey takes what agents make, P-256, and P-384, which the signer would take as well. Others
// cost more than what a caller has paid: a signature by an RSA key as large as a request has
// room for is 20 ms to verify.
func checkKey(key any) error {
	if k, ok := key.(*ecdsa.PublicKey); ok && (k.Curve == elliptic.P256() || k.Curve == elliptic.P384()) {
		return nil
	}
	return fault.New(fault.Invalid, "certificate request: an agent's key is ECDSA on P-256 or P-384")
}

func checkSize(csr []byte) error {
	if len(csr) == 0 || len(csr) > maxCSR {
		return fault.New(fault.Invalid, "certificate request of %d bytes", len(csr))
	}
	return nil
}

// one has one certificate issued.
func one(ctx context.Context, issuer Issuer, item *api.SignItem) (chain [][]byte, err error) {
	results, err := issuer.Issue(ctx, []*api.SignItem{item})
	if err != nil {
		return nil, unanswered(err)
	}
	switch r := results[0]; {
	case r.GetError() != "":
		return nil, signerError(r)
	case len(r.GetChain()) == 0:
		return nil, fmt.Errorf("%w: the signer answered with neither a chain nor an error", fault.Unavailable)
	default:
		return r.GetChain(), nil
	}
}

// unanswered is the error of a request that the signer did not answer.
func unanswered(err error) error {
	if errors.Is(err, fault.Unavailable) { // it has the reason
		return err
	}
	return fmt.Errorf("%w: the signer did not answer: %w", fault.Unavailable, err)
}

// signerError is a request's own fault, or the signer's.
func signerError(r *api.SignResult) error {
	if r.GetInvalid() {
		return fault.New(fault.Invalid, "%s", r.GetError())
	}
	return fault.New(fault.Unavailable, "not signed: %s", r.GetError())
}
