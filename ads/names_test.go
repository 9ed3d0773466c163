package ads_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"

	"signet.example/ads"
)

func long(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = prefix + strings.Repeat("n", 1900) + fmt.Sprint(i)
	}
	return all
}

func TestTheNamesOfAStreamAreBoundedInBytesHoweverTheyAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		w.publish(res(t, eds, "a", "1"))
		for _, delta := range []bool{true, false} {
			c := w.connect(delta)
			sent := 0
			for round := range 10 {
				for _, url := range followed {
					c.request(url, "", long(fmt.Sprint(round), 500)...)
					sent += 500 * 1900
				}
				synctest.Wait()
			}
			if got := c.ended(); got != codes.ResourceExhausted {
				t.Errorf("delta %t: after %d bytes of names: %v", delta, sent, got)
			}
		}
		versions := map[string]string{}
		for _, n := range long("v", 250) {
			versions[n] = strings.Repeat("v", 1900)
		}
		c := w.connect(true)
		for _, url := range followed {
			c.send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: url, ResourceNamesSubscribe: []string{"*"}, InitialResourceVersions: versions})
		}
		if got := c.ended(); got != codes.ResourceExhausted {
			t.Errorf("versions of what there is not: %v", got)
		}
	})
}

func TestTheNamesOfAllStreamsOfOneClientAreBoundedAndAnotherHasItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		w.publish(res(t, eds, "a", "1"))
		ended, streams := 0, 12
		var all []*client
		for range streams {
			c := w.connect(true)
			for _, url := range followed[:4] {
				c.request(url, "", long("", 250)...) // 4 times half a MiB, counted twice
			}
			all = append(all, c)
			synctest.Wait()
		}
		for _, c := range all {
			if c.over() {
				ended++
			}
		}
		if ended == 0 || ended == streams {
			t.Errorf("%d of %d streams ended", ended, streams)
		}
	})
}

// Who asks again for what it has is not counted again.
func TestNamesThatAreAskedForAgainAreCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		w.publish(res(t, eds, "a", "1"))
		c := w.connect(true)
		for range 20 {
			c.request(eds, "", long("", 400)...)
			synctest.Wait()
		}
		if c.over() {
			t.Errorf("it ended: %v", c.ended())
		}
	})
}

// over reports whether the stream has ended.
func (c *client) over() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}
