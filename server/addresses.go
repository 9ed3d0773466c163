package server

import "net/netip"

// Addresses is what <data_dir>/addresses.json holds: where the running server
// really listens, since port 0 is allowed everywhere. The file is there once the
// server is ready and is removed when it stops.
type Addresses struct {
	// TrustDomain that the server issues in.
	TrustDomain string `json:"trust_domain"`
	// Agents is host:port of the agents' API.
	Agents string `json:"agents"`
	// Metrics is host:port of /metrics; empty where it is off.
	Metrics string `json:"metrics,omitempty"`
	// Admin is the path of the operator's socket.
	Admin string `json:"admin"`
}

// parseAddr takes an IP address as IPv4 where it is one, without a zone.
func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, err
	}
	return a.Unmap().WithZone(""), nil
}
