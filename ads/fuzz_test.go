package ads_test

import (
	"maps"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
)

// decoded is a response as a client reads it, checked for what must hold of
// every response.
func decoded(t *testing.T, delta bool, b []byte, nonces map[string]bool) (typeURL, nonce string, resources map[string]string, removed []string) {
	t.Helper()
	resources = make(map[string]string)
	if delta {
		var r discoveryv3.DeltaDiscoveryResponse
		if err := proto.Unmarshal(b, &r); err != nil {
			t.Fatal(err)
		}
		typeURL, nonce, removed = r.GetTypeUrl(), r.GetNonce(), r.GetRemovedResources()
		for _, x := range r.GetResources() {
			if _, twice := resources[x.GetName()]; twice || x.GetResource().GetTypeUrl() != typeURL || len(x.GetResource().GetValue()) == 0 {
				t.Fatalf("resource %q is there twice, or of another type, or empty", x.GetName()) // XDS-15
			}
			resources[x.GetName()] = x.GetVersion()
		}
	} else {
		var r discoveryv3.DiscoveryResponse
		if err := proto.Unmarshal(b, &r); err != nil {
			t.Fatal(err)
		}
		typeURL, nonce = r.GetTypeUrl(), r.GetNonce()
	}
	if nonce == "" || nonces[nonce] {
		t.Fatalf("nonce %q is empty or repeated", nonce)
	}
	nonces[nonce] = true
	return typeURL, nonce, resources, removed
}

// fuzz feeds two requests of a hostile client to a stream.
func fuzz(f *testing.F, delta bool, seeds ...proto.Message) {
	for _, s := range seeds {
		b, err := proto.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, b)
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		m := ads.NewMachine(ads.Proxy, delta, mustSet(t, res(t, cds, "a", "1"), res(t, eds, "a", "1"), res(t, lds, "b", "1"), res(t, rds, "r", "1")))
		nonces := make(map[string]bool)
		now := time.Unix(0, 0)
		for _, req := range [][]byte{a, b, a} {
			frames, err := m.Take(req, now)
			if err != nil {
				return
			}
			now = now.Add(6 * time.Second)
			for _, fr := range append(frames, m.Step(now)...) {
				decoded(t, delta, fr, nonces)
			}
		}
	})
}

func FuzzDeltaRequest(f *testing.F) {
	fuzz(f, true,
		&discoveryv3.DeltaDiscoveryRequest{TypeUrl: cds},
		&discoveryv3.DeltaDiscoveryRequest{TypeUrl: rds, ResourceNamesSubscribe: []string{"*", "r", "x"}, ResourceNamesUnsubscribe: []string{"r"}, ResponseNonce: "m.1", ErrorDetail: &statuspb.Status{Code: 3, Message: "r: no"}},
		&discoveryv3.DeltaDiscoveryRequest{TypeUrl: eds, InitialResourceVersions: map[string]string{"a": "1", "z": "2"}},
	)
}

func FuzzSotWRequest(f *testing.F) {
	fuzz(f, false,
		&discoveryv3.DiscoveryRequest{TypeUrl: cds},
		&discoveryv3.DiscoveryRequest{TypeUrl: rds, ResourceNames: []string{"*", "r", "x"}, ResponseNonce: "m.1", ErrorDetail: &statuspb.Status{Code: 3, Message: "r: no"}},
	)
}

// A delta client that follows every response ends with what was published,
// whatever order publications, refusals, subscriptions and answers come in.
func TestAnyOrderOfEventsEndsWithWhatWasPublished(t *testing.T) {
	for seed := range uint64(200) {
		follower{
			t: t, rnd: rand.New(rand.NewPCG(seed, 1)), nonces: make(map[string]bool),
			m: ads.NewMachine(ads.Proxy, true, mustSet(t)), has: make(map[string]map[string]string), now: time.Unix(0, 0),
		}.run(seed)
	}
}

// follower is a delta client with wildcards on clusters and listeners that
// acknowledges at random times.
type follower struct {
	t      *testing.T
	rnd    *rand.Rand
	m      *ads.Machine
	nonces map[string]bool
	has    map[string]map[string]string
	now    time.Time
	queue  []*discoveryv3.DeltaDiscoveryRequest
}

func (f follower) run(seed uint64) {
	t := f.t
	var last *ads.Set
	for _, typeURL := range []string{cds, lds} {
		f.has[typeURL] = make(map[string]string)
		f.queue = append(f.queue, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL})
	}
	for step := range 60 {
		if step < 40 && f.rnd.IntN(3) == 0 {
			var rs []*ads.Resource
			for _, typeURL := range []string{cds, lds} {
				for _, n := range []string{"a", "b", "c"} {
					if v := f.rnd.IntN(4); v > 0 {
						rs = append(rs, res(t, typeURL, n, strconv.Itoa(v)))
					}
				}
			}
			last = mustSet(t, rs...)
			f.m.Publish(last)
		}
		f.now = f.now.Add(time.Duration(f.rnd.IntN(2000)) * time.Millisecond)
		f.read(f.m.Step(f.now))
		for len(f.queue) > 0 && (step >= 40 || f.rnd.IntN(2) == 0) {
			b, err := proto.Marshal(f.queue[0])
			if err != nil {
				t.Fatal(err)
			}
			f.queue = f.queue[1:]
			frames, err := f.m.Take(b, f.now)
			if err != nil {
				t.Fatal(err)
			}
			f.read(frames)
		}
	}
	for range 10 {
		f.now = f.now.Add(6 * time.Second)
		f.read(f.m.Step(f.now))
	}
	for typeURL, has := range f.has {
		if want := last.Type(typeURL); len(want) != len(has) {
			t.Fatalf("seed %d: the client has %v of %s, want %d resources", seed, has, typeURL, len(want))
		}
		for n, v := range has {
			if r := last.Get(typeURL, n); r == nil || r.Version != v {
				t.Fatalf("seed %d: the client has %s %s at %s", seed, typeURL, n, v)
			}
		}
	}
}

// read applies responses and queues their acknowledgements, in order.
func (f *follower) read(frames [][]byte) {
	for _, fr := range frames {
		typeURL, nonce, resources, removed := decoded(f.t, true, fr, f.nonces)
		maps.Copy(f.has[typeURL], resources)
		for _, n := range removed {
			delete(f.has[typeURL], n)
		}
		f.queue = append(f.queue, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: nonce})
	}
}
