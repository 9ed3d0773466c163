package resources

import (
	"errors"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/ads"
	"signet.example/agent/resources/resourcestest"
	"signet.example/agent/svids"
	"signet.example/api"
	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/proxy"
)

var td = spiffeid.RequireTrustDomainFromString("test.example")

// A compromised server cannot have the agent serve what is not in its trust
// domain, nor Signet's own identities, nor to everyone.
func TestEntriesThatMustNotBeServedAreRefusedAndNamed(t *testing.T) {
	node := &api.VirtualNodeRef{Mesh: "shop", Name: "web"}
	fine := &api.Entry{Name: "fine", SpiffeId: "spiffe://test.example/a", Selectors: []string{"unix:uid:1"}}
	s := New(td, resourcestest.Set(t, fine,
		&api.Entry{Name: "foreign", SpiffeId: "spiffe://other.example/a", Selectors: []string{"unix:uid:1"}},
		&api.Entry{Name: "server", SpiffeId: "spiffe://test.example/signet/server/x", Selectors: []string{"unix:uid:1"}},
		&api.Entry{Name: "everyone", SpiffeId: "spiffe://test.example/b"},
		&api.Entry{Name: "unknown", SpiffeId: "spiffe://test.example/b", Selectors: []string{"cloud:zone:a"}},
		&api.Entry{Name: "lie", SpiffeId: "spiffe://test.example/shop/other", Selectors: []string{"unix:uid:1"}, VirtualNode: node},
	), nil, nil, OfProcesses)
	if err := s.addEntry(&api.Entry{Name: svids.Own, SpiffeId: "spiffe://test.example/c", Selectors: []string{"unix:uid:1"}}); err == nil {
		t.Error("an entry that has the agent's own place was taken")
	}
	if len(s.Problems) != 5 || len(s.IDs) != 1 {
		t.Errorf("%d problems, %d identities: %v", len(s.Problems), len(s.IDs), s.Problems)
	}
	wants, err := s.Identities(identity.Selectors{{Type: "unix", Value: "uid:1"}})
	if err != nil || len(wants) != 1 || wants[0].Entry != "fine" {
		t.Errorf("%v %v", wants, err)
	}
}

// What a task cannot tell of anybody must not look as if it were granted.
func TestWhatAsksForAProcessIsRefusedAndNamedInATask(t *testing.T) {
	s := New(td, resourcestest.Set(t,
		&api.Entry{Name: "app", SpiffeId: "spiffe://test.example/a", Selectors: []string{"signet:unit:task"}},
		&api.Entry{Name: "user", SpiffeId: "spiffe://test.example/b", Selectors: []string{"signet:unit:task", "unix:uid:1"}},
	), nil, nil, attestation.CheckTask)
	if len(s.Entries) != 1 || s.Entries[0].Name != "app" || len(s.Problems) != 1 || !strings.Contains(s.Problems[0], `entry "user": selector "unix:uid:1" is of one process`) {
		t.Errorf("%v, %q", s.Entries, s.Problems)
	}
}

func TestTheUsersThatEntriesAndBindingsAskForAreNamed(t *testing.T) {
	s := New(td, resourcestest.Set(t,
		&api.Entry{Name: "job", SpiffeId: "spiffe://test.example/a", Selectors: []string{"unix:uid:1", "unix:gid:2"}},
		&api.Entry{Name: "path", SpiffeId: "spiffe://test.example/b", Selectors: []string{"unix:path:/usr/bin/x"}},
		&api.Entry{Name: "refused", SpiffeId: "spiffe://other.example/c", Selectors: []string{"unix:uid:3"}},
	), nil, nil, OfProcesses)
	for uid, want := range map[uint32]bool{0: false, 1: true, 2: false, 3: false} {
		if s.NamesUser(uid) != want {
			t.Errorf("user %d: %t", uid, !want)
		}
	}
}

func TestABannedIdentityIsGrantedToNobody(t *testing.T) {
	ban, err := ads.NewResource(ads.BanType, "a", &api.Ban{SpiffeId: "spiffe://test.example/a"})
	if err != nil {
		t.Fatal(err)
	}
	bans, err := ads.NewSet(ban)
	if err != nil {
		t.Fatal(err)
	}
	set, err := bans.Merge(resourcestest.Set(t, &api.Entry{Name: "a", SpiffeId: "spiffe://test.example/a", Selectors: []string{"unix:uid:1"}}))
	if err != nil {
		t.Fatal(err)
	}
	s := New(td, set, nil, nil, OfProcesses)
	if len(s.IDs) != 0 || !s.Bans["spiffe://test.example/a"] {
		t.Errorf("granted: %v", s.IDs)
	}
}

