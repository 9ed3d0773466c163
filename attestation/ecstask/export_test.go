package ecstask

import "net/netip"

// ReadOnce is one try of Read.
var ReadOnce = read

// Among is the choice of Address.
func (t Task) Among(reached netip.Addr) (netip.Addr, error) { return t.among(reached) }
