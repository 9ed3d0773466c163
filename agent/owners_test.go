package agent

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"signet.example/attestation"
	"signet.example/identity"
)

// ownersRig are owners whose listeners the test says, by port.
type ownersRig struct {
	*owners
	t      *testing.T
	listen map[uint16][]attestation.SocketOwner
}

func newOwnersRig(t *testing.T, file string) *ownersRig {
	t.Helper()
	r := &ownersRig{t: t, listen: map[uint16][]attestation.SocketOwner{}}
	known, err := readOwners(file)
	if err != nil {
		t.Fatal(err)
	}
	r.owners = newOwners(file, known, slog.New(slog.DiscardHandler), func() {})
	r.listeners = func(at netip.AddrPort) ([]attestation.SocketOwner, error) { return r.listen[at.Port()], nil }
	return r
}

var (
	theFront   = front{node: "mesh/shop/virtualNode/web", app: netip.MustParseAddr("127.0.0.1"), ports: "8080, 8443"}
	theBinding = identity.Binding{Name: "web-proxy"}
)

// may asks for a caller of a user, as if nothing had been asked for a while.
func (r *ownersRig) may(uid uint32) error {
	r.mu.Lock()
	clear(r.recent)
	r.mu.Unlock()
	return r.allows(theFront, theBinding, attestation.SocketOwner{UID: uid})
}

func (r *ownersRig) expect(what string, uid uint32, reason string) {
	r.t.Helper()
	err := r.may(uid)
	got := ""
	if n, ok := err.(*notAllowed); ok { //nolint:errorlint // as it is made
		got = n.reason
	}
	if got != reason || (err == nil) != (reason == "") {
		r.t.Errorf("%s: %v, want %q", what, err, reason)
	}
	if err != nil && !strings.Contains(err.Error(), "Binding web-proxy") {
		r.t.Errorf("%s: %v does not say what to do", what, err)
	}
}

func user(uids ...uint32) []attestation.SocketOwner {
	var out []attestation.SocketOwner
	for _, uid := range uids {
		out = append(out, attestation.SocketOwner{UID: uid})
	}
	return out
}

func TestTheApplicationIsTheOneOwnerOfAllListeners(t *testing.T) {
	r := newOwnersRig(t, filepath.Join(t.TempDir(), "applications.json"))
	r.expect("nobody listens yet", 1000, reasonNoOwner)
	r.listen[8080] = user(1000, 1001)
	r.expect("two on one port", 1000, reasonNoOwner)
	r.listen[8080], r.listen[8443] = user(1000), user(1001)
	r.expect("two on two ports", 1000, reasonNoOwner)
	r.listen[8080], r.listen[8443] = user(65534), nil
	r.expect("somebody without a number", 65534, reasonNoOwner)
	r.listen[8080] = user(1000, 1000)
	r.expect("one, with two workers", 1000, "")
	r.expect("another user", 1001, reasonNotTheirs)
	r.expect("root is another user, too", 0, reasonNotTheirs)
	r.listen[8443] = user(1000)
	r.expect("on both ports", 1000, "")
	r.listen[8443] = user(1001)
	r.expect("two, later", 1000, reasonNoOwner)
}

func TestANewOwnerIsRefusedAlsoAfterARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "applications.json")
	r := newOwnersRig(t, file)
	r.listen[8080] = user(1000)
	r.expect("the first", 1000, "")
	r.listen[8080] = nil
	r.expect("it calls while it does not listen", 1000, "")
	r.listen[8080] = user(1001)
	for _, again := range []string{"at once", "after a restart"} {
		r.expect("who took its port, "+again, 1001, reasonNewOwner)
		r.expect("whose port was taken, "+again, 1000, reasonNewOwner)
		listen := r.listen
		r = newOwnersRig(t, file)
		r.listen = listen
	}
	r.listen[8080] = user(1000)
	r.expect("the first is back", 1000, "")

	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readOwners(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("half a file is as good as none: %v", err)
	}
}

func TestWhatCannotBeRememberedIsNotServed(t *testing.T) {
	r := newOwnersRig(t, filepath.Join(t.TempDir(), "missing", "applications.json"))
	r.listen[8080] = user(1000)
	if err := r.may(1000); err == nil {
		t.Error("served by a memory that a restart loses")
	}
}

func TestARestartOfTheSameServiceIsNotAnotherOwner(t *testing.T) {
	for name, tc := range map[string]struct {
		before, now owner
		same        bool
	}{
		"a container made anew":            {owner{1000, "/docker/a"}, owner{1000, "/docker/b"}, true},
		"a dynamic user's service":         {owner{61200, "/system.slice/web.service"}, owner{61201, "/system.slice/web.service"}, true},
		"a dynamic user's number, reused":  {owner{61200, "/system.slice/web.service"}, owner{61200, "/system.slice/other.service"}, false},
		"a user, now as a service":         {owner{1000, ""}, owner{1000, "/system.slice/web.service"}, true},
		"another user, outside of a unit":  {owner{1000, ""}, owner{1001, ""}, false},
		"another user in another service":  {owner{1000, "/system.slice/web.service"}, owner{1001, "/system.slice/x.service"}, false},
		"another user in no unit any more": {owner{1000, "/system.slice/web.service"}, owner{1001, ""}, false},
	} {
		if got := tc.now.follows(tc.before); got != tc.same {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestANodeWithoutListenersIsToldToNameItsApplication(t *testing.T) {
	r := newOwnersRig(t, filepath.Join(t.TempDir(), "applications.json"))
	client := theFront
	client.ports = ""
	err := r.allows(client, theBinding, attestation.SocketOwner{UID: 1000})
	if err == nil || !strings.Contains(err.Error(), "no listener") || !strings.Contains(err.Error(), "applications of Binding web-proxy") {
		t.Errorf("%v", err)
	}
}
