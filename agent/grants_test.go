package agent

import (
	"errors"
	"net"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
)

func TestAGrantThatIsGoneCutsItsOwnConnectionsOnly(t *testing.T) {
	var g grants
	open := func(grant uint64) (theirs net.Conn) {
		ours, theirs := net.Pipe()
		c, err := g.enter(ours, grant)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = errors.Join(c.Close(), theirs.Close()) })
		return theirs
	}
	web, api := open(1), open(2)
	g.revoke([]uint64{1})
	if _, err := web.Write([]byte("x")); err == nil {
		t.Error("a connection of the grant is open")
	}
	go func() { _, _ = api.Write([]byte("x")) }() // ends with the test
	if len(g.open[2]) != 1 {
		t.Error("a connection of another grant was cut")
	}
	ours, _ := net.Pipe()
	if _, err := g.enter(ours, 1); !errors.Is(err, errNotBound) {
		t.Errorf("one that was still to come: %v", err)
	}
	// It is granted again: by another number.
	g.revoke([]uint64{1})
	if _, err := g.enter(ours, 3); err != nil {
		t.Error(err)
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
	s := &state{ids: map[string]spiffeid.ID{}, bindings: []identity.Binding{
		{Name: "plain", Selectors: selectors("uid:1", "path:/usr/bin/envoy")},
		{Name: "hashed", Selectors: selectors("uid:2", "sha256:00")},
	}, entries: []identity.Entry{{Name: "app", Selectors: selectors("path:/usr/bin/app", "sha256:00")}}}
	for _, row := range []struct {
		has  identity.Selectors
		want bool
	}{
		{selectors("uid:1", "gid:1", "path:/usr/bin/envoy"), false},
		{selectors("uid:2", "gid:1", "path:/usr/bin/envoy"), true},
		{selectors("uid:3", "gid:1", "path:/tmp/large"), false},
		{selectors("uid:3", "gid:1", "path:/usr/bin/app"), true},
	} {
		if got := s.wantsHash(row.has); got != row.want {
			t.Errorf("%v: %v", row.has, got)
		}
	}
}
