package relay

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
)

// stamped remembers what it was told, in its order.
type stamped struct {
	decided
	all [][]string
}

func (s *stamped) Stamp(_ any, revisions []string) { s.all = append(s.all, revisions) }

// Until every proxy has the new routes, requests come stamped with the old revision.
func TestTheRevisionOfTheRoutesBeforeIsKeptWithTheNewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &stamped{}
		l := &subscription{policies: d}
		d.loaded.Set([]string{"1", "2"})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			l.release(ctx)
			close(done)
		}()
		for _, revision := range []string{"1", "2"} {
			l.pending.Set(&routing{revision: revision})
			synctest.Wait()
		}
		cancel()
		<-done
		if len(d.all) != 2 || !slices.Equal(d.all[1], []string{"1", "2"}) {
			t.Errorf("stamped %v", d.all)
		}
	})
}
