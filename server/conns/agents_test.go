package conns

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// conn is one of a run of an agent.
func (h *held) enter(agent, instance, principal string) *Conn {
	c := &Conn{of: Caller{Agent: agent, Instance: instance, Principal: principal}}
	h.add(c)
	return c
}

// One role joins as many agents as it likes, and each of these may have eight connections.
func TestAgentsOfOnePrincipalTakeNoConnectionOfOthers(t *testing.T) {
	const all, tasks = 160, 20
	h := newHeld()
	settle := func(c *Conn) (gone *Conn) {
		if h.n > all {
			gone = h.surplus(c)
			h.remove(gone)
		}
		return gone
	}
	for n := range tasks * 8 {
		settle(h.enter(fmt.Sprint("task-", n%tasks), "", "role:web"))
	}
	for n := range 60 { // hosts and tasks of another role, which come back one after the other
		host := h.enter(fmt.Sprint("host-", n), "", "")
		task := h.enter(fmt.Sprint("job-", n), "", "role:job")
		for _, c := range []*Conn{host, task} {
			if gone := settle(c); gone != nil && gone.of.Principal != "role:web" {
				t.Fatalf("a connection of %+v gave way to one of %+v", gone.of, c.of)
			}
		}
	}
	if n := h.shares.of["role:web"]; n != all-2*60 {
		t.Errorf("%d connections are left of the largest share", n)
	}
	for n := range tasks { // each of its own, none twice as often as another
		if n := len(h.by[fmt.Sprint("task-", n)]); n != 2 {
			t.Errorf("a task of it has %d connections", n)
		}
	}
}

// Those who need one each are not made to give way by one that has fewer agents and more
// connections.
func TestConnectionsThatNobodyNeedsGiveWayFirst(t *testing.T) {
	h := newHeld()
	for n := range 100 {
		h.enter(fmt.Sprint("web-", n), "", "role:web")
	}
	for n := range 80 {
		h.enter(fmt.Sprint("job-", n%10), "", "role:job")
	}
	for n := range 60 {
		c := h.enter(fmt.Sprint("host-", n), "", "")
		gone := h.surplus(c)
		h.remove(gone)
		if gone.of.Principal != "role:job" {
			t.Fatalf("host %d: one of %+v gave way", n, gone.of)
		}
	}
	late := h.enter("late", "", "")
	if gone := h.surplus(late); gone.of.Principal != "role:web" {
		t.Errorf("then it is one of the largest share, not of %+v", gone.of)
	}
}

func TestOfAnAgentsOwnConnectionsThoseOfAnotherRunGiveWay(t *testing.T) {
	h := newHeld()
	mine := h.enter("a", "now", "")
	h.enter("a", "now", "")
	left := h.enter("a", "before", "")
	if gone := h.surplus(mine); gone != left {
		t.Errorf("%+v gave way", gone.of)
	}
	h.remove(left)
	one := newHeld()
	one.enter("b", "", "")
	if late := one.enter("c", "", ""); one.surplus(late) != late {
		t.Error("where each has one the newcomer is to give way")
	}
}

// The counts are those of what is there, in whatever order it comes and goes.
func TestCountsOfConnectionsAreThoseOfTheConnections(t *testing.T) {
	h, rnd := newHeld(), rand.New(rand.NewPCG(1, 2))
	var there []*Conn
	for range 5000 {
		if len(there) > 0 && rnd.IntN(100) < 48 {
			i := rnd.IntN(len(there))
			h.remove(there[i])
			there = slices.Delete(there, i, i+1)
		} else {
			there = append(there, h.enter(fmt.Sprint("a-", rnd.IntN(20)), "", []string{"", "r:1", "r:2"}[rnd.IntN(3)]))
		}
		want := map[string]int{}
		for _, c := range there {
			want[c.of.share()]++
		}
		most := 0
		for _, n := range want {
			most = max(most, n)
		}
		if !maps.Equal(want, h.shares.of) || h.shares.most != most || h.n != len(there) || want[h.shares.largest("")] != most {
			t.Fatalf("%d of %v, the most %d; want %v, the most %d", h.n, h.shares.of, h.shares.most, want, most)
		}
	}
	for _, c := range there {
		h.remove(c)
		h.remove(c) // as one that gave way and is closed later
	}
	if h.n != 0 || len(h.by)+len(h.each.of)+len(h.shares.with)+len(h.within) != 0 {
		t.Errorf("something is left: %+v", h)
	}
}
