package ads_test

import (
	"testing"
	"testing/synctest"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"signet.example/ads"
)

func TestWhatClientsHoldIsWhatTheyAcknowledgedAndGoesWithTheirStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		holds := func(what string, ok bool, versions ...string) {
			t.Helper()
			synctest.Wait()
			list, has := w.view.Holding(lds)
			var got []string
			for _, r := range list {
				got = append(got, r.Version)
			}
			if has != ok || len(got) != len(versions) || len(got) > 0 && got[0] != versions[0] {
				t.Errorf("%s: %v, %t; want %v, %t", what, got, has, versions, ok)
			}
		}
		one, two := res(t, lds, "l", "1"), res(t, lds, "l", "2")
		w.publish(one)
		a := w.connect(true)
		a.request(lds, "")
		first := a.of(lds)
		holds("sent", false)
		a.ack(first)
		holds("acknowledged", true, one.Version)
		w.publish(two)
		a.nack(a.of(lds), "no")
		holds("a refused version", true, one.Version)
		w.publish()
		a.ack(a.of(lds))
		holds("removed", true)
		a.close()
		holds("gone", false)
	})
}

func TestWhatAClientHadBeforeItCameIsWhatThereIsIfItIsEqual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		had := res(t, lds, "l", "1")
		c := w.connect(true)
		c.send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: lds, InitialResourceVersions: map[string]string{"l": had.Version}})
		synctest.Wait()
		w.publish(had)
		synctest.Wait()
		if list, ok := w.view.Holding(lds); !ok || len(list) != 1 || len(list[0].Body) == 0 {
			t.Errorf("%v %t", list, ok)
		}
	})
}