// A proxy that the agent starts is what the agent's configuration says, whatever
// else fits the process: it runs as the agent's user.
func TestASupervisedProxyIsTheNodeOfItsConfiguration(t *testing.T) {
	bind := func(name, node, selector string) *api.Entry {
		return &api.Entry{Name: "binding/" + name, SpiffeId: "spiffe://test.example/shop/" + node, Selectors: []string{selector}, VirtualNode: &api.VirtualNodeRef{Mesh: "shop", Name: node}}
	}
	s := New(td, resourcestest.Set(t, bind("api", "api", "unix:uid:0"), bind("web", "web", "signet:proxy:web-1")), nil, nil, OfProcesses)
	has := identity.Selectors{{Type: "unix", Value: "uid:0"}, {Type: "signet", Value: "proxy:web-1"}}
	if _, _, err := s.Binding(has, proxy.Ref{}); err == nil {
		t.Error("the control: two nodes fit")
	}
	s.Own = func(name string) (proxy.Ref, bool) { return proxy.Node("shop", "web"), name == "web-1" }
	if b, _, err := s.Binding(has, proxy.Ref{}); err != nil || b.VirtualNode.Name != "web" {
		t.Errorf("%+v, %v", b, err)
	}
	if _, _, err := s.Binding(has, proxy.Node("shop", "api")); !errors.Is(err, ErrNotBound) {
		t.Errorf("another node: %v", err)
	}
}

func TestAProgramIsHashedOnlyWhereItsHashMayMatter(t *testing.T) {
	selectors := func(values ...string) identity.Selectors {
		var all identity.Selectors
		for _, v := range values {
			all = append(all, identity.Selector{Type: "unix", Value: v})
		}
		return all
	}
	s := &Snapshot{IDs: map[string]spiffeid.ID{}, Bindings: []identity.Binding{
		{Name: "plain", Selectors: selectors("uid:1", "path:/usr/bin/envoy")},
		{Name: "hashed", Selectors: selectors("uid:2", "sha256:00")},
	}, Entries: []identity.Entry{{Name: "app", Selectors: selectors("path:/usr/bin/app", "sha256:00")}}}
	for _, row := range []struct {
		has  identity.Selectors
		want bool
	}{
		{selectors("uid:1", "gid:1", "path:/usr/bin/envoy"), false},
		{selectors("uid:2", "gid:1", "path:/usr/bin/envoy"), true},
		{selectors("uid:3", "gid:1", "path:/tmp/large"), false},
		{selectors("uid:3", "gid:1", "path:/usr/bin/app"), true},
	} {
		if got := s.WantsHash(row.has); got != row.want {
			t.Errorf("%v: %v", row.has, got)
		}
	}
}

func TestANodeIDSelectsByMeshAndName(t *testing.T) {
	s := New(td, resourcestest.Set(t, &api.Entry{
		Name: "a", SpiffeId: "spiffe://test.example/shop/web", Selectors: []string{"unix:uid:1"},
		VirtualNode: &api.VirtualNodeRef{Mesh: "shop", Name: "web"},
	}), nil, nil, OfProcesses)
	has := s.Bindings[0].Selectors
	for ref, want := range map[proxy.Ref]bool{
		proxy.Node("shop", "web"): true, {}: true, proxy.Node("other", "web"): false, proxy.Node("shop", "api"): false,
		proxy.Node("shop", ""): false, proxy.Node("", "web"): false, {Mesh: "shop", Kind: "virtualGateway", Name: "web"}: false,
	} {
		if _, _, err := s.Binding(has, ref); (err == nil) != want {
			t.Errorf("%v: %v", ref, err)
		}
	}
}

func TestTheNearestEntryIsTheOneWithMostOfWhatAProcessHas(t *testing.T) {
	s := New(td, resourcestest.Set(t,
		&api.Entry{Name: "entry/a", SpiffeId: "spiffe://test.example/a", Selectors: []string{"unix:uid:1", "unix:path:/bin/a"}},
		&api.Entry{Name: "entry/b", SpiffeId: "spiffe://test.example/b", Selectors: []string{"unix:uid:1", "unix:gid:1", "unix:path:/bin/b"}},
		&api.Entry{Name: "entry/c", SpiffeId: "spiffe://test.example/c", Selectors: []string{"unix:uid:1", "unix:gid:1", "unix:path:/bin/b", "unix:sha256:" + strings.Repeat("a", 64)}},
		&api.Entry{Name: "binding/web", SpiffeId: "spiffe://test.example/shop/web", Selectors: []string{"unix:uid:9", "unix:path:/bin/envoy"}, VirtualNode: &api.VirtualNodeRef{Mesh: "shop", Name: "web"}},
	), nil, nil, OfProcesses)
	for _, row := range []struct{ has, name, lacks string }{
		{"unix:uid:1 unix:gid:7 unix:path:/bin/x", "entry/a", "unix:path:/bin/a"},
		{"unix:uid:1 unix:gid:1 unix:path:/bin/x", "entry/b", "unix:path:/bin/b"},
		{"unix:uid:9 unix:gid:1 unix:path:/usr/bin/envoy", "binding/web", "unix:path:/bin/envoy"},
		{"unix:uid:3 unix:path:/bin/x", "", ""},
	} {
		has, err := identity.ParseSelectors(strings.Fields(row.has))
		if err != nil {
			t.Fatal(err)
		}
		if name, lacks := s.Nearest(has); name != row.name || strings.Join(lacks.Strings(), " ") != row.lacks {
			t.Errorf("%s: %q lacks %v, want %q and %s", row.has, name, lacks, row.name, row.lacks)
		}
	}
}
