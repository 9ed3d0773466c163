package identity_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signet.example/identity"
)

var oneSelector = []string{"unix:uid:1000"}

// wantField checks that err is a FieldError at path.
func wantField(t *testing.T, what, path string, err error) {
	t.Helper()
	var fe *identity.FieldError
	if !errors.As(err, &fe) {
		t.Errorf("%s: got %v, want an error at %s", what, err, path)
		return
	}
	if fe.Path != path || !strings.HasPrefix(err.Error(), path+": ") || fe.Msg == "" {
		t.Errorf("%s: got %v, want it at %s", what, err, path)
	}
}

func TestEntryIsBuiltFromItsSpec(t *testing.T) {
	e, err := identity.EntrySpec{Group: "edge", SPIFFEID: "spiffe://prod.example/batch/report", Selectors: []string{"unix:uid:1000", "unix:path:/usr/bin/report"}, TTL: "1h"}.Build("report", td)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]any{"name": e.Name, "group": e.Group, "id": e.ID.String(), "selectors": e.Selectors.Strings(), "ttl": e.TTL}
	want := map[string]any{"name": "report", "group": "edge", "id": "spiffe://prod.example/batch/report", "selectors": []string{"unix:uid:1000", "unix:path:/usr/bin/report"}, "ttl": time.Hour}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	e, err = identity.EntrySpec{Group: "edge", VirtualNode: &identity.VirtualNodeName{Mesh: "shop", Name: "web"}, Selectors: oneSelector}.Build("web", td)
	if err != nil || e.ID.String() != "spiffe://prod.example/shop/web" || e.TTL != 0 {
		t.Errorf("got %+v, %v", e, err)
	}
}

func TestEntryThatMustNotBeIsRefusedWithItsField(t *testing.T) {
	good := identity.EntrySpec{Group: "edge", SPIFFEID: "spiffe://prod.example/a", Selectors: oneSelector}
	for what, c := range map[string]struct {
		path   string
		change func(*identity.EntrySpec)
	}{
		"a hint of two lines":     {"spec.hint", func(s *identity.EntrySpec) { s.Hint = "a\nb" }},
		"a hint without an end":   {"spec.hint", func(s *identity.EntrySpec) { s.Hint = strings.Repeat("x", 129) }},
		"DNS names":               {"spec.dnsNames", func(s *identity.EntrySpec) { s.DNSNames = []string{"db.example"} }},
		"no group":                {"spec.group", func(s *identity.EntrySpec) { s.Group = "" }},
		"group with a slash":      {"spec.group", func(s *identity.EntrySpec) { s.Group = "a/b" }},
		"no identity":             {"spec.spiffeID", func(s *identity.EntrySpec) { s.SPIFFEID = "" }},
		"two identities":          {"spec.virtualNode", func(s *identity.EntrySpec) { s.VirtualNode = &identity.VirtualNodeName{Mesh: "m", Name: "n"} }},
		"another trust domain":    {"spec.spiffeID", func(s *identity.EntrySpec) { s.SPIFFEID = "spiffe://other.example/a" }},
		"a subdomain":             {"spec.spiffeID", func(s *identity.EntrySpec) { s.SPIFFEID = "spiffe://sub.prod.example/a" }},
		"an agent's":              {"spec.spiffeID", func(s *identity.EntrySpec) { s.SPIFFEID = "spiffe://prod.example/signet/agent/a" }},
		"a server's":              {"spec.spiffeID", func(s *identity.EntrySpec) { s.SPIFFEID = "spiffe://prod.example/signet/server/s" }},
		"Signet itself":           {"spec.spiffeID", func(s *identity.EntrySpec) { s.SPIFFEID = "spiffe://prod.example/signet" }},
		"the trust domain itself": {"spec.spiffeID", func(s *identity.EntrySpec) { s.SPIFFEID = "spiffe://prod.example" }},
		"not a SPIFFE ID":         {"spec.spiffeID", func(s *identity.EntrySpec) { s.SPIFFEID = "https://prod.example/a" }},
		"mesh signet": {"spec.virtualNode.mesh", func(s *identity.EntrySpec) {
			s.SPIFFEID, s.VirtualNode = "", &identity.VirtualNodeName{Mesh: "signet", Name: "agent"}
		}},
		"node with a slash": {"spec.virtualNode.name", func(s *identity.EntrySpec) {
			s.SPIFFEID, s.VirtualNode = "", &identity.VirtualNodeName{Mesh: "shop", Name: "a/b"}
		}},
		"no selectors":       {"spec.selectors", func(s *identity.EntrySpec) { s.Selectors = nil }},
		"no selector at all": {"spec.selectors[0]", func(s *identity.EntrySpec) { s.Selectors = []string{""} }},
		"one selector twice": {"spec.selectors[1]", func(s *identity.EntrySpec) { s.Selectors = []string{"unix:uid:1", "unix:uid:1"} }},
		"too many selectors": {"spec.selectors", func(s *identity.EntrySpec) { s.Selectors = make([]string, 33) }},
		"ttl too short":      {"spec.ttl", func(s *identity.EntrySpec) { s.TTL = "999ms" }},
		"ttl too long":       {"spec.ttl", func(s *identity.EntrySpec) { s.TTL = "24h1s" }},
		"negative ttl":       {"spec.ttl", func(s *identity.EntrySpec) { s.TTL = "-1h" }},
		"ttl without a unit": {"spec.ttl", func(s *identity.EntrySpec) { s.TTL = "3600" }},
	} {
		s := good
		c.change(&s)
		_, err := s.Build("e", td)
		wantField(t, what, c.path, err)
	}
	for _, name := range []string{"", "a/b", "-a", ".."} {
		_, err := good.Build(name, td)
		wantField(t, "name "+name, "metadata.name", err)
	}
	for _, ttl := range []string{"1s", "24h"} {
		good.TTL = ttl
		if _, err := good.Build("e", td); err != nil {
			t.Errorf("ttl %s: %v", ttl, err)
		}
	}
}

