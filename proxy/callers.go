package proxy

import "strings"

// CallersKey is the metadata by which a proxy tells the agent, with each question, what its
// configuration says of the callers at a listener. None of its values gives an identity.
const (
	CallersKey = "x-signet-callers"
	// ForeignCallers by TLS are vouched for by authorities of a file: whatever names they
	// have, they have no identity.
	ForeignCallers = "foreign"

	ingressCallers = "ingress/"
)

// IngressCallers are without TLS, at the addresses of the ingress of a name.
func IngressCallers(name string) string { return ingressCallers + name }

// IngressOf is the name in a value that IngressCallers gave.
func IngressOf(callers string) (name string, ok bool) {
	return strings.CutPrefix(callers, ingressCallers)
}

// PortKey is the metadata by which a proxy tells the agent, with each question, the port of the
// listener that asks. A connection's own end may be another: a header of the PROXY protocol
// replaces it by what the sender wrote.
const PortKey = "x-signet-port"

// LetThroughKey is the metadata by which a proxy tells the agent what its mesh lets through, or an
// ingress is declared to pass, of that which is the agent's to withhold: [UnsafeUserHeaders].
const LetThroughKey = "x-signet-let-through"

// UnderscoresKey is the metadata by which a proxy tells the agent which headers with an underscore
// its mesh passes on, by commas: it lets all of them through, and the agent refuses the others.
const UnderscoresKey = "x-signet-underscores"
