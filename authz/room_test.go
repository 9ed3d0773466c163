package authz_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"signet.example/authz"
	"signet.example/policy"
)

const byRule = "signet_authz_rule_decisions_total"

// counted are the series by rule, as "result rule source destination".
func counted(t *testing.T, m *authz.Metrics) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(m)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, f := range families {
		if f.GetName() != byRule {
			continue
		}
		for _, s := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range s.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			found[strings.Join([]string{labels["result"], labels["rule"], labels["source"], labels["destination"]}, " ")] = s.GetCounter().GetValue()
		}
	}
	return found
}

func by(rule, source, destination, revision string) authz.Record {
	return authz.Record{Allowed: true, Source: source, Destination: destination, PolicyRevision: revision, Rules: []policy.RuleRef{{Name: rule}, {Name: "z"}}}
}

func TestDecisionsAreCountedByRuleCallerAndCallee(t *testing.T) {
	m := authz.NewMetrics()
	for _, r := range []authz.Record{
		by("web may", "web", "orders", "1"), by("web may", "web", "orders", "1"), by("batch may", "batch", "orders", "1"),
		{Cause: authz.CausePolicy, Source: "web", Destination: "store"},
		{Cause: authz.CausePolicy, Observed: true, Destination: "store", Rules: []policy.RuleRef{{Name: "nobody may"}}},
		by("\xff", "web", "orders", "1"),
	} {
		m.Observe(r)
	}
	got := counted(t, m)
	for name, n := range map[string]float64{
		"allowed web may web orders": 2, "allowed batch may batch orders": 1, "denied  web store": 1, "observed nobody may  store": 1,
		"allowed other other orders": 1, // no text that a page can have
	} {
		if got[name] != n {
			t.Errorf("%q is %v, want %v", name, got[name], n)
		}
	}
	if len(got) != 5 {
		t.Errorf("%v", got)
	}
}

// However many rules and callers there are, a destination has few series, none takes those of
// another, and none of what was counted is lost.
func TestSeriesByRuleAreBounded(t *testing.T) {
	m := authz.NewMetrics()
	n := 0
	observe := func(r authz.Record) { n++; m.Observe(r) }
	for i := range 100 { // one that brings about many
		observe(by(fmt.Sprint("rule ", i), "busy", "orders", "1"))
	}
	observe(by("web may", "web", "orders", "1"))
	for i := range 500 { // and many
		observe(by("anybody may", fmt.Sprint("caller ", i), "orders", "1"))
	}
	observe(by("web may", "web", "store", "1"))
	got, sum := counted(t, m), 0.0
	of := map[string]int{}
	for name, v := range got {
		sum += v
		of[name[strings.LastIndexByte(name, ' ')+1:]]++
	}
	if of["orders"] > 60 || of["store"] != 1 || int(sum) != n {
		t.Errorf("%v series, %v of %d decisions", of, sum, n)
	}
	for _, name := range []string{"allowed web may web orders", "allowed web may web store"} {
		if got[name] != 1 {
			t.Errorf("%q is %v", name, got[name])
		}
	}
	if got["allowed other busy orders"] != 92 {
		t.Errorf("of busy: %v", got["allowed other busy orders"])
	}

	// A new revision has room for its own rules; one that is on its way out takes none of it.
	for range 3 {
		m.Observe(by("web may read", "web", "orders", "2"))
		m.Observe(by("web may", "web", "orders", "1"))
	}
	got = counted(t, m)
	if got["allowed web may read web orders"] != 3 || got["allowed web may web orders"] != 3 || len(got) != 3 {
		t.Errorf("after a new revision: %v", got)
	}

	for i := range 2000 {
		m.Observe(by("x", "web", fmt.Sprint("destination ", i), "1"))
	}
	got = counted(t, m)
	if len(got) > 1003 || got["allowed other other other"] < 1000 || !slices.Contains([]float64{3}, got["allowed web may web orders"]) {
		t.Errorf("%d series, %v of other destinations", len(got), got["allowed other other other"])
	}
}
