package refused

import (
	"fmt"
	"slices"
	"testing"

	"signet.example/proxy"
)

var (
	web   = proxy.Node("shop", "web")
	route = Resource{Type: "routes", Name: "a", Form: "1"}
	other = Resource{Type: "routes", Name: "b", Form: "1"}
)

// by is that a proxy of an agent refused a resource of web.
func by(at Resource, agent, envoy string) Refusal {
	return Refusal{Node: web, Agent: agent, Envoy: envoy, Type: at.Type, Name: at.Name, Version: at.Form + "@policy", Form: at.Form, Message: agent + " says no"}
}

func of(list ...Refusal) All {
	all := All{}
	for _, r := range list {
		all.Add(r)
	}
	return all
}

func TestWhatOneRefusedIsWithheldFromItsVersionOfEnvoyAndTriedByOtherAgents(t *testing.T) {
	n := of(by(route, "one", "1.39"))[web]
	for name, c := range map[string]struct{ got, want bool }{
		"of that version":                 {n.Stand(route, "1.39", ""), true},
		"of that version, for who did":    {n.Stand(route, "1.39", "one"), true},
		"for another agent, which tries":  {n.Stand(route, "1.39", "two"), false},
		"of another version":              {n.Stand(route, "1.40", ""), false},
		"of another version, for who did": {n.Stand(route, "1.40", "one"), false},
		"of what nobody refused":          {n.Stand(other, "1.39", ""), false},
		"in another form":                 {n.Stand(Resource{route.Type, route.Name, "2"}, "1.39", ""), false},
		"who did has":                     {n.Has(route, "one", "1.39"), true},
		"with another Envoy it has not":   {n.Has(route, "one", "1.40"), false},
		"another agent has not":           {n.Has(route, "two", "1.39"), false},
		"who did refused something":       {n.SomeOf("one"), true},
		"another did not":                 {n.SomeOf("two"), false},
		"another can try":                 {n.UntriedBy("two", []Resource{route}), true},
		"who did can not":                 {n.UntriedBy("one", []Resource{route}), false},
		"but what it did not refuse":      {n.UntriedBy("one", []Resource{route, other}), true},
		"nobody tries nothing":            {n.UntriedBy("two", nil), false},
	} {
		if c.got != c.want {
			t.Errorf("%s: %t", name, c.got)
		}
	}
}

func TestWhatEndedProxiesIsTriedByNobodyElse(t *testing.T) {
	ended := by(route, "one", "1.40")
	ended.Ended = true
	n := of(ended)[web]
	if n.UntriedBy("two", []Resource{route}) || !n.Stand(route, "1.40", "two") {
		t.Error("another agent tries it")
	}
}

func TestWhatOthersTookIsWithheldFromNobodyOfTheirVersion(t *testing.T) {
	n := of(by(route, "one", "1.40"), by(route, "two", "1.40"), by(route, "three", "1.39"), by(other, "one", "1.40"))[web]
	taken := func(at Resource) bool { return at == route }
	if !n.Overrule("1.40", taken) {
		t.Error("nothing was overruled")
	}
	if n.Stand(route, "1.40", "") || n.Stand(route, "1.40", "one") {
		t.Error("it is withheld though others have it")
	}
	if !n.Stand(route, "1.39", "") || !n.Stand(other, "1.40", "") {
		t.Error("of another version, or of another resource, nobody has taken it")
	}
	if !n.Has(route, "one", "1.40") {
		t.Error("that it was refused is forgotten: its next report would be news again")
	}
	if n.Overrule("1.40", taken) {
		t.Error("it is told twice")
	}
}

func TestTheRefusalsOfWhoIsGoneAreForgiven(t *testing.T) {
	n := of(by(route, "one", "1.40"), by(route, "two", "1.40"), by(other, "two", "1.40"))[web]
	freed := n.Forgive(func(agent string) bool { return agent == "one" })
	if !slices.Equal(freed, []Resource{route}) {
		t.Errorf("forgiven of %v", freed)
	}
	if !n.Stand(route, "1.40", "") || n.SomeOf("one") {
		t.Error("the other's stands by itself")
	}
	if freed = n.Forgive(func(agent string) bool { return agent == "one" }); freed != nil {
		t.Errorf("again of %v", freed)
	}
}

func TestRefusalsArePrunedOfWhatIsNotMadeAnyMoreAndOfWhatNobodyRefused(t *testing.T) {
	all := of(by(route, "one", "1.40"), by(route, "two", "1.40"), by(other, "one", "1.40"))
	n := all[web]
	if n.Keep(func(Resource) bool { return true }) || all.Count() != 3 {
		t.Errorf("%d are left of what is made still", all.Count())
	}
	if !n.Keep(func(at Resource) bool { return at == route }) || all.Count() != 2 || n.Stand(other, "1.40", "") {
		t.Errorf("%d are left of one resource", all.Count())
	}
	n.Forgive(func(string) bool { return true })
	if !n.Keep(func(Resource) bool { return true }) || len(n) != 0 {
		t.Errorf("%d resources are left that nobody refused", len(n))
	}
}

func TestARefusalIsKeptOnceAndOneOfSeveralIsAlwaysTheSame(t *testing.T) {
	all := All{}
	for _, agent := range []string{"two", "one", "three", "one"} {
		all.Add(by(route, agent, "1.40"))
	}
	if n := all.Count(); n != 3 {
		t.Errorf("%d are kept", n)
	}
	for range 20 { // maps have no order
		if r, ok := all[web].First(route); !ok || r.Message != "one says no" {
			t.Fatalf("got %+v, %t", r, ok)
		}
	}
	if _, ok := all[web].First(other); ok {
		t.Error("one of none")
	}
}

// N15-1: whoever made up 10,000 left no room to the others.
func TestNobodyFillsTheRoomThatIsForRefusals(t *testing.T) {
	all := All{}
	add := func(agent string, most int) (n int) {
		for room := all.Room(); n < most && room.Take(agent); n++ {
			r := by(route, agent, "1.40")
			r.Form = fmt.Sprint(n)
			all.Add(r)
		}
		return n
	}
	for i, want := range []int{Most / 5, Most * 4 / 25, Most * 16 / 125} {
		if n := add(fmt.Sprint("liar", i), Most); n != want {
			t.Errorf("the liar %d has %d, want %d", i, n, want)
		}
	}
	if n := add("liar0", Most); n != 0 {
		t.Errorf("it has %d more the next time", n)
	}
	if n := add("one", 1000); n != 1000 {
		t.Errorf("there is room for %d of another agent", n)
	}
	if n := all.Count(); n > Most {
		t.Errorf("%d are kept", n)
	}
}
