package authzproc

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/agent/answered"
	"signet.example/api"
)

func TestNoCallerFlushesTheDecisionsOfOthers(t *testing.T) {
	decision := func(source, destination string, n int, allowed bool) *api.Decision {
		return &api.Decision{Id: fmt.Sprintf("%s %s %d %v", source, destination, n, allowed), Source: source, Destination: destination, Allowed: allowed, Path: "/a/path"}
	}
	for name, flood := range map[string]func(n int) *api.Decision{
		"by denials":              func(n int) *api.Decision { return decision("mallory", "orders", n, false) },
		"by what is allowed":      func(n int) *api.Decision { return decision("mallory", "orders", n, true) },
		"without an identity":     func(n int) *api.Decision { return decision("", "orders", n, n%2 == 0) },
		"at several destinations": func(n int) *api.Decision { return decision("mallory", fmt.Sprint("d", n%10), n, false) },
		"of callers that its proxy makes up": func(n int) *api.Decision {
			return decision(fmt.Sprint("spiffe://example.test/", n), "taken over", n, false)
		},
		"by large records": func(n int) *api.Decision {
			d := decision("mallory", "orders", n, false)
			d.Failed = make([]*api.Rule, 50)
			for i := range d.Failed {
				d.Failed[i] = &api.Rule{Name: fmt.Sprint("a rule of some length ", i)}
			}
			return d
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRing(ringCount, ringBytes)
			var others []*api.Decision
			for n := range 10 {
				for _, source := range []string{"web", "batch", "cron"} {
					others = append(others, decision(source, "orders", n, n%2 == 0))
				}
			}
			for _, d := range others {
				r.add(d)
			}
			const many = ringCount + 1000
			for n := range many {
				r.add(flood(n))
			}
			for _, d := range others {
				if r.get(d.GetId()) == nil {
					t.Errorf("%s is forgotten", d.GetId())
				}
			}
			if r.get(flood(many-1).GetId()) == nil {
				t.Error("the newest of the flood is not kept: it has room of its own")
			}
		})
	}
}

// TestADenialSurvives100000AllowedCalls: as they come from authz, with what would be denied.
func TestADenialSurvives100000AllowedCalls(t *testing.T) {
	a := &Process{metrics: NewMetrics(prometheus.NewRegistry()), ring: newRing(ringCount, ringBytes), settings: Config{Answered: answered.New(1 << 20)}}
	a.Record(&api.Decision{Id: "denied", Time: timestamppb.Now(), Source: "web", Destination: "orders", Cause: api.Cause_CAUSE_POLICY})
	a.Record(&api.Decision{Id: "observed", Time: timestamppb.Now(), Source: "web", Destination: "orders", Cause: api.Cause_CAUSE_POLICY, Observed: true})
	for i := range 100_000 {
		a.Record(&api.Decision{Id: fmt.Sprint(i), Time: timestamppb.Now(), Source: "web", Destination: "orders", Allowed: true, Path: "/a/path"})
	}
	// Nor do calls that could not be carried take its room.
	for i := range 10_000 {
		a.Record(&api.Decision{Id: fmt.Sprint("failed ", i), Time: timestamppb.Now(), Source: "web", Destination: "orders", Kind: "timeout"})
	}
	if list := a.Decisions(&api.DecisionFilter{Result: api.DecisionFilter_DENIED, Limit: 500}); len(list) != 2 || a.Decision("denied") == nil || a.Decision("observed") == nil {
		t.Errorf("%v", list)
	}
	if list := a.Decisions(&api.DecisionFilter{Result: api.DecisionFilter_ALLOWED, Limit: 500}); len(list) != 500 {
		t.Errorf("%d allowed calls are kept", len(list))
	}
}

func TestTheRingIsBoundedHoweverManyCallersThereAre(t *testing.T) {
	seed := rand.Uint64()
	g := rand.New(rand.NewPCG(seed, 1))
	r := newRing(ringCount, ringBytes)
	for n := range 12000 {
		d := &api.Decision{Id: fmt.Sprint(n), Source: fmt.Sprint(g.IntN(1 + g.IntN(10000))), Destination: fmt.Sprint(g.IntN(5)), Allowed: g.IntN(2) == 0, Path: fmt.Sprint("/", g.IntN(1<<g.IntN(40)+1))}
		r.add(d)
		if r.get(d.GetId()) != d {
			t.Fatalf("seed %d: the newest is not kept", seed)
		}
	}
	n, size := 0, 0
	for _, s := range []*store{r.denied, r.allowed, r.failed} {
		kept, bytes := 0, 0
		portions := 0
		for destination, sh := range s.shares {
			before := bytes
			for at, p := range sh.heap {
				if p.at != at || s.by[p.of] != p || p.of.destination != destination || len(p.list) == 0 {
					t.Fatalf("seed %d: portion %+v at %d", seed, p.of, at)
				}
				sum := 0
				for _, d := range p.list {
					sum += proto.Size(d)
				}
				if sum != p.bytes {
					t.Errorf("seed %d: a portion of %d bytes says %d", seed, sum, p.bytes)
				}
				kept, bytes = kept+len(p.list), bytes+sum
			}
			portions += len(sh.heap)
			if bytes-before != sh.bytes || len(sh.heap) == 0 {
				t.Errorf("seed %d: a share of %d bytes in %d portions says %d", seed, bytes-before, len(sh.heap), sh.bytes)
			}
		}
		if kept != s.n || bytes != s.size || kept > s.count || bytes > s.bytes || len(s.by) != portions {
			t.Errorf("seed %d: %d decisions of %d bytes; it says %d of %d", seed, kept, bytes, s.n, s.size)
		}
		n, size = n+kept, size+bytes
	}
	if n != len(r.byID) || n > ringCount || size > ringBytes {
		t.Errorf("seed %d: %d decisions of %d bytes, %d by id", seed, n, size, len(r.byID))
	}
}
