package policies

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/policy"
	"signet.example/policy/repo"
	"signet.example/store"
)

// Load puts the last good revision in force, as the store has it, unless another server
// has: a restarted server serves it before it has reached any repository.
func (p *Revisions) Load(ctx context.Context) error {
	if p.State() != nil {
		return p.renewRevision(ctx)
	}
	row, err := p.Store.LastRevision(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return p.renewRevision(ctx)
	}
	if err != nil {
		return fmt.Errorf("last policy revision: %w", err)
	}
	rev := &api.PolicyRevision{}
	if err := proto.Unmarshal(row.Body, rev); err != nil {
		return fmt.Errorf("stored policy revision %s: %w", row.ID, err)
	}
	p.Shared.Update(func(now *State) *State {
		if now != nil {
			return now
		}
		return &State{Current: rev, Keep: []*api.PolicyRevision{rev}, Stamp: rev.GetId(), Source: row.Source}
	})
	p.mu.Lock()
	p.adopt(ctx, p.State(), row.At)
	p.mu.Unlock()
	return p.renewRevision(ctx)
}

// adopt has the last good tree be that of the revision in force, where it is another
// one: the last run put that there, or another server has. p.mu must be held.
func (p *Revisions) adopt(ctx context.Context, s *State, at time.Time) {
	if s == nil || s.Current.GetId() == p.inForce {
		return
	}
	p.inForce, p.good = s.Current.GetId(), goodTree{}
	if s.Source == "" {
		return
	}
	p.good = goodTree{source: s.Source, url: s.Current.GetSource(), commit: s.Current.GetCommit()}
	for _, m := range s.Current.GetModules() {
		p.good.modules = append(p.good.modules, policy.Module{Path: m.GetPath(), Rego: m.GetRego()})
	}
	var err error
	if p.good.packages, err = policy.Packages(p.good.modules); err != nil {
		p.Log.WarnContext(ctx, "the last good policy cannot be read any more", slog.Any("err", err))
	}
	st := &api.PolicyStatus{Source: s.Source, Synced: timestamppb.New(at)}
	if old := p.status[s.Source]; old != nil { // what came of reading it here stays
		st, _ = proto.Clone(old).(*api.PolicyStatus) // Clone returns what it was given
	}
	st.Url, st.Commit, st.Revision = p.good.url, p.good.commit, p.inForce
	st.Modules = int32(len(p.good.modules)) //nolint:gosec // bounded by repo.Fetch
	p.status[s.Source] = st
}

// Renewed returns when the revision in force is of all that is stored, as far as this server, or another
// that has read more, knows it.
func (p *Revisions) Renewed(ctx context.Context) error { return p.renewRevision(ctx) }

// InForce is the newest revision, and the one that routes are stamped with.
func (p *Revisions) InForce() (newest, stamp string) {
	if s := p.State(); s != nil {
		return s.Current.GetId(), s.Stamp
	}
	return "", ""
}

// renewRevision is activate of the last good tree.
func (p *Revisions) renewRevision(ctx context.Context) error { return p.activate(ctx, nil) }

