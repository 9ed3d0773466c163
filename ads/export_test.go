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
	return &Machine{m: machine{mode: mode, delta: delta, id: "m"}, view: v, delta: delta}
}

// Publish is View.Publish.
func (x *Machine) Publish(s *Set) { x.view.Publish(s) }

// Take applies an encoded request and answers with encoded responses.
func (x *Machine) Take(b []byte, now time.Time) ([][]byte, error) {
	var rejs []Rejection
	var err error
	if x.delta {
		var req discoveryv3.DeltaDiscoveryRequest
		if proto.Unmarshal(b, &req) != nil {
			return nil, nil
		}
		rejs, err = x.m.deltaRequest(&req, x.view.state.Load())
	} else {
		var req discoveryv3.DiscoveryRequest
		if proto.Unmarshal(b, &req) != nil {
			return nil, nil
		}
		rejs, err = x.m.sotwRequest(&req, x.view.state.Load())
	}
	if err != nil {
		return nil, err
	}
	x.view.reject(rejs)
	return x.Step(now), nil
}

// Step looks for what is due.
func (x *Machine) Step(now time.Time) [][]byte {
	out := x.m.step(x.view.state.Load(), x.view.state.Load().gen, now)
	var frames [][]byte
	for _, f := range out.frames {
		frames = append(frames, f.buf.Materialize())
	}
	return frames
}

// SharesBodies reports whether two sets hold one and the same resource.
func SharesBodies(a, b *Set, typeURL, name string) bool {
	return a.Get(typeURL, name) == b.Get(typeURL, name)
}
