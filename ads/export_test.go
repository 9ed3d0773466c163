package ads

import (
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
)

// Mentions is mentions.
var Mentions = mentions

// Machine drives one stream's state without a transport.
type Machine struct {
	m     machine
	view  *View
	delta bool
}

// NewMachine is a machine on a view of one set.
func NewMachine(mode Mode, delta bool, set *Set) *Machine {
	v := NewView("v", mode)
	v.Publish(set)
	return (&Machine{m: machine{mode: mode}, view: v, delta: delta}).Beside()
}

// Beside is another one on the same view.
func (x *Machine) Beside() *Machine {
	return &Machine{m: machine{mode: x.m.mode, delta: x.delta, id: "m"}, view: x.view, delta: x.delta}
}

// Publish is View.Publish.
func (x *Machine) Publish(s *Set) { x.view.Publish(s) }

// Take applies an encoded request and answers with encoded responses.
func (x *Machine) Take(b []byte, now time.Time) ([][]byte, error) {
	if err := x.apply(b); err != nil {
		return nil, err
	}
	return x.Step(now), nil
}

// Pieces is Take; of each response it returns the pieces that the transport is given.
func (x *Machine) Pieces(b []byte, now time.Time) (frames [][][]byte, err error) {
	if err := x.apply(b); err != nil {
		return nil, err
	}
	for _, f := range x.step(now) {
		var pieces [][]byte
		for _, p := range f.buf {
			pieces = append(pieces, p.ReadOnlyData())
		}
		frames = append(frames, pieces)
	}
	return frames, nil
}

func (x *Machine) apply(b []byte) error {
	var rejs []Rejection
	var err error
	if x.delta {
		var req discoveryv3.DeltaDiscoveryRequest
		if proto.Unmarshal(b, &req) != nil {
			return nil
		}
		rejs, err = x.m.deltaRequest(&req, x.view.state.Load())
	} else {
		var req discoveryv3.DiscoveryRequest
		if proto.Unmarshal(b, &req) != nil {
			return nil
		}
		rejs, err = x.m.sotwRequest(&req, x.view.state.Load())
	}
	if err != nil {
		return err
	}
	x.view.reject(rejs)
	return nil
}

// Step looks for what is due.
func (x *Machine) Step(now time.Time) [][]byte {
	var frames [][]byte
	for _, f := range x.step(now) {
		frames = append(frames, f.buf.Materialize())
	}
	return frames
}

func (x *Machine) step(now time.Time) []*frame {
	return x.m.step(x.view.state.Load(), x.view.state.Load().gen, now).frames
}

// Joined reports whether all of a type is held in one piece.
func (x *Machine) Joined(typeURL string) bool {
	s := x.view.Set()
	s.sent.mu.Lock()
	defer s.sent.mu.Unlock()
	for k, j := range s.sent.of {
		if k.typeURL == typeURL && j.Value() != nil {
			return true
		}
	}
	return false
}

// SharesBodies reports whether two sets hold one and the same resource.
func SharesBodies(a, b *Set, typeURL, name string) bool {
	return a.Get(typeURL, name) == b.Get(typeURL, name)
}

// Framed reports in which variants a resource has been framed.
func Framed(r *Resource) (delta, sotw bool) { return r.delta.Load() != nil, r.sotw.Load() != nil }
