package ads_test

import (
	"strings"
	"testing"
	"testing/synctest"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"

	"signet.example/ads"
)

// rule is a test of one line of shared/testdata/xds-conformance/xds-rules.tsv.
type rule struct {
	id    string
	what  string
	delta bool
	sotw  bool
	test  func(t *testing.T, w *world, c *client)
}

var (
	cds = ads.ClusterType
	eds = ads.EndpointType
	lds = ads.ListenerType
	rds = ads.RouteType
	sds = ads.SecretType
)

var rules = []rule{
	{"XDS-01", "nonces are unique on the stream", true, true, func(t *testing.T, w *world, c *client) {
		seen := make(map[string]bool)
		c.request(sds, "", "a")
		for i := range 1000 {
			w.publish(res(t, sds, "a", strings.Repeat("x", i%7+i/7)))
			a := c.of(sds)
			if a.Nonce == "" || seen[a.Nonce] {
				t.Fatalf("nonce %q of response %d is empty or repeated", a.Nonce, i)
			}
			seen[a.Nonce] = true
			c.ack(a, "a")
		}
	}},
	{"XDS-02", "a nonce of another stream means nothing", true, true, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, sds, "a", "1"))
		c.request(sds, "", "a")
		old := c.of(sds).Nonce
		again := w.connect(c.delta != nil)
		again.request(sds, old, "a")
		again.of(sds).want(t, []string{"a"}, nil)
	}},
	{"XDS-03", "later requests may omit the node", true, true, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, sds, "a", "1"), res(t, cds, "c", "1"))
		c.request(sds, "", "a")
		c.ack(c.of(sds), "a")
		if c.delta != nil {
			c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: cds})
		} else {
			c.sendSotW(&discoveryv3.DiscoveryRequest{TypeUrl: cds})
		}
		c.of(cds).want(t, []string{"c"}, nil)
	}},
	{"XDS-04", "the node id may not change", true, true, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, sds, "a", "1"))
		c.request(sds, "", "a")
		c.of(sds)
		other := &corev3.Node{Id: "other"}
		if c.delta != nil {
			c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: cds, Node: other})
		} else {
			c.sendSotW(&discoveryv3.DiscoveryRequest{TypeUrl: cds, Node: other})
		}
		if got := c.ended(); got != codes.InvalidArgument {
			t.Fatalf("stream ended with %v", got)
		}
	}},
	{"XDS-05", "a refusal is told by its detail, not by its version", false, true, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, eds, "a", "1"), res(t, eds, "b", "1"))
		c.request(eds, "", "a")
		a := c.of(eds)
		c.ack(a, "a")
		c.sendSotW(&discoveryv3.DiscoveryRequest{TypeUrl: eds, ResponseNonce: a.Nonce, VersionInfo: "older", ResourceNames: []string{"a", "b"}})
		c.of(eds).want(t, []string{"b"}, nil)
		if n := w.count(ads.Rejected); n != 0 {
			t.Fatalf("%d rejections", n)
		}
	}},
	{"XDS-06", "a request with a stale nonce gets no response", false, true, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, eds, "a", "1"), res(t, eds, "b", "1"))
		c.request(eds, "", "a")
		first := c.of(eds)
		w.publish(res(t, eds, "a", "2"), res(t, eds, "b", "1"))
		second := c.of(eds)
		c.ack(first, "a", "b")
		c.silent()
		c.ack(second, "a", "b")
		c.of(eds).want(t, []string{"b"}, nil)
	}},
	{"XDS-07", "a subscription counts whatever its nonce", true, false, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, eds, "a", "1"), res(t, eds, "wc", "1"))
		c.subscribe(eds, "a")
		c.of(eds)
		c.request(eds, "stale", "wc")
		c.of(eds).want(t, []string{"wc"}, nil)
	}},
	{"XDS-08", "the last of a burst of requests wins", true, true, func(t *testing.T, w *world, c *client) {
		all := names("e", 50)
		rs := make([]*ads.Resource, len(all))
		for i, n := range all {
			rs[i] = res(t, eds, n, "1")
		}
		w.publish(rs...)
		last := ""
		for i, n := range all {
			if c.delta != nil && i > 0 {
				c.unsubscribe(eds, all[i-1])
			}
			c.request(eds, "", n)
		}
		for last != all[49] {
			a := c.of(eds)
			last = a.Names[len(a.Names)-1]
			c.ack(a, all[49])
		}
		c.silent()
	}},
	{"XDS-09", "nothing is sent when nothing changed", true, true, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, cds, "a", "1"))
		c.request(cds, "")
		a := c.of(cds)
		for range 3 {
			c.ack(a)
		}
		w.publish(res(t, cds, "a", "1")) // equal content
		c.silent()
	}},
	{"XDS-10", "a name asked for again is sent again", true, true, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, eds, "a", "1"), res(t, eds, "b", "1"))
		c.request(eds, "", "a")
		x := c.of(eds)
		c.ack(x, "a")
		c.request(eds, x.Nonce, "a", "b")
		x = c.of(eds)
		if !strings.Contains(strings.Join(x.Names, " "), "b") {
			t.Fatalf("got %v", x.Names)
		}
		c.ack(x, "a", "b")
		if c.delta != nil {
			c.unsubscribe(eds, "a")
		} else {
			c.request(eds, x.Nonce, "b")
		}
		c.request(eds, x.Nonce, "a", "b")
		if x = c.of(eds); !strings.Contains(strings.Join(x.Names, " "), "a") {
			t.Fatalf("got %v", x.Names)
		}
	}},
	{"XDS-11", "a resource that appears later is pushed", true, true, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, eds, "a", "1"))
		c.request(eds, "", "x")
		if c.delta != nil {
			c.ack(c.of(eds).want(t, nil, []string{"x"}))
		}
		c.silent()
		w.publish(res(t, eds, "a", "1"), res(t, eds, "x", "1"))
		c.of(eds).want(t, []string{"x"}, nil)
	}},
	{"XDS-12", "a response of a full type holds the full set", false, true, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, cds, "a", "1"), res(t, cds, "b", "1"))
		c.request(cds, "")
		c.ack(c.of(cds))
		w.publish(res(t, cds, "a", "2"), res(t, cds, "b", "1"))
		c.of(cds).want(t, []string{"a", "b"}, nil)
	}},
	{"XDS-13", "an empty response deletes the last listener", false, true, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, lds, "a", "1"))
		c.request(lds, "")
		c.ack(c.of(lds))
		w.publish()
		c.of(lds).want(t, nil, nil)
	}},
	{"XDS-14", "an empty response is never sent for another type", false, true, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, eds, "a", "1"))
		c.request(eds, "", "a")
		c.ack(c.of(eds), "a")
		w.publish()
		c.silent()
		w.publish(res(t, eds, "a", "1"))
		c.of(eds).want(t, []string{"a"}, nil)
	}},
	{"XDS-16", "the four steps of the document", true, false, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, eds, "A", "1"), res(t, eds, "B", "1"))
		c.subscribe(eds)
		c.ack(c.of(eds).want(t, []string{"A", "B"}, nil))
		c.subscribe(eds, "*", "A")
		c.ack(c.of(eds).want(t, []string{"A"}, nil))
		c.unsubscribe(eds, "*")
		c.silent()
		w.publish(res(t, eds, "A", "2"), res(t, eds, "B", "2"))
		c.ack(c.of(eds).want(t, []string{"A"}, nil))
		c.unsubscribe(eds, "A")
		c.silent()
		w.publish(res(t, eds, "A", "3"), res(t, eds, "B", "3"))
		c.silent()
	}},
	{"XDS-16", "the four steps of the document", false, true, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, lds, "A", "1"), res(t, lds, "B", "1"))
		c.request(lds, "")
		a := c.of(lds).want(t, []string{"A", "B"}, nil)
		c.ack(a, "*", "A")
		a = c.of(lds).want(t, []string{"A", "B"}, nil)
		c.ack(a, "A")
		c.silent()
		w.publish(res(t, lds, "A", "2"), res(t, lds, "B", "2"))
		a = c.of(lds).want(t, []string{"A"}, nil)
		c.ack(a)
		c.silent()
		w.publish(res(t, lds, "A", "3"), res(t, lds, "B", "3"))
		c.silent()
	}},
	{"XDS-17", "a name subscribed again is sent although it is current", true, false, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, eds, "a", "1"))
		c.subscribe(eds, "a")
		c.ack(c.of(eds))
		c.subscribe(eds, "a")
		c.of(eds).want(t, []string{"a"}, nil)
	}},
	{"XDS-18", "a phantom unsubscription is harmless", true, false, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, eds, "a", "1"))
		c.subscribe(eds, "a")
		c.ack(c.of(eds))
		c.unsubscribe(eds, "never")
		c.silent()
	}},
	{"XDS-19", "a name dropped under a wildcard is told of", true, false, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, eds, "a", "1"))
		c.subscribe(eds, "*", "a", "gone")
		c.ack(c.of(eds).want(t, []string{"a"}, []string{"gone"}))
		c.unsubscribe(eds, "a")
		c.ack(c.of(eds).want(t, []string{"a"}, nil))
		c.unsubscribe(eds, "gone")
		c.of(eds).want(t, nil, []string{"gone"})
	}},
	{"XDS-20", "a missing resource is told to be removed", true, false, func(t *testing.T, w *world, c *client) {
		c.subscribe(sds, "nope")
		c.silent() // R6: nothing is known yet
		w.publish(res(t, sds, "a", "1"))
		c.of(sds).want(t, nil, []string{"nope"})
	}},
	{"XDS-21", "a reconnecting client gets what changed only", true, false, func(t *testing.T, w *world, c *client) {
		a := res(t, lds, "a", "1")
		w.publish(a, res(t, lds, "b", "1"))
		c.send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: lds, InitialResourceVersions: map[string]string{
			"a": a.Version, "b": "old", "c": "deleted",
		}})
		c.ack(c.of(lds).want(t, []string{"b"}, []string{"c"}))
		c.silent()
	}},
	{"XDS-22", "a spontaneous request is taken at any time", true, false, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, eds, "a", "1"), res(t, eds, "b", "1"))
		c.subscribe(eds, "a")
		first := c.of(eds)
		c.subscribe(eds, "b")
		c.of(eds).want(t, []string{"b"}, nil)
		c.ack(first)
		c.silent()
	}},
	{"XDS-23", "each type is acknowledged by itself", true, true, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, cds, "a", "1"), res(t, sds, "s", "1"))
		c.request(cds, "")
		a := c.of(cds)
		c.request(sds, "", "s")
		s := c.of(sds)
		c.nack(a, "no")
		c.ack(s, "s")
		eventually(t, "the secret is acknowledged", func() bool { _, n, _ := w.view.Acked(sds, "s"); return n == 1 })
		if got := w.view.Rejected(); len(got) != 1 || got[0].Type != cds {
			t.Fatalf("rejected %v", got)
		}
	}},
	{"XDS-26", "a refused version is sent once", true, true, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, cds, "a", "1"))
		c.request(cds, "")
		c.ack(c.of(cds))
		w.publish(res(t, cds, "a", "2"))
		c.nack(c.of(cds), "cluster a: "+strings.Repeat("é", 5000))
		c.silent()
		got := w.view.Rejected()
		if len(got) != 1 || got[0].Name != "a" || len(got[0].Message) > 1024 || !strings.HasPrefix(got[0].Message, "cluster a") {
			t.Fatalf("rejected %v", got)
		}
		w.publish(res(t, cds, "a", "3"))
		c.of(cds).want(t, []string{"a"}, nil)
		if got := w.view.Rejected(); len(got) != 0 {
			t.Fatalf("still rejected: %v", got)
		}
	}},
	{"XDS-27", "a first request with the last stream's version is answered", false, true, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, eds, "a", "1"))
		c.sendSotW(&discoveryv3.DiscoveryRequest{Node: node, TypeUrl: eds, VersionInfo: w.view.Set().TypeVersion(eds), ResourceNames: []string{"a"}})
		c.of(eds).want(t, []string{"a"}, nil)
	}},
	{"XDS-30", "a type that is not served ends the stream", true, true, func(t *testing.T, w *world, c *client) {
		w.publish(res(t, eds, "a", "1"))
		c.request("type.googleapis.com/example.Unknown", "")
		if got := c.ended(); got != codes.InvalidArgument {
			t.Fatalf("stream ended with %v", got)
		}
	}},
	{"XDS-30", "too many names, too long names, too large requests end the stream", true, true, func(t *testing.T, w *world, c *client) {
		many := w.connect(c.delta != nil)
		many.request(eds, "", names("n", 10_001)...)
		long := w.connect(c.delta != nil)
		long.request(eds, "", strings.Repeat("n", 5000))
		large := w.connect(c.delta != nil)
		large.request(eds, "", names(strings.Repeat("n", 2000), 600)...)
		for what, c := range map[string]*client{"many": many, "long": long, "large": large} {
			if got := c.ended(); got != codes.InvalidArgument && got != codes.ResourceExhausted {
				t.Errorf("%s: stream ended with %v", what, got)
			}
		}
	}},
}

func TestServerObeysTheTransportProtocol(t *testing.T) {
	for _, r := range rules {
		for _, delta := range []bool{true, false} {
			if delta && !r.delta || !delta && !r.sotw {
				continue
			}
			name := r.id + " " + r.what + map[bool]string{true: "/delta", false: "/sotw"}[delta]
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
					r.test(t, w, w.connect(delta))
				})
			})
		}
	}
}