// activate makes the revision of a tree, or of the last good one, and of the mesh as it
// is, records it, and hands it to the agents. Without a source everything is denied but
// the generated exemptions.
func (p *Revisions) activate(ctx context.Context, tree *goodTree) error {
	unlock, err := p.Activating.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	m, old := p.Look(), p.State()
	rev, source, err := p.next(ctx, m, old, tree)
	if rev == nil || err != nil {
		return err
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(rev)
	if err != nil {
		return fmt.Errorf("encode policy revision: %w", err)
	}
	at := p.Clock()
	row := store.PolicyRow{ID: rev.GetId(), Source: source, Commit: rev.GetCommit(), Body: body, At: at}
	if err := p.Store.PutRevision(ctx, row); err != nil {
		return fmt.Errorf("record policy revision %s: %w", rev.GetId(), err)
	}
	p.Shared.Update(func(now *State) *State {
		next := nextState(now, rev)
		next.Since, next.Source, next.Model = at, source, m.Revision
		return next
	})
	p.mu.Lock()
	p.inForce, p.good.renewed = rev.GetId(), m.Graph
	p.mu.Unlock()
	p.Log.InfoContext(ctx, "policy revision active", slog.String("policy_rev", rev.GetId()),
		slog.String("commit", rev.GetCommit()), slog.Int("modules", len(rev.GetModules())))
	p.Changed()
	p.stamp.Wake()
	return nil
}

// next is the revision that is to be in force, and the source that it is of; nil where
// the one that is in force stays. The caller holds Activating.
func (p *Revisions) next(ctx context.Context, m Look, old *State, tree *goodTree) (rev *api.PolicyRevision, source string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch behind := old != nil && m.Revision < old.Model; { // another server has read more of what is stored
	case behind && tree != nil:
		return nil, "", fmt.Errorf("revision %d of the mesh is not read here yet: try again", old.Model)
	case behind: // Renew comes when it is
		return nil, "", nil
	}
	if p.adopt(ctx, old, p.Clock()); tree != nil {
		p.good = *tree
	}
	if !slices.ContainsFunc(m.Sources, func(s repo.Source) bool { return s.Name == p.good.source }) {
		p.good = goodTree{} // its source was deleted
	}
	for name := range p.status {
		if !slices.ContainsFunc(m.Sources, func(s repo.Source) bool { return s.Name == name }) {
			delete(p.status, name)
			delete(p.tried, name)
			delete(p.failed, name)
			delete(p.took, name)
		}
	}
	if p.good.renewed != nil && m.Graph.SameToPolicy(p.good.renewed) { // then the revision is the same
		p.good.renewed = m.Graph
		return nil, "", nil
	}
	var contested []string
	for _, c := range Contested(m.Graph, p.good.packages) {
		contested = append(contested, c.Node)
	}
	rev = revisionMessage(policy.NewRevision(p.good.url, p.good.commit, p.good.modules, policy.Generated{
		Exemptions: HealthExemptions(m.Graph, p.TrustDomain), Contested: contested, Observed: Observed(m.Graph, p.TrustDomain),
	}))
	if old != nil && old.Current.GetId() == rev.GetId() {
		p.good.renewed = m.Graph
		return nil, "", nil
	}
	return rev, p.good.source, nil
}

// nextState keeps what routes may still be stamped with.
func nextState(old *State, rev *api.PolicyRevision) *State {
	if old == nil {
		return &State{Current: rev, Keep: []*api.PolicyRevision{rev}, Stamp: rev.GetId()}
	}
	keep := []*api.PolicyRevision{rev}
	for _, r := range old.Keep {
		if r.GetId() != rev.GetId() && (r.GetId() == old.Stamp || r.GetId() == old.Current.GetId()) {
			keep = append(keep, r)
		}
	}
	return &State{Current: rev, Keep: keep, Stamp: old.Stamp}
}

// RunStamp moves the stamp to the current revision once the connected agents
// have loaded it, so that no route asks for a revision that its agent lacks.
func (p *Revisions) RunStamp(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.stamp:
		}
		id := p.revision()
		deadline := time.NewTimer(StampDeadline)
		for waiting := true; waiting; {
			next := p.Agents.Wait()
			if p.Agents.Loaded(id) {
				break
			}
			select {
			case <-ctx.Done():
				deadline.Stop()
				return nil
			case <-next:
			case <-p.stamp: // a newer revision: wait for that one
				id = p.revision()
				deadline.Reset(StampDeadline)
			case <-deadline.C:
				waiting = false
				p.Log.WarnContext(ctx, "not every agent loaded the policy revision in time; it is stamped now", slog.String("policy_rev", id))
			}
		}
		deadline.Stop()
		p.setStamp(id)
	}
}

func (p *Revisions) setStamp(id string) {
	moved := false
	p.Shared.Update(func(now *State) *State {
		if moved = now.Stamp != id && now.Current.GetId() == id; !moved {
			return now
		}
		next := *now
		next.Stamp = id
		return &next
	})
	if moved {
		p.Changed()
	}
}

// inForceSince is the newest revision, and when it came into force.
func (p *Revisions) inForceSince() (id string, since time.Time) {
	if s := p.State(); s != nil {
		return s.Current.GetId(), s.Since
	}
	return "", time.Time{}
}

// revision is the id of the newest revision.
func (p *Revisions) revision() string {
	id, _ := p.inForceSince()
	return id
}

// revisionMessage is a revision as it travels and as it is stored.
func revisionMessage(r policy.Revision) *api.PolicyRevision {
	m := &api.PolicyRevision{Id: r.ID, Source: r.Source, Commit: r.Commit, Contested: r.Contested, Observed: r.Observed, Exemptions: Exemptions(r.Exemptions)}
	for _, mod := range r.Modules {
		m.Modules = append(m.Modules, &api.PolicyModule{Path: mod.Path, Rego: mod.Rego})
	}
	return m
}
