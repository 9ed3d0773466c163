package xds

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// part is a configuration of an extension that many views have in common. It is a value of all that
// it is made of, so that equal ones are made once and remembered.
type part interface {
	// message makes it, by a builder that has no node, no proxy and no listener: nothing gets
	// into a part that does not tell it from others.
	message(only *builder) proto.Message
}

// part packs a part.
func (b *builder) part(p part) *anypb.Any {
	return b.read.in.Memory.part(p, func() *anypb.Any {
		only := &builder{read: reader{in: Input{Graph: b.read.in.Graph, Memory: b.read.in.Memory}}}
		made := only.any(p.message(only))
		if only.err != nil {
			b.fail(only.err)
			return nil
		}
		return made
	})
}
