package join

import (
	"bytes"
	"context"

	"signet.example/agent/svids"
	"signet.example/api"
	"signet.example/attestation/nodes"
)

// usedUp is what was written for this host that a server said was used before.
type usedUp struct {
	written []byte // nil for nothing
	err     error  // what the server said
}

// show attests by evidence. What others wrote for this host, such as the kubelet its token, is
// not shown again once a server said that it was used: until they write something else the answer
// is the same.
func (e *Enrolment) show(ctx context.Context, evidence nodes.Evidence, pin []byte, verify serverVerifier) (*svids.SVID, error) {
	written := e.own.Written() // before it is shown: what is written in between is shown again at worst
	if written != nil && bytes.Equal(written, e.used.written) {
		return nil, e.used.err
	}
	s, err := e.attest(ctx, evidence, pin, verify)
	if api.Used(err) {
		e.used = usedUp{written, err}
	}
	return s, err
}
