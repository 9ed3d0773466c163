package authz

import (
	"context"
	"errors"
	"sync"
	"time"

	"signet.example/authz/jwt"
)

// A key of a load balancer is found by its id alone, so that the first token of a new one
// comes before its key. What is bounded here is what whoever reaches the load balancer can
// bring about by ids that he makes up; the server bounds what is fetched.
const (
	// keyPatience is less than proxies wait for an answer.
	keyPatience = 300 * time.Millisecond
	// keyWaiters of the checks at a time may wait.
	keyWaiters = 32
	// keyAgain is when a key that has not come is asked for again.
	keyAgain = 5 * time.Second
	// keysWanted at a time are asked for.
	keysWanted = 64
)

// wantedKeys are those that were asked for lately.
type wantedKeys struct {
	waiting chan struct{}
	mu      sync.Mutex // guards asked
	asked   map[jwt.UnknownKeyError]time.Time
}

func newWantedKeys() *wantedKeys {
	return &wantedKeys{waiting: make(chan struct{}, keyWaiters), asked: map[jwt.UnknownKeyError]time.Time{}}
}

// want reports whether a key is to be asked for now, and whether it may come so soon that
// it is worth waiting.
func (w *wantedKeys) want(k jwt.UnknownKeyError, now time.Time) (ask, wait bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if at, ok := w.asked[k]; ok && now.Sub(at) < keyAgain {
		return false, now.Sub(at) < keyPatience
	}
	if len(w.asked) >= keysWanted {
		for other, at := range w.asked {
			if now.Sub(at) >= keyAgain {
				delete(w.asked, other)
			}
		}
		if len(w.asked) >= keysWanted {
			return false, false
		}
	}
	w.asked[k] = now
	return true, true
}

// awaitKey asks for the key of a token, and waits a moment for it.
func (s *Server) awaitKey(ctx context.Context, st *state, b brought, unknown *jwt.UnknownKeyError, now time.Time) (*token, error) {
	ask, wait := s.keys.want(*unknown, s.opts.Clock())
	if ask {
		s.opts.WantKey(*unknown)
	}
	if !wait {
		return nil, unknown
	}
	select {
	case s.keys.waiting <- struct{}{}:
		defer func() { <-s.keys.waiting }()
	default:
		return nil, unknown
	}
	late := time.NewTimer(keyPatience)
	defer late.Stop()
	for {
		select {
		case <-st.replaced:
		case <-late.C:
			return nil, unknown
		case <-ctx.Done():
			return nil, unknown
		}
		if st = s.state.Load(); st.verifier == nil {
			return nil, unknown
		}
		if t, err := st.verifier.verify(b, now); !errors.As(err, new(*jwt.UnknownKeyError)) {
			return t, err
		}
	}
}
