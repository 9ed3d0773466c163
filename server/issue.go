package server

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/api"
	"signet.example/internal/ordered"
	"signet.example/internal/plain"
	"signet.example/server/fault"
)

// issuing has a batch signed: one result for each item, in their order, and what they
// have of certificates is in the log, durably. The caller has decided that the
// requesters may have them. After an error nothing is known of any item. It is called
// from many goroutines.
type issuing interface {
	Issue(ctx context.Context, items []*api.SignItem) ([]*api.SignResult, error)
}

// Issue signs SVIDs in a batch. The caller is the agent of the connection; what
// it may hold is what hangs on its group, and an entry that is another's looks
// like one that does not exist.
func (a *agentAPI) Issue(ctx context.Context, req *api.IssueRequest) (*api.IssueResponse, error) {
	c, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	n := len(req.GetRequests())
	if n > maxBatch {
		return nil, fault.New(fault.Invalid, "%d requests in one batch: at most %d", n, maxBatch)
	}
	if !a.issues.allow(c.agent.ID, n) {
		a.metrics.limited.Inc()
		return nil, fault.Limit
	}
	grants := a.model().group(c.agent.Group).grants
	results := make([]*api.SVIDResult, n)
	var turnedAway []string
	var items []*api.SignItem
	var at []int // where each item's result belongs
	for i, r := range req.GetRequests() {
		item, err := a.item(c, r, grants)
		if err != nil {
			results[i] = &api.SVIDResult{Error: err.Error()}
			turnedAway = append(turnedAway, fmt.Sprintf("entry %q: %s", plain.Clip(r.GetEntry(), 64), err))
			a.metrics.svids(api.Profile_PROFILE_WORKLOAD, "refused").Inc()
			continue
		}
		items, at = append(items, item), append(at, i)
	}
	invalid, err := a.signAll(ctx, items, at, results)
	if turnedAway = append(turnedAway, invalid...); len(turnedAway) > 0 {
		a.refusals.refused(ctx, c, "issue", fmt.Sprintf("%d of %d: %s", len(turnedAway), n, strings.Join(turnedAway[:min(len(turnedAway), 4)], "; ")))
	}
	if err != nil {
		return nil, err
	}
	return &api.IssueResponse{Results: results}, nil
}

// item reports what is to be signed for one request.
func (a *agentAPI) item(c *caller, r *api.SVIDRequest, grants ordered.Map[ordered.String, *grant]) (*api.SignItem, error) {
	if len(r.GetCsr()) == 0 || len(r.GetCsr()) > maxCSR {
		return nil, fault.New(fault.Invalid, "certificate request of %d bytes", len(r.GetCsr()))
	}
	item := &api.SignItem{Csr: r.GetCsr(), Requester: c.id.String()}
	if r.GetEntry() == "" {
		item.SpiffeId, item.Profile = c.id.String(), api.Profile_PROFILE_AGENT
		item.Lifetime = durationpb.New(a.cfg.Lifetimes.Agent)
		return item, nil
	}
	g, ok := grants.Find(ordered.String(r.GetEntry()))
	if !ok {
		return nil, fault.Denied // not there, or not yours: the same answer (A27)
	}
	lifetime := a.cfg.Lifetimes.SVID
	if g.entry.TTL > 0 {
		lifetime = g.entry.TTL
	}
	item.SpiffeId, item.Profile, item.Lifetime = g.entry.ID.String(), api.Profile_PROFILE_WORKLOAD, durationpb.New(lifetime)
	return item, nil
}

// signAll asks the signer once for all, and puts the answers in their places. It
// returns what the signer refused because of the requests themselves.
func (a *agentAPI) signAll(ctx context.Context, items []*api.SignItem, at []int, results []*api.SVIDResult) (invalid []string, err error) {
	if len(items) == 0 {
		return nil, nil
	}
	signed, err := a.signing.Issue(ctx, items)
	if err != nil {
		for _, item := range items {
			a.metrics.svids(item.GetProfile(), "failed").Inc()
		}
		return nil, unanswered(err)
	}
	for j, r := range signed {
		out := &api.SVIDResult{Chain: r.GetChain()}
		outcome := "ok"
		if r.GetError() != "" {
			out, outcome = &api.SVIDResult{Error: signerError(r).Error()}, "failed"
		}
		if r.GetInvalid() {
			outcome = "refused"
			invalid = append(invalid, items[j].GetSpiffeId()+": "+r.GetError())
		}
		results[at[j]] = out
		a.metrics.svids(items[j].GetProfile(), outcome).Inc()
	}
	return invalid, nil
}
