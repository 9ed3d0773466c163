package ads_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/net/http2"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
)

// gRPC measures connections whose windows are not fixed: it pings after what it receives, so
// that a push is twice as many writes and reads at both ends.
func TestNeitherEndPingsBecauseOfWhatItReceives(t *testing.T) {
	w := newWorld(t, ads.Relay, ads.ServerOptions(nil)...)
	c := w.connect(true)
	for i := range 20 {
		w.publish(res(t, cds, "c", fmt.Sprint(i, strings.Repeat("x", 50_000))))
		if i == 0 {
			c.subscribe(cds, "*")
		}
		c.ack(c.of(cds))
	}
	for end := time.Now().Add(patience); w.count(ads.Acked) < 20 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	w.wire.mu.Lock()
	defer w.wire.mu.Unlock()
	got, sent := frames(t, w.wire.got.Bytes()), frames(t, w.wire.sent.Bytes()[len(http2.ClientPreface):])
	if got[http2.FrameData] < 20 || sent[http2.FrameData] < 20 {
		t.Fatalf("frames from the server %v, to it %v", got, sent)
	}
	if got[http2.FramePing]+sent[http2.FramePing] > 0 {
		t.Errorf("%d pings from the server, %d to it", got[http2.FramePing], sent[http2.FramePing])
	}
}

// frames counts those of b by type; the last may be cut off.
func frames(t *testing.T, b []byte) map[http2.FrameType]int {
	t.Helper()
	n, f := map[http2.FrameType]int{}, http2.NewFramer(nil, bytes.NewReader(b))
	for {
		frame, err := f.ReadFrame()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		n[frame.Header().Type]++
	}
}

// many is a set of n resources of each of some types.
func many(t testing.TB, n int, types ...string) *ads.Set {
	t.Helper()
	var rs []*ads.Resource
	for _, typeURL := range types {
		for _, name := range names("r", n) {
			rs = append(rs, res(t, typeURL, name, strings.Repeat("x", 100)))
		}
	}
	return mustSet(t, rs...)
}

// request encodes one of a delta client.
func request(t testing.TB, req *discoveryv3.DeltaDiscoveryRequest) []byte {
	t.Helper()
	req.Node = node
	b, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// acknowledgement encodes the answer to the n-th response of a Machine.
func acknowledgement(t testing.TB, typeURL string, n int) []byte {
	t.Helper()
	return request(t, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: fmt.Sprintf("m.%d", n)})
}

// taken applies a request and returns the pieces of the only response.
func taken(t testing.TB, m *ads.Machine, b []byte) [][]byte {
	t.Helper()
	all, err := m.Pieces(b, time.Now())
	if err != nil || len(all) != 1 {
		t.Fatalf("%d responses, %v", len(all), err)
	}
	return all[0]
}

// After a restart thousands of streams want everything at once.
func TestStreamsThatAreSentEverythingShareItInOnePiece(t *testing.T) {
	set := many(t, 100, cds)
	everything := request(t, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: cds, ResourceNamesSubscribe: []string{"*"}})
	each := request(t, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: cds, ResourceNamesSubscribe: names("r", 100)})
	most := request(t, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: cds, ResourceNamesSubscribe: names("r", 99)})
	m := ads.NewMachine(ads.Proxy, true, set)
	one := taken(t, m.Beside(), everything)
	if len(one) != 2 {
		t.Errorf("%d pieces", len(one))
	}
	if other := taken(t, m.Beside(), each); &other[0][0] != &one[0][0] {
		t.Error("who names all has a copy")
	}
	var response discoveryv3.DeltaDiscoveryResponse
	if err := proto.Unmarshal(slices.Concat(one...), &response); err != nil {
		t.Fatal(err)
	}
	for _, r := range response.GetResources() {
		if want := set.Get(cds, r.GetName()); want == nil || r.GetVersion() != want.Version || !bytes.Equal(r.GetResource().GetValue(), want.Body) {
			t.Errorf("%s is %v", r.GetName(), r)
		}
	}
	if n := len(response.GetResources()); n != 100 {
		t.Errorf("%d resources", n)
	}
	if err := proto.Unmarshal(slices.Concat(taken(t, m.Beside(), most)...), &response); err != nil || len(response.GetResources()) != 99 {
		t.Errorf("who names all but one has %d, %v", len(response.GetResources()), err)
	}
	runtime.GC()
	if m.Joined(cds) {
		t.Error("it is kept though nobody is sent it")
	}
}

// A server of thousands of resources sends nearly all of them in one variant.
func TestAResourceIsFramedForTheVariantsInWhichItIsSent(t *testing.T) {
	set := many(t, 3, cds) // so few that they are sent one by one
	m := ads.NewMachine(ads.Proxy, true, set)
	taken(t, m, request(t, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: cds, ResourceNamesSubscribe: []string{"*"}}))
	for _, r := range set.Type(cds) {
		if delta, sotw := ads.Framed(r); !delta || sotw {
			t.Errorf("%s is framed for delta: %v, for state-of-the-world: %v", r.Name, delta, sotw)
		}
	}
}

// allocated is what f allocates, in bytes.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestAnAcknowledgementOfThousandsIsOneNote(t *testing.T) {
	m := ads.NewMachine(ads.Proxy, true, many(t, 5000, cds))
	taken(t, m, request(t, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: cds, ResourceNamesSubscribe: []string{"*"}}))
	ack := acknowledgement(t, cds, 1)
	if n := allocated(func() { _, _ = m.Take(ack, time.Now()) }); n > 64<<10 {
		t.Errorf("it took %d bytes", n)
	}
}

// What clients have is lists of what the view has, which all of them share.
func TestAStreamThatHasEverythingKeepsLittle(t *testing.T) {
	const streams, most = 2000, 1400 // so many that what others leave behind is little beside them
	types := []string{cds, eds, lds, rds}
	first := ads.NewMachine(ads.Relay, true, many(t, 40, types...))
	heap := func() int {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc) //nolint:gosec // below a terabyte
	}
	before := heap()
	all := make([]*ads.Machine, streams)
	for i := range all {
		m := first.Beside()
		all[i] = m
		sent := 0
		for _, typeURL := range types {
			answers, err := m.Take(request(t, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: []string{"*"}}), time.Now())
			if err != nil || len(answers) == 0 {
				t.Fatal(len(answers), err)
			}
			for range answers {
				sent++
				_, _ = m.Take(acknowledgement(t, typeURL, sent), time.Now())
			}
		}
	}
	each := (heap() - before) / streams
	t.Logf("each keeps %d bytes", each)
	if each > most {
		t.Errorf("each keeps %d bytes, more than %d", each, most)
	}
	runtime.KeepAlive(all)
}
