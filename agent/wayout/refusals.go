package wayout

import "fmt"

// Why a connection was let out or not, as metrics have it.
const (
	reasonAllowed    = "allowed"
	reasonProxy      = "proxy"     // who asks is not a proxy here
	reasonGone       = "gone"      // nobody holds the connection any more
	reasonLate       = "late"      // the proxy gave the question up before it was answered
	reasonNamespace  = "namespace" // the proxy is in another network namespace
	reasonNoOwner    = "no_owner"  // nobody is known to be the application
	reasonNewOwner   = "new_owner" // the application belongs to somebody else than before
	reasonNotTheirs  = "not_owner" // the caller is not the application
	reasonError      = "error"
	reasonNotReady   = "not_ready" // the agent does not know the proxy's configuration yet
	reasonSocket     = "socket"    // a Unix socket of the proxy or of its application does not keep others out, or the Binding asks who calls there
	reasonListenAddr = "address"   // the proxy says nothing usable of the connection
)

var reasons = []string{
	reasonAllowed, reasonProxy, reasonGone, reasonLate, reasonNamespace, reasonNoOwner, reasonNewOwner, reasonNotTheirs, reasonError, reasonNotReady, reasonSocket, reasonListenAddr,
}

// notAllowed is a refusal with its reason for the counter.
type notAllowed struct {
	reason string
	err    error
}

func (n *notAllowed) Error() string { return n.err.Error() }
func (n *notAllowed) Unwrap() error { return n.err }

func no(reason, format string, args ...any) error {
	return &notAllowed{reason, fmt.Errorf(format, args...)}
}
