package authzproc

import (
	"signet.example/identity"
	"signet.example/proxy"
)

// Destination returns the SPIFFE ID of what a proxy runs for, as records name it; "" where it is
// not known.
func (a *Process) Destination(ref proxy.Ref) string {
	s := a.state.Load()
	if s == nil {
		return "" // not known before the first answer of the server
	}
	id, err := identity.ForVirtualNode(s.TrustDomain, ref.Mesh, ref.Name)
	if err != nil {
		return ""
	}
	return id.String()
}
