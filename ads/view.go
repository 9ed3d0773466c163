package ads

// Mode says who is attached to a View's streams.
type Mode int

const (
	// Proxy serves Envoy: make before break, waits for acknowledgements.
	Proxy Mode = iota + 1
	// Relay serves an agent: ordered, closed by the ViewType resource, no waits.
	Relay
)

// Rejection is a version that a client refused and that is not sent again.
type Rejection struct{ Type, Name, Version, Message string }

// View is what clients of one kind see.
type View struct {
	name string
	mode Mode
	set  *Set
}

// NewView returns a view that stays silent until its first Publish.
func NewView(name string, mode Mode) *View { return &View{name: name, mode: mode} }

// Name returns the name given to NewView.
func (v *View) Name() string { return v.name }

// Publish makes s what the view's clients are to have and wakes their streams.
func (v *View) Publish(s *Set) { v.set = s }

// Set returns the last published set, nil before the first.
func (v *View) Set() *Set { return v.set }

// Streams returns how many streams are connected.
func (v *View) Streams() int { return 0 }

// Rejected lists what clients refused and what is therefore withheld.
func (v *View) Rejected() []Rejection { return nil }

// Acked returns the published version of a resource, how many streams have
// acknowledged that version, and how many are subscribed to it.
func (v *View) Acked(typeURL, name string) (version string, streams, total int) { return "", 0, 0 }
