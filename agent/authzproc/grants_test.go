package authzproc

import (
	"errors"
	"net"
	"testing"

	"signet.example/agent/resources"
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
	if _, err := g.enter(ours, 1); !errors.Is(err, resources.ErrNotBound) {
		t.Errorf("one that was still to come: %v", err)
	}
	// It is granted again: by another number.
	g.revoke([]uint64{1})
	if _, err := g.enter(ours, 3); err != nil {
		t.Error(err)
	}
}
