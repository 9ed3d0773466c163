package server_test

import (
	"runtime"
	"testing"

	"signet.example/server/model/modeltest"
)

// The runtime counts who asked for a collection.
func TestWhatALargeChangeLeftIsGivenBackThoughTheServerIsIdle(t *testing.T) {
	r := newRig(t)
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	r.apply(modeltest.Services(100))
	eventually(t, "a collection that was asked for", func() bool {
		runtime.ReadMemStats(&now)
		return now.NumForcedGC > before.NumForcedGC && now.HeapReleased > 0
	})
}