func TestBindingNeedsGroupMeshNodeAndSelectors(t *testing.T) {
	good := identity.BindingSpec{Group: "edge", Mesh: "shop", VirtualNode: "web", Selectors: oneSelector}
	b, err := good.Build("b", td)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := b.ID(td); err != nil || id.String() != "spiffe://prod.example/shop/web" {
		t.Errorf("got %q, %v", id, err)
	}
	for path, change := range map[string]func(*identity.BindingSpec){
		"spec.group":        func(s *identity.BindingSpec) { s.Group = "" },
		"spec.mesh":         func(s *identity.BindingSpec) { s.Mesh = "signet" },
		"spec.virtualNode":  func(s *identity.BindingSpec) { s.VirtualNode = "" },
		"spec.selectors":    func(s *identity.BindingSpec) { s.Selectors = nil },
		"spec.selectors[0]": func(s *identity.BindingSpec) { s.Selectors = []string{"unix:"} },
	} {
		s := good
		change(&s)
		_, err := s.Build("b", td)
		wantField(t, path, path, err)
	}
}

func TestTheRangesOfANodeGroupAreThoseOfHosts(t *testing.T) {
	g, err := identity.NodeGroupSpec{Addresses: []string{"10.20.0.0/16", "fd00:20::/32", "192.0.2.7/32", "10.0.0.0/8", "fd00::/8", "2001:db8::/32", "169.253.0.0/16"}}.Build("edge", td)
	if err != nil || len(g.Addresses) != 7 {
		t.Fatalf("got %+v, %v", g, err)
	}
	for _, bad := range []string{"", "10.20.0.1", "10.20.0.1/16", "0.0.0.0/0", "::/0", "127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10", "224.0.0.0/4", "::ffff:10.0.0.0/104", "10.0.0.0/33"} {
		_, err := identity.NodeGroupSpec{Addresses: []string{"10.20.0.0/16", bad}}.Build("edge", td)
		wantField(t, bad, "spec.addresses[1]", err)
	}
	for wide, names := range map[string]string{ // as by a slip of the key, or to have them all
		"0.0.0.0/1": "0.0.0.0/8", "128.0.0.0/1": "169.254.0.0/16 in it (link-local)", "64.0.0.0/2": "127.0.0.0/8 in it (loopback)", "168.0.0.0/5": "169.254.0.0/16",
		"255.255.255.255/32": "broadcast", "0.0.0.0/32": "no address", "169.254.169.254/32": "link-local", "192.0.0.0/3": "wider than /8",
		"::/1": "::/8", "8000::/1": "fe80::/10", "f000::/4": "fe80::/10", "2000::/3": "wider than /8", "ff02::1/128": "multicast",
	} {
		_, err := identity.NodeGroupSpec{Addresses: []string{wide}}.Build("edge", td)
		if wantField(t, wide, "spec.addresses[0]", err); err != nil && !strings.Contains(err.Error(), names) {
			t.Errorf("%s: %v: want it to name %s", wide, err, names)
		}
	}
	_, err = identity.NodeGroupSpec{Addresses: make([]string, 65)}.Build("edge", td)
	wantField(t, "many", "spec.addresses", err)
}

func TestANodeGroupHasTheHostsWithAllOfItsSelectors(t *testing.T) {
	none, err := identity.NodeGroupSpec{}.Build("edge", td)
	if err != nil || none.Name != "edge" {
		t.Errorf("got %+v, %v", none, err)
	}
	g, err := identity.NodeGroupSpec{Selectors: []string{"x509pop:subject:cn:a", "x509pop:san:dns:a.example"}}.Build("edge", td)
	if err != nil || len(g.Selectors) != 2 {
		t.Fatalf("got %+v, %v", g, err)
	}
	other := identity.Selector{Type: "x509pop", Value: "serialnumber:1"}
	for name, c := range map[string]struct {
		group identity.NodeGroup
		has   identity.Selectors
		want  bool
	}{
		"all of them, and more":        {g, append(identity.Selectors{other}, g.Selectors...), true},
		"one of them":                  {g, g.Selectors[:1], false},
		"none":                         {g, nil, false},
		"a group without selectors":    {none, g.Selectors, false},
		"a host without any, nor it":   {none, nil, false},
		"the value of another key":     {g, identity.Selectors{g.Selectors[0], {Type: "x509pop", Value: "san:uri:a.example"}}, false},
		"the value in another's place": {g, identity.Selectors{g.Selectors[0], {Type: "unix", Value: "san:dns:a.example"}}, false},
	} {
		if got := c.group.Fits(c.has); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	_, err = identity.NodeGroupSpec{Selectors: []string{"x509pop:subject:cn:a", "nonsense"}}.Build("edge", td)
	wantField(t, "selectors", "spec.selectors[1]", err)
}
