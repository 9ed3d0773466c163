package nodes

import (
	"context"
	"time"

	"signet.example/api"
	"signet.example/attestation/jointoken"
)

// Config is the server's: which evidence it takes of hosts, beside join tokens.
type Config struct{}

// HostConfig is a host's: by what it joins, where it has no token.
type HostConfig struct{}

// methods are all of them. A method that is not here is refused by its name.
var methods = []method{
	{
		name: "join_token",
		attestor: func(_ Config, tokens jointoken.Tokens) (attestor, error) {
			return byToken{jointoken.Attestor{Tokens: tokens}}, nil
		},
	},
}

// Token is what a host shows that was given a join token.
func Token(t jointoken.Token) Evidence {
	return func(_ Channel, req *api.AttestRequest) error {
		req.Evidence = &api.AttestRequest_JoinToken{JoinToken: t.SecretText()}
		return nil
	}
}

// byToken: the group is the token's, and there are no selectors.
type byToken struct{ jointoken.Attestor }

func (b byToken) weigh(ctx context.Context, req *api.AttestRequest, now time.Time) (Weight, error) {
	hash, err := b.Good(ctx, req.GetJoinToken(), now)
	return Weight{Own: hash, Units: 1}, err
}

func (b byToken) attest(ctx context.Context, req *api.AttestRequest, _ Channel, now time.Time) (Node, error) {
	group, err := b.Use(ctx, req.GetJoinToken(), now)
	return Node{Group: group}, err
}
