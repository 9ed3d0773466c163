package relay

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"signet.example/attestation"
	"signet.example/proxy"
)

func TestAForeignProxyThatIsLostIsUnhealthyForAWhileAndThenGone(t *testing.T) {
	var p presence
	now := time.Now()
	for _, step := range []struct {
		after   time.Duration
		seen    []uint32
		called  []uint32
		healthy bool
	}{
		{0, nil, nil, false},
		{time.Hour, nil, nil, false},
		{time.Hour, []uint32{80, 81}, []uint32{80, 81}, true},
		{time.Hour, []uint32{80}, []uint32{80}, true},
		{time.Second, nil, []uint32{80}, false},
		{ComesBackWithin - time.Second, nil, []uint32{80}, false},
		{0, []uint32{80}, []uint32{80}, true}, // it came back
		{time.Second, nil, []uint32{80}, false},
		{ComesBackWithin, nil, nil, false},
	} {
		now = now.Add(step.after)
		if called, healthy := p.see(step.seen, now); !slices.Equal(called, step.called) || healthy != step.healthy {
			t.Errorf("%v: called at %v, healthy %t", step, called, healthy)
		}
	}
}

// An Envoy that is bound to another node, and was broken into, cannot keep a proxy of the
// configuration from its place by saying that it is there.
func TestAForeignProxyHasNoPlaceOfOneThatTheAgentRuns(t *testing.T) {
	var a addresses
	at := netip.MustParseAddrPort("127.0.0.2:8080")
	if err := a.claim("web", []netip.AddrPort{at}); err != nil {
		t.Fatal(err)
	}
	left, why := a.leftTo("127.0.0.2", []uint32{8080, 9090})
	if !slices.Equal(left, []uint32{9090}) || why != "its address is taken: proxy web listens on 127.0.0.2:8080" {
		t.Errorf("left to it are %v: %s", left, why)
	}
	if left, why := a.leftTo("127.0.0.3", []uint32{8080}); len(left) != 1 || why != "" {
		t.Errorf("elsewhere it has %v: %s", left, why)
	}
}

// Two users without a number in the agent's user namespace are both 65534 to it, and may be
// two: the one's process could claim what the other's listens on.
func TestAListenerOfAnUnknownUserIsNoForeignProxys(t *testing.T) {
	for name, c := range map[string]struct {
		owners []uint32
		users  []uint32
		want   error
	}{
		"its own":                   {[]uint32{1000}, []uint32{1001, 1000}, nil},
		"root's own":                {[]uint32{0}, []uint32{0}, nil},
		"one of two":                {[]uint32{65534, 1000}, []uint32{1000}, nil},
		"another's":                 {[]uint32{1000}, []uint32{1001}, attestation.ErrNoOwner},
		"nobody's":                  {nil, []uint32{1001}, attestation.ErrNoOwner},
		"unknown, as the proxy is":  {[]uint32{65534}, []uint32{65534}, errUnknownUser},
		"unknown":                   {[]uint32{65534}, []uint32{1000}, errUnknownUser},
		"no user at all, both ways": {[]uint32{^uint32(0)}, []uint32{^uint32(0)}, errUnknownUser},
	} {
		var owners []attestation.SocketOwner
		for _, uid := range c.owners {
			owners = append(owners, attestation.SocketOwner{UID: uid})
		}
		if err := heldBy(owners, c.users); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// One that starts again in another shape, or by another Binding, is at its place at once.
func TestWhoHasThePlaceOfALostForeignProxySucceedsIt(t *testing.T) {
	lost := Foreign{Shape: proxy.Shape{Bind: "127.0.0.2", App: "127.0.0.1"}, Ports: []uint32{80, 81}}
	for name, o := range map[string]struct {
		Foreign
		want bool
	}{
		"there":         {Foreign{Shape: proxy.Shape{Bind: "127.0.0.2", App: "127.0.0.3"}, Ports: []uint32{81}, Healthy: true}, true},
		"another port":  {Foreign{Shape: proxy.Shape{Bind: "127.0.0.2"}, Ports: []uint32{82}, Healthy: true}, false},
		"another place": {Foreign{Shape: proxy.Shape{Bind: "127.0.0.4"}, Ports: []uint32{81}, Healthy: true}, false},
		"lost, too":     {Foreign{Shape: proxy.Shape{Bind: "127.0.0.2"}, Ports: []uint32{81}}, false},
	} {
		if lost.succeeded(o.Foreign) != o.want {
			t.Errorf("%s: %t", name, !o.want)
		}
	}
}
