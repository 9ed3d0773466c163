package admin

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/attestation/jointoken"
	"signet.example/identity"
	"signet.example/internal/plain"
	"signet.example/server/fault"
	"signet.example/server/kinds"
)

const defaultTokenTTL = 10 * time.Minute

// CreateToken mints a join token for a group. The store has only its hash.
func (s *Server) CreateToken(ctx context.Context, req *api.CreateTokenRequest) (*api.CreateTokenResponse, error) {
	ttl := defaultTokenTTL
	if req.GetTtl() != nil {
		ttl = req.GetTtl().AsDuration()
	}
	if ttl <= 0 || ttl > api.MaxTokenTTL {
		return nil, fault.New(fault.Invalid, "ttl %s is not between 0 and %s", ttl, api.MaxTokenTTL)
	}
	m, err := s.cfg.Stored.Newest(ctx)
	if err != nil {
		return nil, err
	}
	group := m.Objects().Get(kinds.Key{Kind: kinds.NodeGroup, Name: req.GetGroup()})
	if group == nil {
		return nil, fault.New(fault.NotFound, "NodeGroup %q does not exist%s; apply one first (docs/CONFIGURATION.md)", plain.Text(req.GetGroup()), others(m, kinds.NodeGroup, ""))
	}
	if g, ok := group.Value.(identity.NodeGroup); ok && len(g.Selectors) > 0 {
		return nil, fault.New(fault.Invalid, "NodeGroup %q has selectors: its hosts are those that have them, and join without a token (docs/AGENT.md); name a group without selectors", g.Name)
	}
	token, err := jointoken.New(s.cfg.Pin())
	if err != nil {
		return nil, err
	}
	expires := s.cfg.Clock().Add(ttl).UTC()
	if err := s.cfg.Tokens.PutToken(ctx, token.Hash(), req.GetGroup(), expires); err != nil {
		return nil, fmt.Errorf("keep the token: %w", err)
	}
	return &api.CreateTokenResponse{Token: token.Reveal(), Expires: timestamppb.New(expires)}, nil
}
