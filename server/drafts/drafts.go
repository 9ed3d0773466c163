// Package drafts writes the Rego that meshes begin with, of what the server has:
// what they declare, and what the connected agents have let through. It changes nothing.
//
// All of it is safe for any number of goroutines.
package drafts

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/mesh"
	"signet.example/policy"
	"signet.example/policy/draft"
	"signet.example/server/policies"
	"signet.example/xds/predict"
)

// Sessions are those of the connected agents.
type Sessions interface {
	// Decisions asks the agents for the newest that they keep, and names those that did not answer.
	Decisions(ctx context.Context, f *api.DecisionFilter) (list []*api.Decision, silent []string)
}

// Drafts of a trust domain. Every field is needed.
type Drafts struct {
	TrustDomain spiffeid.TrustDomain
	Sessions    Sessions
}

// Policy writes what is asked for, of meshes that are there.
func (w Drafts) Policy(ctx context.Context, g *mesh.Graph, req *api.DraftPolicyRequest) (*api.DraftPolicyResponse, error) {
	of := draft.Mesh{Graph: g, TrustDomain: w.TrustDomain, Only: req.GetMesh(), Example: predict.Example}
	resp := &api.DraftPolicyResponse{}
	var d draft.Draft
	if req.GetFromTraffic() {
		p := pages{sessions: w.Sessions, known: map[string]bool{}, hosts: map[string]*host{}, silent: map[string]bool{}}
		all := p.all(ctx, req.GetSince())
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("ask the agents: %w", err)
		}
		d = draft.FromTraffic(of, all)
		if p.some {
			d.Notes = append(d.Notes, fmt.Sprintf("only the newest %d decisions were looked at: ask for less by --since or --mesh", len(all)))
		}
		resp.Decisions, resp.Silent = int32(len(all)), slices.Sorted(maps.Keys(p.silent)) //nolint:gosec // mostPages of pageSize
	} else {
		d = draft.FromMesh(of)
	}
	for _, f := range d.Files {
		resp.Files = append(resp.Files, &api.DraftPolicyResponse_File{Path: f.Path, Content: f.Content, Rules: int32(f.Rules)}) //nolint:gosec // lines of a file
	}
	for _, e := range policies.Exemptions(policies.HealthExemptions(of.Graph, of.TrustDomain)) {
		if req.GetMesh() == "" || strings.HasPrefix(e.GetDestination(), of.TrustDomain.IDString()+"/"+req.GetMesh()+"/") {
			resp.Exemptions = append(resp.Exemptions, e)
		}
	}
	resp.Notes = d.Notes
	return resp, nil
}

// pages asks the agents for all that they keep, one list after the other, each of what is as
// old as the oldest of the one before. An agent's list may be shorter than what is asked for
// although it has more; so the next one begins where the agent that came the least far ended.
type pages struct {
	sessions Sessions
	known    map[string]bool // decisions, by id
	hosts    map[string]*host
	silent   map[string]bool
	some     bool // there may be more than was asked for
}

// host is one whose agent has answered.
type host struct {
	oldest time.Time
	done   bool // it has nothing older
}

// mostPages bounds how often all agents are asked, and pageSize what they answer together.
const mostPages, pageSize = 100, 500

func (p *pages) all(ctx context.Context, since *timestamppb.Timestamp) []draft.Seen {
	f := &api.DecisionFilter{Since: since, Limit: pageSize}
	var list []draft.Seen
	for n := range mostPages + 1 {
		if p.some = n == mostPages; p.some || ctx.Err() != nil {
			break
		}
		found, silent := p.sessions.Decisions(ctx, f)
		for _, agent := range silent {
			p.silent[agent] = true
		}
		for _, d := range p.fresh(found, f.GetUntil()) {
			if !d.NotCarried() { // which is no decision
				list = append(list, seenOf(d))
			}
		}
		next, ok := p.next()
		if !ok {
			break
		}
		f = &api.DecisionFilter{Since: since, Until: timestamppb.New(next), Limit: pageSize}
	}
	return list
}

// fresh are those of a list that were not there before.
func (p *pages) fresh(found []*api.Decision, until *timestamppb.Timestamp) []*api.Decision {
	brought := map[string]bool{}
	var list []*api.Decision
	for _, d := range found {
		if p.known[d.GetId()] {
			continue
		}
		p.known[d.GetId()], brought[d.GetNode()] = true, true
		list = append(list, d)
		at := d.GetTime().AsTime()
		if h := p.hosts[d.GetNode()]; h == nil {
			p.hosts[d.GetNode()] = &host{oldest: at}
		} else if at.Before(h.oldest) {
			h.oldest = at
		}
	}
	for name, h := range p.hosts {
		h.done = h.done || until != nil && !until.AsTime().After(h.oldest) && !brought[name]
	}
	return list
}

// next is until when to ask; false if every agent has told all.
func (p *pages) next() (until time.Time, ok bool) {
	for _, h := range p.hosts {
		if !h.done && (!ok || h.oldest.After(until)) {
			until, ok = h.oldest, true
		}
	}
	return until, ok
}

// seenOf is what of a decision rules are made of.
func seenOf(d *api.Decision) draft.Seen {
	s := draft.Seen{
		Source: d.GetSource(), Destination: d.GetDestination(), Method: d.GetMethod(), Path: d.GetPath(),
		Time: d.GetTime().AsTime(), Observed: d.GetObserved(), Denied: !d.GetAllowed() && !d.GetObserved(),
	}
	if _, err := fmt.Sscanf(d.GetHost(), "port %d", &s.Port); err != nil || d.GetPath() != "" {
		s.Port = 0 // a request: only a connection's record has the port in the place of its host
	}
	for _, r := range d.GetRules() {
		name := r.GetName()
		switch {
		case d.GetAllowed():
			s.Exempt = s.Exempt || strings.HasPrefix(name, policies.HealthExemption)
		case s.Forbidden == "" && !strings.HasPrefix(name, policy.OwnRule):
			s.Forbidden = name
		}
	}
	return s
}
