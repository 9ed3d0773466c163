package join

import (
	"context"
	"errors"
	"fmt"
	"time"

	"signet.example/api"
	"signet.example/attestation/nodes"
	"signet.example/attestation/platform"
	"signet.example/internal/plain"
	"signet.example/server/conns"
	"signet.example/server/fault"
	"signet.example/store"
)

// Limits is how much verifying each may ask for.
type Limits interface {
	// Take takes so much of what key has left, or nothing and returns an error for the
	// caller: fault.Limit, which may say when there is enough.
	Take(key string, n int) error
}

// Lanes are where what may be rubbish is verified: of one owner one at a time, so that whoever
// sends much of it takes a part of one processor, and others of the same owner wait for no more
// than their turn.
type Lanes interface {
	// Enter waits for the owner's turn, for so long at most, and returns how to end it; nil where
	// it did not come.
	Enter(owner string, within time.Duration) (leave func(spent time.Duration))
}

// inLane is how long a caller waits for its turn; it has no longer for its connection.
const inLane = 5 * time.Second

// pay takes the attestation of a caller out of a bucket, before anything of
// its evidence is verified. One that joined is known by the key that its handshake
// proved, one that may join by its token: each has a bucket that nobody else can empty,
// so that whoever shares its address cannot keep it out. Nor can a copy of its folder
// from another address, which has the key: where the agent was let in last it has a
// bucket, and everywhere else the other.
//
// What a stranger shows may be good or rubbish, and nothing tells which before it is verified.
// So the first on each connection is paid for by the handshake, which cost as much: who sends
// rubbish from an address takes nothing from others there. All that it shows is verified in a turn, and
// so is evidence with a key that has joined, of which a role has as many as it likes.
func (d *Desk) pay(ctx context.Context, c Caller, req *api.AttestRequest) (turn turns, err error) {
	id, joined := d.cfg.Agents.OfKey(c.HostKey)
	w, err := d.cfg.Evidence.Weigh(ctx, req, d.cfg.Clock())
	turn = turns{own: true, waits: w.Waits}
	switch {
	case errors.Is(err, nodes.ErrEvidence):
		return turn, refused(err)
	case err != nil:
		return turn, fmt.Errorf("%w: %w", fault.Unavailable, err)
	case joined:
		where := "elsewhere"
		if d.cfg.Instances.ServedAt(id, c.Remote) {
			where = "there"
		}
		turn.own = nodes.Method(req) != ""
		return turn, d.cfg.Known.Take(string(c.HostKey)+where, w.Units)
	case w.Own != nil:
		d.cfg.Vouched(c.Conn)
		return turns{}, d.cfg.Known.Take(string(w.Own), w.Units)
	case d.cfg.First.Take(c.Conn.String()+string(c.HostKey), 1) == nil:
	case d.cfg.Strangers.Take(c.source(), w.Units) != nil:
		return turn, fault.Limit
	}
	return turn, nil
}

// turns is what of a caller is verified in its turn.
type turns struct {
	own   bool // all that it shows
	waits bool // its evidence, in a turn of those that wait for somebody else
}

// source is where a caller comes from.
func (c Caller) source() string { return conns.Source(c.Remote).String() }

// verify checks a caller's request for a certificate, and its host's evidence where it has any;
// where it is to wait for its turn, in that. Evidence that waits for somebody else has a turn
// among its like, after that of its request: it takes no processor.
func (d *Desk) verify(ctx context.Context, c Caller, req *api.AttestRequest, turn turns) (node nodes.Node, err error) {
	evidence := func() (err error) {
		node, err = d.evidence(ctx, c, req)
		return err
	}
	err = d.inTurn(ctx, c, turn.own, d.cfg.Lanes, func() error {
		// Before a token is used up: a request that cannot succeed should not cost it.
		if err := d.cfg.SVIDs.CheckCSR(req.GetCsr()); err != nil || turn.waits || nodes.Method(req) == "" {
			return err
		}
		return evidence()
	})
	if err == nil && turn.waits {
		err = d.inTurn(ctx, c, turn.own, d.cfg.Waiting, evidence)
	}
	return node, err
}

// inTurn does what is to be done, where it is to wait for the caller's turn in that.
func (d *Desk) inTurn(ctx context.Context, c Caller, wait bool, in Lanes, do func() error) error {
	if wait {
		leave := in.Enter(c.source(), inLane)
		if leave == nil {
			return fault.Limit
		}
		defer leave(0)
	}
	if err := ctx.Err(); err != nil { // its connection gave way meanwhile
		return err
	}
	return do()
}

// evidence checks that of a caller's host.
func (d *Desk) evidence(ctx context.Context, c Caller, req *api.AttestRequest) (nodes.Node, error) {
	node, err := d.cfg.Evidence.Attest(ctx, req, nodes.Channel{TrustDomain: d.cfg.TrustDomain, HostKey: c.HostKey, TLS: c.TLS}, d.cfg.Clock())
	switch {
	case errors.Is(err, nodes.ErrEvidence), errors.Is(err, store.ErrToken):
		return nodes.Node{}, refused(err)
	case errors.Is(err, platform.ErrUsed):
		return nodes.Node{}, fault.New(fault.Used, "%s", plain.Text(err.Error()))
	case errors.Is(err, platform.ErrLater):
		return nodes.Node{}, fault.New(fault.Unavailable, "%s", plain.Text(err.Error()))
	}
	return node, err
}
