package e2e

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// tally counts what became of calls.
type tally struct{ served, refused atomic.Int64 }

// callRedirected makes calls as a user, each by a connection of its own, to destinations in turn, by several callers at once.
func callRedirected(t *testing.T, uid, callers, each, first, destinations int) *tally {
	var all sync.WaitGroup
	var n tally
	for caller := range callers {
		all.Go(func() {
			parts.AsUser(t, uid, func() {
				for i := range each {
					at := fmt.Sprintf("203.0.113.%d:8080", first+(caller+i)%destinations)
					if got, err := asked(at, meshtest.HostOf("orders")+":8080", "/"); err == nil && got == "orders 200" {
						n.served.Add(1)
					} else if n.refused.Add(1) <= 3 && uid == 1000 {
						t.Logf("call %d of %d to %s: %q, %v", i, caller, at, got, err)
					}
				}
			})
		})
	}
	all.Wait()
	return &n
}

// All that is redirected has one destination, so that the kernel gives other source ports to what would have
// those of another connection: here to nearly all, as there are few ports. Each call of the application is let
// out, and none of somebody else's who calls beside it.
func TestEachRedirectedCallIsItsApplicationsWhateverPortTheKernelGivesIt(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	w := redirectedWorld(t)
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40255\n"), 0o600); err != nil { // of this host
		t.Fatal(err)
	}
	w.Await("what is redirected reaches its backend", 30*time.Second, func() error {
		if n := callRedirected(t, 1000, 1, 1, 7, 1); n.served.Load() != 1 {
			return fmt.Errorf("%d served", n.served.Load())
		}
		return nil
	})
	const callers, destinations = 8, 20
	each := meshtest.Soak(250, 25_000)
	var beside *tally
	var other sync.WaitGroup
	other.Go(func() { beside = callRedirected(t, 1001, 2, each/2, 100, 5) })
	n := callRedirected(t, 1000, callers, each, 7, destinations)
	other.Wait()
	t.Logf("%d of %d calls refused; of somebody else's %d of %d served", n.refused.Load(), callers*each, beside.served.Load(), 2*(each/2))
	// Of 18,000 one was refused, on a loaded host: one that is refused in doubt is no fault, a share of them is.
	if most := int64(callers * each / 1000); n.refused.Load() > most || n.served.Load()+n.refused.Load() != int64(callers*each) {
		t.Errorf("%d of %d calls of the application were refused", n.refused.Load(), callers*each)
	}
	if beside.served.Load() > 0 || beside.refused.Load() == 0 {
		t.Errorf("%d calls of another user were let out", beside.served.Load())
	}
}
