package authzproc

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/internal/decode"
)

func TestAListHasTheNewestOfWhatItsFilterAsksFor(t *testing.T) {
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	r := newRing(ringCount, ringBytes)
	for i := range 10 {
		r.add(&api.Decision{
			Id: fmt.Sprint(i), Time: timestamppb.New(at.Add(time.Duration(i) * time.Second)), Allowed: i%2 == 0, Observed: i == 1,
			Source: fmt.Sprintf("spiffe://td/shop/web-%d", i%3), Destination: "spiffe://td/shop/orders",
		})
	}
	for want, f := range map[string]*api.DecisionFilter{
		"9 8 7":     {Limit: 3},
		"9 7 5 3 1": {Limit: 100, Result: api.DecisionFilter_DENIED},
		"8 6 4 2 0": {Limit: 100, Result: api.DecisionFilter_ALLOWED},
		"7 4 1":     {Limit: 100, Source: "shop/web-1"},
		"8 5 2":     {Limit: 100, Source: "spiffe://td/shop/web-2"},
		"":          {Limit: 100, Source: "web"}, // no whole part of a path
		"9 6 3 0":   {Limit: 100, Source: "web-0", Destination: "orders"},
		"5 4":       {Limit: 100, Since: timestamppb.New(at.Add(4 * time.Second)), Until: timestamppb.New(at.Add(5 * time.Second))},
	} {
		var ids []string
		for _, d := range r.list(f) {
			ids = append(ids, d.GetId())
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%v: %s, want %s", f, got, want)
		}
	}
}

func TestAListIsBounded(t *testing.T) {
	r := newRing(ringCount, 64<<20)
	for i := range 1000 {
		r.add(&api.Decision{Id: fmt.Sprint(i), Path: strings.Repeat("x", 1024*(1+i%8))})
	}
	bytes := 0
	list := r.list(&api.DecisionFilter{Limit: 1 << 30})
	for _, d := range list {
		bytes += len(d.GetPath())
	}
	if len(list) == 0 || len(list) > listCount || bytes > listBytes {
		t.Errorf("%d decisions of %d bytes", len(list), bytes)
	}
}

func TestAListIsWhatAServerDecodes(t *testing.T) {
	r := newRing(ringCount, ringBytes)
	for i := range 500 {
		d := &api.Decision{Id: fmt.Sprint(i)}
		for range 20 { // of a policy with many rules of short names
			d.Failed = append(d.Failed, &api.Rule{Name: "a"})
		}
		r.add(d)
	}
	list := r.list(&api.DecisionFilter{Limit: 500})
	m := &api.SessionUp{Message: &api.SessionUp_Decisions{Decisions: &api.DecisionsAnswer{Nonce: strings.Repeat("x", 26), Decisions: list}}}
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decode.Weigh(b, m); err != nil || len(list) == 0 {
		t.Errorf("%d decisions: %v", len(list), err)
	}
}

// A caller that is denied all the time, and a proxy that makes callers up, are listed as often as
// whoever was denied once, until all are.
func TestNobodyFillsAListThatOthersAreIn(t *testing.T) {
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	r := newRing(ringCount, ringBytes)
	add := func(source, destination string, second int) {
		r.add(&api.Decision{Id: fmt.Sprint(source, destination, second), Time: timestamppb.New(at.Add(time.Duration(second) * time.Second)), Source: source, Destination: destination})
	}
	add("quiet", "orders", 1)
	for i := range 100 {
		add("flood", "orders", 100+i)
		add(fmt.Sprint("made up ", i), "taken over", 200+i)
	}
	seen := map[string]int{}
	for _, d := range r.list(&api.DecisionFilter{Limit: 10}) {
		seen[d.GetSource()]++
		seen[d.GetDestination()]++
	}
	if seen["quiet"] != 1 || seen["flood"] != 4 || seen["orders"] != 5 || seen["taken over"] != 5 {
		t.Error(seen)
	}
}
