package ads

import "fmt"

// EventKind is what an Event reports.
type EventKind int

const (
	// Opened: a stream found its view.
	Opened EventKind = iota + 1
	// Acked: a client accepted the resource at that version.
	Acked
	// Rejected: a client rejected (NACK) the resource at that version; Message is its reason.
	Rejected
	// Stuck: a bound of 5 s passed and the stream went on without the
	// acknowledgement it waited for; Message says which.
	Stuck
	// Answered: the client has acknowledged or refused all that it is to have.
	Answered
	// Closed: the stream ended; Message is the reason, empty for an orderly end.
	Closed
)

// String returns the kind in lower case.
func (k EventKind) String() string {
	switch k {
	case Opened:
		return "opened"
	case Acked:
		return "acked"
	case Rejected:
		return "rejected"
	case Stuck:
		return "stuck"
	case Answered:
		return "answered"
	case Closed:
		return "closed"
	default:
		return fmt.Sprintf("EventKind(%d)", int(k))
	}
}

// Event is something a client did or failed to do. Stream identifies the
// stream within the process; Type, Name and Version are set where the event is
// about a resource. Message comes from the client and is cut to 1 KiB.
type Event struct {
	View, Stream, Type, Name, Version, Message string
	Kind                                       EventKind
}
