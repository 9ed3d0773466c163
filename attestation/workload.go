package attestation

import (
	"context"

	"signet.example/identity"
)

// workload is one way to attest a process. It returns the selectors that the
// process has by it: none where it does not apply or what it reads cannot be
// vouched for, which can only make fewer entries fit. An error refuses the peer
// as a whole. has is what the methods before it found. It is called for every
// answer, from any goroutine, and is over when ctx ends.
type workload func(ctx context.Context, p *Peer, proc *proc, has identity.Selectors) (identity.Selectors, error)

// workloads are all methods, cheap ones first: whether a program is hashed depends
// on what else it has. Their selectors are listed in identity, which refuses others.
var workloads = []workload{ofUnix, ofSupervisor, ofSystemd, ofHash}

// ofSupervisor says which of the agent's own proxies the process is.
func ofSupervisor(_ context.Context, p *Peer, _ *proc, _ identity.Selectors) (identity.Selectors, error) {
	if p.attestor.Supervised == nil {
		return nil, nil
	}
	name, ok := p.attestor.Supervised(p.pidfd, p.pid)
	if !ok {
		return nil, nil
	}
	return identity.Selectors{{Type: "signet", Value: "proxy:" + name}}, nil
}
