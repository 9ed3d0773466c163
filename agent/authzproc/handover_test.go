package authzproc

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sys/unix"

	"signet.example/agent/limits"
	"signet.example/agent/resources"
	"signet.example/api"
	"signet.example/identity"
	"signet.example/internal/unixsock"
	"signet.example/internal/watched"
)

func TestTheRingForgetsTheOldestByCountAndByBytes(t *testing.T) {
	r := newRing(3, 1<<20)
	for _, id := range []string{"a", "b", "c", "d"} {
		r.add(&api.Decision{Id: id})
	}
	if r.get("a") != nil || r.get("b") == nil || r.get("d") == nil {
		t.Error("not the newest three are kept")
	}
	r = newRing(1000, 5000)
	for _, id := range []string{"a", "b", "c"} {
		r.add(&api.Decision{Id: id, Message: strings.Repeat("x", 2000)})
	}
	if r.get("a") != nil || r.get("c") == nil || r.denied.size > 5000 {
		t.Errorf("%d bytes are kept", r.denied.size)
	}
	r.add(&api.Decision{Id: "huge", Message: strings.Repeat("x", 6000)})
	if r.get("huge") != nil || r.get("c") == nil {
		t.Error("one record pushed out all the others")
	}
	r.add(&api.Decision{Id: "c", Message: "another"})
	if r.get("c").GetMessage() == "another" {
		t.Error("a record was replaced by one with its id")
	}
}

// handoverPair is both ends of a passing socket.
func handoverPair(t testing.TB) (ours, theirs *net.UnixConn) {
	t.Helper()
	ours, file, err := unixsock.Pair(unix.SOCK_SEQPACKET, "test")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = unixsock.FromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(ours.Close(), theirs.Close()) }) // may be closed by the test
	return ours, theirs
}

func TestAConnectionIsHandedOverWithItsMessage(t *testing.T) {
	ours, theirs := handoverPair(t)
	client, file, err := unixsock.Pair(unix.SOCK_STREAM, "client")
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := unixsock.FromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := handover{Destination: "spiffe://test.example/shop/web", Proxy: "web"}
	if err := errors.Join(pass(ours, accepted, want), accepted.Close()); err != nil {
		t.Fatal(err)
	}
	got, h, err := receive(theirs)
	if err != nil || h != want {
		t.Fatalf("%+v %v", h, err)
	}
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(got, b); err != nil || string(b) != "hello" {
		t.Errorf("%q %v", b, err)
	}
	if err := errors.Join(got.Close(), client.Close()); err != nil {
		t.Error(err)
	}
	if err := ours.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := receive(theirs); !errors.Is(err, errHandoverEnded) {
		t.Errorf("at the end: %v", err)
	}
}

// A peer was attested, and its binding is taken away before its connection is
// handed over: whoever looks for revoked grants has looked already.
func TestAConnectionIsNotHandedOverByABindingThatIsGoneMeanwhile(t *testing.T) {
	ours, theirs := handoverPair(t)
	accepted, _ := handoverPair(t)
	id := spiffeid.RequireFromString("spiffe://test.example/shop/web")
	b := identity.Binding{Name: "web", VirtualNode: identity.VirtualNodeName{Mesh: "shop", Name: "web"}, Selectors: identity.Selectors{{Type: "unix", Value: "uid:1"}}}
	var now watched.Value[*resources.Snapshot]
	now.Set(&resources.Snapshot{Bindings: []identity.Binding{b}, IDs: map[string]spiffeid.ID{"web": id}})
	over := &handoverTo{conn: ours, state: &now, granted: map[grant]uint64{}}
	if err := over.give(accepted, b, id, "web"); err != nil {
		t.Fatal(err)
	}
	if c, _, err := receive(theirs); err != nil || c.Close() != nil {
		t.Fatal(err)
	}
	now.Set(&resources.Snapshot{})
	if all := over.revoke(now.Load()); !slices.Equal(all, []uint64{1}) {
		t.Errorf("what was granted is not seen to be gone: %v", all)
	}
	if err := over.give(accepted, b, id, "web"); !errors.Is(err, resources.ErrNotBound) {
		t.Errorf("after it was taken away: %v", err)
	}
	if err := theirs.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if c, _, err := receive(theirs); err == nil {
		t.Errorf("the connection was handed over: %v", c.Close())
	}
}

func FuzzReceiveRefusesWhatIsNotAHandover(f *testing.F) {
	good, err := json.Marshal(handover{"spiffe://a/b", "c", 7})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, 1)
	f.Add([]byte("{"), 1)
	f.Add(good, 3)
	f.Add(good, 0)
	f.Fuzz(func(t *testing.T, message []byte, files int) {
		if len(message) == 0 || len(message) > 2*maxHandover {
			return
		}
		ours, theirs := handoverPair(t)
		var fds []int
		for range min(max(files, 0), 6) {
			fds = append(fds, int(os.Stdin.Fd()))
		}
		if _, _, err := ours.WriteMsgUnix(message, unix.UnixRights(fds...), nil); err != nil {
			return
		}
		c, h, err := receive(theirs)
		var parsed handover
		if err == nil {
			if len(fds) != 1 || json.Unmarshal(message, &parsed) != nil || parsed != h {
				t.Errorf("%q with %d files was accepted as %+v", message, len(fds), h)
			}
			_ = c.Close() // a copy of standard input
		}
	})
}

// A28: the others' connections are still taken.
func TestTooManyAuthzConnectionsOfOneProxyAreRefusedAndCountedOut(t *testing.T) {
	s := &shares{most: 2, open: map[string]int{}}
	enter := func(who string) (net.Conn, error) {
		here, there := net.Pipe()
		t.Cleanup(func() { _ = errors.Join(here.Close(), there.Close()) }) // closed by the test
		return s.enter(here, who)
	}
	first, err := enter("web")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := enter("web"); err != nil {
		t.Fatal(err)
	}
	if _, err := enter("web"); !errors.Is(err, limits.ErrTooMany) {
		t.Errorf("the third: %v", err)
	}
	if _, err := enter("orders"); err != nil {
		t.Errorf("of another: %v", err)
	}
	if err := errors.Join(first.Close(), first.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := enter("web"); err != nil {
		t.Errorf("after one was closed twice: %v", err)
	}
	if _, err := enter("web"); !errors.Is(err, limits.ErrTooMany) {
		t.Errorf("one more: %v", err)
	}
}
