// Package parallel does the same with each of many values, on all processors.
package parallel

import (
	"runtime"

	"golang.org/x/sync/errgroup"
)

// Each calls do once with each index below n, and returns when all calls have. At most as many
// are under way at once as there are processors.
func Each(n int, do func(i int)) {
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range n {
		group.Go(func() error {
			do(i)
			return nil
		})
	}
	_ = group.Wait() // none returns one
}
