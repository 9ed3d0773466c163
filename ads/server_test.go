package ads_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"signet.example/ads"
)

func TestViewsErrorEndsTheStreamWithItsStatus(t *testing.T) {
	for _, delta := range []bool{true, false} {
		w := newWorld(t, ads.Proxy)
		c := w.connect(delta)
		n := &corev3.Node{Id: "nobody"}
		if delta {
			c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: cds, Node: n})
		} else {
			c.sendSotW(&discoveryv3.DiscoveryRequest{TypeUrl: cds, Node: n})
		}
		if got := c.ended(); got != codes.PermissionDenied {
			t.Errorf("stream ended with %v", got)
		}
		if n := w.view.Streams(); n != 0 {
			t.Errorf("%d streams joined", n)
		}
	}
}

func TestFirstRequestWithoutNodeEndsTheStream(t *testing.T) {
	c := newWorld(t, ads.Proxy).connect(true)
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: cds})
	if got := c.ended(); got != codes.InvalidArgument {
		t.Errorf("stream ended with %v", got)
	}
}

// A server that was made without ServerOptions says the same, if more slowly.
func TestFramesReadTheSameWithAndWithoutServerOptions(t *testing.T) {
	want := []byte(strings.Repeat("x", 100_000))
	r, err := ads.NewResource(sds, "s", wrapperspb.Bytes(want))
	if err != nil {
		t.Fatal(err)
	}
	for _, delta := range []bool{true, false} {
		plain, fast := newWorld(t, ads.Proxy), newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		for _, w := range []*world{plain, fast} {
			w.publish(r)
			c := w.connect(delta)
			var body []byte
			if delta {
				c.subscribe(sds, "s")
			} else {
				c.request(sds, "", "s")
			}
			_ = c.of(sds)
			body = c.body
			var got wrapperspb.BytesValue
			if err := proto.Unmarshal(body, &got); err != nil {
				t.Fatal(err)
			}
			if string(got.GetValue()) != string(want) {
				t.Errorf("a body of %d bytes arrived", len(got.GetValue()))
			}
		}
	}
}

func TestEventsTellAStreamsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, ads.Proxy)
		w.publish(res(t, sds, "s", "1"))
		c := w.connect(true)
		c.subscribe(sds, "s")
		c.ack(c.of(sds))
		synctest.Wait()
		if n := w.view.Streams(); n != 1 {
			t.Errorf("%d streams", n)
		}
		c.close()
		synctest.Wait()
		if n := w.view.Streams(); n != 0 {
			t.Errorf("%d streams after the end", n)
		}
		var got []string
		for _, e := range w.events {
			got = append(got, fmt.Sprintf("%s %s %s", e.Kind, e.View, e.Name))
		}
		if s := strings.Join(got, ", "); s != "opened v , acked v s, answered v , closed v " {
			t.Errorf("events: %s", s)
		}
	})
}

// A reader that does not read has one pass pending, and then gets the latest
// state, not every state there was.
func TestASlowReaderGetsTheLatestStateOnly(t *testing.T) {
	w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(w.conn).DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("x", 1<<19)
	w.publish(res(t, sds, "s", "0"+big))
	if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: sds, ResourceNamesSubscribe: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	held := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc) //nolint:gosec // a size
	}
	last, before := "", held()
	for i := range 200 {
		r := res(t, sds, "s", fmt.Sprint(i, big))
		last = r.Version
		w.publish(r)
		time.Sleep(time.Millisecond)
	}
	if grown := held() - before; grown > 16<<20 {
		t.Errorf("%d MiB are held of 100 MiB that were published", grown>>20)
	}
	n := 0
	for version := ""; version != last; n++ {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		version = resp.GetResources()[0].GetVersion()
		if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: sds, ResponseNonce: resp.GetNonce()}); err != nil {
			t.Fatal(err)
		}
	}
	if n > 20 {
		t.Errorf("%d responses for a reader that slept", n)
	}
}

func TestAStreamHasTwoGoroutines(t *testing.T) {
	w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
	w.publish(res(t, cds, "c", "1"), res(t, lds, "l", "1"), res(t, eds, "c", "1"), res(t, sds, "s", "1"))
	w.connect(true).subscribe(cds) // the connection has goroutines of its own
	eventually(t, "the first stream is there", func() bool { return w.view.Streams() == 1 })
	before := runtime.NumGoroutine()
	const n = 50
	for range n {
		c := w.connect(true)
		c.subscribe(cds)
		c.subscribe(eds, "*")
		c.subscribe(sds, "s")
	}
	eventually(t, "all streams are there", func() bool { return w.view.Streams() == n+1 })
	// Each stream of the test costs two more: the reader, and gRPC's watch of its context.
	if got := float64(runtime.NumGoroutine()-before) / n; got > 4.2 {
		t.Errorf("%.1f goroutines per stream and client", got)
	}
}

func TestTenThousandNamesAreServed(t *testing.T) {
	for _, delta := range []bool{true, false} {
		w := newWorld(t, ads.Proxy, ads.ServerOptions(nil)...)
		all := names("e", 10_000)
		rs := make([]*ads.Resource, len(all))
		for i, n := range all {
			rs[i] = res(t, eds, n, "1")
		}
		w.publish(rs...)
		c := w.connect(delta)
		c.request(eds, "", all...)
		if got := len(c.of(eds).Names); got != len(all) {
			t.Errorf("%d names were served", got)
		}
	}
}
