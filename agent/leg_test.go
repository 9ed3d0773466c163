package agent

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"signet.example/internal/watched"
)

// Until every proxy has the new routes, requests come stamped with the old revision.
func TestTheRevisionOfTheRoutesBeforeIsKeptWithTheNewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stamps [][]string
		l := &leg{loaded: &watched.Value[[]string]{}, stamped: func(_ *leg, revisions []string) { stamps = append(stamps, revisions) }}
		l.loaded.Set([]string{"1", "2"})
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
		if len(stamps) != 2 || !slices.Equal(stamps[1], []string{"1", "2"}) {
			t.Errorf("stamped %v", stamps)
		}
	})
}
