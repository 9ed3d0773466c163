package fleet

import (
	"fmt"
	"testing"

	"signet.example/api"
	"signet.example/proxy"
)

// A9-39: who calls there was looked up for each of them, ten times a second.
func TestAPlaceIsAskedForOnceHoweverManyDrainThere(t *testing.T) {
	r := sessionsAt(inMemory(), "one", &reports{})
	s := &stream{Session: &Session{id: "s"}, down: make(chan *api.SessionDown, 1)}
	r.here["x"] = s
	asked := 0
	w := withdrawals{sessions: r, sent: map[string]sent{}, drains: map[string]map[string]draining{"x": {}}, without: func(_ proxy.Ref, address string) bool {
		asked++
		return address == "10.0.0.1"
	}}
	for i := range 1000 {
		w.drains["x"][fmt.Sprint(i)] = draining{proxy.Node("m", "orders"), fmt.Sprintf("10.0.0.%d", i%2), int64(i)}
	}
	if w.send("x") || asked != 2 {
		t.Errorf("asked %d times for 2 places", asked)
	}
	if pids := (<-s.down).GetWithdrawn().GetPids(); len(pids) != 500 || pids["7"] != 7 {
		t.Errorf("%d are told, the one has pid %d", len(pids), pids["7"])
	}
}
