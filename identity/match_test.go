package identity_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signet.example/identity"
)

func binding(t *testing.T, name, node string, sels ...string) identity.Binding {
	t.Helper()
	return identity.Binding{Name: name, Group: "edge", VirtualNode: identity.VirtualNodeName{Mesh: "shop", Name: node}, Selectors: selectors(t, sels...)}
}

func TestEntryFitsWhoHasAllItsSelectors(t *testing.T) {
	e := identity.Entry{Selectors: selectors(t, "unix:uid:1000", "unix:path:/bin/web")}
	if !identity.EntryFits(e, selectors(t, "unix:path:/bin/web", "unix:gid:7", "unix:uid:1000")) {
		t.Error("has all and one more")
	}
	if identity.EntryFits(e, selectors(t, "unix:uid:1000")) {
		t.Error("has only one")
	}
	if identity.EntryFits(identity.Entry{}, selectors(t, "unix:uid:1000")) {
		t.Error("an entry without selectors fits")
	}
	got := identity.MatchEntries([]identity.Entry{{Name: "a", Selectors: e.Selectors}, {Name: "none"}, {Name: "b", Selectors: e.Selectors[:1]}}, selectors(t, "unix:uid:1000"))
	if len(got) != 1 || got[0].Name != "b" {
		t.Errorf("got %v", got)
	}
}

func TestPeerThatTwoBindingsFitGetsNeither(t *testing.T) {
	web := binding(t, "web", "web", "unix:uid:1000")
	api := binding(t, "api", "api", "unix:path:/bin/api")
	both := selectors(t, "unix:uid:1000", "unix:path:/bin/api")
	for _, order := range [][]identity.Binding{{web, api}, {api, web}} {
		b, ok, err := identity.MatchBindings(order, both)
		var amb *identity.AmbiguousError
		if ok || !errors.As(err, &amb) || b.Name != "" {
			t.Fatalf("got %+v, %v, %v", b, ok, err)
		}
		if amb.First.Name != "api" || amb.Second.Name != "web" || !strings.Contains(err.Error(), `"api"`) || !strings.Contains(err.Error(), `"web"`) {
			t.Errorf("the error does not name both, in one order: %v", err)
		}
	}
	if b, ok, err := identity.MatchBindings([]identity.Binding{web, api}, selectors(t, "unix:uid:1000")); err != nil || !ok || b.Name != "web" {
		t.Errorf("one fits: %+v, %v, %v", b, ok, err)
	}
	second := binding(t, "another", "web", "unix:path:/bin/api")
	for _, order := range [][]identity.Binding{{web, second}, {second, web}} {
		if b, ok, err := identity.MatchBindings(order, both); err != nil || !ok || b.Name != "another" {
			t.Errorf("two for one virtual node: %+v, %v, %v", b, ok, err)
		}
	}
	if _, ok, err := identity.MatchBindings([]identity.Binding{web, api, {Name: "empty"}}, selectors(t, "unix:uid:7")); err != nil || ok {
		t.Errorf("none fits: %v, %v", ok, err)
	}
}

func TestSelectorsThatOneProcessCanHave(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"unix:uid:1", "unix:uid:2", false},
		{"unix:uid:1", "unix:uid:1", true},
		{"unix:uid:1", "unix:gid:2", true},
		{"unix:path:/a", "unix:path:/b", false},
		{"signet:proxy:a", "signet:proxy:b", false},
		{"signet:proxy:a", "unix:uid:1", true},
		{"ecs:label:a:x", "ecs:label:b:y", true},
		{"ecs:label:a:x", "ecs:label:a:y", false},
		{"ecs:family:a", "ecs:family:b", false},
	} {
		if got := selectors(t, c.a).CompatibleWith(selectors(t, c.b, "unix:sha256:"+strings.Repeat("0", 64))); got != c.want {
			t.Errorf("%s and %s: %t", c.a, c.b, got)
		}
	}
}

func TestEntryAndBindingTravelAsPlainValues(t *testing.T) {
	e, err := identity.EntrySpec{Group: "edge", SPIFFEID: "spiffe://prod.example/a", Selectors: oneSelector, TTL: "90s"}.Build("e", td)
	if err != nil {
		t.Fatal(err)
	}
	plain := e.Plain()
	if diff := cmp.Diff(identity.Plain{Name: "e", SPIFFEID: "spiffe://prod.example/a", Selectors: oneSelector, TTL: 90 * time.Second}, plain); diff != "" || plain.IsBinding() {
		t.Error(diff)
	}
	back, err := plain.Entry(td)
	if err != nil || back.ID != e.ID || back.TTL != e.TTL || !back.Selectors.Contains(e.Selectors) {
		t.Errorf("got %+v, %v", back, err)
	}
	if _, err := plain.Binding(td); err == nil {
		t.Error("an entry was read as a binding")
	}
	b := binding(t, "web", "web", "unix:uid:1000")
	plain, err = b.Plain(td)
	if err != nil || !plain.IsBinding() || plain.SPIFFEID != "spiffe://prod.example/shop/web" {
		t.Fatalf("got %+v, %v", plain, err)
	}
	if got, err := plain.Binding(td); err != nil || got.VirtualNode.String() != "shop/web" {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := plain.Entry(td); err != nil || got.ID.Path() != "/shop/web" {
		t.Errorf("a binding's identity: %+v, %v", got, err)
	}
}

func TestPlainValuesFromAServerAreCheckedAgain(t *testing.T) {
	good := identity.Plain{Name: "x", SPIFFEID: "spiffe://prod.example/shop/web", Selectors: oneSelector, VirtualNode: identity.VirtualNodeName{Mesh: "shop", Name: "web"}}
	for what, change := range map[string]func(*identity.Plain){
		"another trust domain": func(p *identity.Plain) { p.SPIFFEID = "spiffe://other.example/shop/web" },
		"an agent's":           func(p *identity.Plain) { p.SPIFFEID = "spiffe://prod.example/signet/agent/a" },
		"no selectors":         func(p *identity.Plain) { p.Selectors = nil },
	} {
		p := good
		change(&p)
		if _, err := p.Entry(td); err == nil {
			t.Errorf("%s: taken as an entry", what)
		}
		if _, err := p.Binding(td); err == nil {
			t.Errorf("%s: taken as a binding", what)
		}
	}
	p := good
	p.SPIFFEID = "spiffe://prod.example/shop/api"
	if _, err := p.Binding(td); err == nil {
		t.Error("the identity of another virtual node was taken")
	}
	p.TTL = 25 * time.Hour
	if _, err := p.Entry(td); err == nil {
		t.Error("a ttl of 25 h was taken")
	}
}
