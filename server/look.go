package server

import (
	"context"
	"errors"

	"signet.example/attestation/nodes"
	"signet.example/server/check"
	"signet.example/server/issuance"
)

// look is what findings are made of.
func (s *server) look(ctx context.Context) check.Look {
	awaits, _ := s.common.awaited.Get() // before what is registered
	l := check.Look{
		Signer: s.lookAtSigner(ctx), Stored: s.model(), TrustDomain: s.td, Started: s.started, Now: s.clock(),
		Agents: s.statuses.All(), Many: nearlyFull(s.roster.Principals(), s.cfg.Join.Quota), Clashes: s.instances.Recent(), Refused: s.endpoints.Refused(), Awaited: awaits, Endpoints: s.endpoints.Snapshot(),
		Policy:  check.Policy{State: s.policies.State(), Statuses: s.policies.Statuses(), Packages: s.policies.PackagesInForce()},
		Failing: s.issuers.Failing(), Losing: s.issuers.Losing(), Found: s.foundElsewhere, CloudMap: s.found.Failing(), Orphans: s.issued.Orphans(s.clock()),
		Ends: nodes.Ends, ByCertificate: s.cfg.Join.X509PoP.Roots != "", PostQuantum: s.cfg.RequirePostQuantum,
	}
	for _, key := range s.views.Open() {
		l.Open = append(l.Open, check.Proxy{Node: key.Node, Shape: key.Shape})
	}
	for _, key := range s.views.Unlogged() {
		l.Unlogged = append(l.Unlogged, key.Node)
	}
	return l
}

// lookAtSigner asks the signer for its authority.
func (s *server) lookAtSigner(ctx context.Context) check.Signer {
	found := check.Signer{Separate: s.cfg.Signer != "", Err: s.authority.Load(ctx)}
	if gone, ok := errors.AsType[*issuance.RecordsGone](found.Err); ok {
		found.Err, found.Gone = gone, gone.Fix()
	}
	found.NotKept = errors.Is(found.Err, issuance.ErrNotKept)
	found.FailedAt, found.Failed = s.signer.Failed()
	issuing := s.authority.Roots().Issuing
	found.NotBefore, found.NotAfter = issuing.NotBefore, issuing.NotAfter
	return found
}
