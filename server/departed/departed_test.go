package departed_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"signet.example/proxy"
	"signet.example/server/departed"
)

func placeOf(n int) departed.Place {
	return departed.Place{Node: proxy.Node("m", "a"), Address: fmt.Sprintf("10.0.%d.%d", n/256, n%256)}
}

// N15-3: with a range of addresses one agent left as many places as it liked, and each was known for ten minutes.
func TestOfOneAgentTheNewestPlacesAreKnown(t *testing.T) {
	p := departed.New()
	other := departed.Place{Node: proxy.Node("m", "b"), Address: "10.9.9.9"}
	p.Leave("other", other, 1)
	for n := range 3 * departed.Most {
		p.Leave("one", placeOf(n), uint64(n))
	}
	known := 0
	for n := range 3 * departed.Most {
		seq, ok := p.Since(placeOf(n))
		if ok != (n >= 2*departed.Most) || ok && seq != uint64(n) {
			t.Fatalf("of place %d it is known %d, %t", n, seq, ok)
		}
		if ok {
			known++
		}
	}
	if _, ok := p.Since(other); !ok || known != departed.Most || p.Len() != departed.Most+1 {
		t.Errorf("%d places are known, the other agent's: %t", known, ok)
	}
}

// An endpoint that comes and goes takes no room from the others of its agent.
func TestAPlaceThatIsLeftAgainIsOne(t *testing.T) {
	p := departed.New()
	p.Leave("one", placeOf(0), 1)
	for n := range uint64(2 * departed.Most) {
		p.Leave("one", placeOf(1), n)
	}
	p.Leave("two", placeOf(1), 7) // the host joined anew
	if _, ok := p.Since(placeOf(0)); !ok || p.Len() != 2 {
		t.Errorf("%d places are known, the first: %t", p.Len(), ok)
	}
	if seq, ok := p.Since(placeOf(1)); !ok || seq != 7 {
		t.Errorf("it was left with %d, %t", seq, ok)
	}
}

func TestAPlaceIsKnownForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := departed.New()
		p.Leave("one", placeOf(0), 1)
		time.Sleep(departed.Kept / 2)
		p.Leave("one", placeOf(1), 2)
		p.Leave("two", placeOf(2), 2)
		time.Sleep(departed.Kept/2 + time.Second)
		p.Forget()
		_, old := p.Since(placeOf(0))
		_, new := p.Since(placeOf(1))
		if old || !new || p.Len() != 2 {
			t.Errorf("after ten minutes it is known: %t, after five: %t, of %d", old, new, p.Len())
		}
		time.Sleep(departed.Kept)
		if p.Forget(); p.Len() != 0 {
			t.Errorf("%d are known for ever", p.Len())
		}
	})
}
