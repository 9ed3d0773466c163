package proxy

// Class says why Envoy denied a request by itself, in [HeaderDenied] and in the
// record. The first two are causes of the agent's own denials, too.
type Class string

// The classes.
const (
	ClassUnavailable Class = "unavailable" // the agent gave no answer
	ClassError       Class = "error"       // the agent's answer broke the rules for mutations
	ClassAmbiguous   Class = "ambiguous"   // two readers could understand the request differently
	ClassUpgrade     Class = "upgrade"     // to a protocol that is not carried
	ClassUndeclared  Class = "undeclared"  // the caller's node does not declare the host as a backend
	ClassMalformed   Class = "malformed"   // it breaks the rules of HTTP, or the bounds on a request
)
