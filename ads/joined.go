package ads

import (
	"sync"
	"weak"
)

// manyPieces is from how many resources on those of a type are sent in one piece: gRPC
// handles each piece by itself.
const manyPieces = 16

// joined is all resources of a type as they are sent, in one piece. Nobody keeps it: it is
// shared by the streams that are being sent it, of which there are many at once after a
// restart.
type joined struct{ bytes []byte }

// joins are those of a set that somebody is being sent.
type joins struct {
	mu sync.Mutex
	of map[joinKey]weak.Pointer[joined]
}

type joinKey struct {
	typeURL string
	delta   bool
}

// joined returns all resources of a type as they are sent.
func (s *Set) joined(typeURL string, delta bool) *joined {
	k := joinKey{typeURL, delta}
	s.sent.mu.Lock()
	defer s.sent.mu.Unlock()
	if j := s.sent.of[k].Value(); j != nil {
		return j
	}
	size := 0
	for _, r := range s.Type(typeURL) {
		size += len(r.framing(delta)) + len(r.Body)
	}
	j := &joined{make([]byte, 0, size)}
	for _, r := range s.Type(typeURL) {
		j.bytes = append(append(j.bytes, r.framing(delta)...), r.Body...)
	}
	if s.sent.of == nil {
		s.sent.of = map[joinKey]weak.Pointer[joined]{}
	}
	s.sent.of[k] = weak.Make(j)
	return j
}
