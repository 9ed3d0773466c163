package dns

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"signet.example/internal/watched"
)

// said is what a relay knows.
type said struct {
	at       map[string]string
	complete bool
}

type fakeRoutes struct{ watched.Value[said] }

func (f *fakeRoutes) ServiceAddress(name string) (netip.Addr, bool) {
	at, known := f.Load().at[name]
	a, _ := netip.ParseAddr(at)
	return a, known
}

func (f *fakeRoutes) Services() (list []string, complete bool, changed <-chan struct{}) {
	s, changed := f.Get()
	for name := range s.at {
		list = append(list, name)
	}
	slices.Sort(list)
	return list, s.complete, changed
}

// running runs n until the test ends.
func running(t *testing.T, n *Kept) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); n.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
}

func TestNamesAreKeptAsTheyCome(t *testing.T) {
	routes := &fakeRoutes{}
	n := Keep(t.TempDir(), nil, true, routes, slog.New(slog.DiscardHandler))
	list := func() string { b, _ := os.ReadFile(n.file); return string(b) }
	running(t, n)
	routes.Set(said{map[string]string{"b": "127.128.0.2"}, false}) // another proxy has none yet
	routes.Set(said{map[string]string{"b": "127.128.0.2", "a": "127.128.0.1"}, true})
	await(t, "the names in the file", func() bool { return list() == "a\nb\n" })
	routes.Set(said{map[string]string{"a": "127.128.0.1"}, true})
	await(t, "one less", func() bool { return list() == "a\n" })
	if st, err := os.Stat(n.file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
}

func TestNamesThatCouldNotBeWrittenAreWrittenWhenTheyCanBe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "away")
	failed := make(chan struct{}, 1)
	log := slog.New(slog.NewTextHandler(signal(failed), nil))
	routes := &fakeRoutes{}
	n := Keep(dir, nil, true, routes, log)
	n.again = time.Millisecond
	routes.Set(said{map[string]string{"a": "127.128.0.1"}, true})
	running(t, n)
	<-failed
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	await(t, "the names in the file", func() bool { b, _ := os.ReadFile(n.file); return string(b) == "a\n" })
}

// signal is a log of which each line is told, where nothing waits yet.
type signal chan struct{}

func (s signal) Write(b []byte) (int, error) {
	select {
	case s <- struct{}{}:
	default:
	}
	return len(b), nil
}

func TestTheNamesOfTheRunBeforeAreNotAskedOfOthersUntilTheRoutesAreThere(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, namesFile), []byte("db.shop.internal\ngone.shop.internal\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	routes := &fakeRoutes{}
	n := Keep(dir, nil, true, routes, slog.New(slog.DiscardHandler))
	is := func(name string, address string, known bool) bool {
		at, has := n.Address(name)
		return has == known && (at.IsValid() && at.String() == address || !at.IsValid() && address == "")
	}
	if !is("db.shop.internal", "", true) || !is("gone.shop.internal", "", true) || !is("else.example", "", false) {
		t.Error("before any routes")
	}
	running(t, n)
	routes.Set(said{map[string]string{"db.shop.internal": "127.128.0.7"}, false})
	if !is("db.shop.internal", "127.128.0.7", true) || !is("gone.shop.internal", "", true) {
		t.Error("with the routes of one proxy of two")
	}
	routes.Set(said{map[string]string{"db.shop.internal": "127.128.0.7"}, true})
	await(t, "a service that is gone is anybody's name", func() bool { return is("gone.shop.internal", "", false) })
	if !is("db.shop.internal", "127.128.0.7", true) {
		t.Error("with all routes")
	}
	if n := Keep(dir, nil, false, routes, slog.New(slog.DiscardHandler)); len(n.before) != 0 {
		t.Error("nobody will say when the routes are there")
	}
}

func TestTheHostsThatTheAgentAsksItselfAreNoServices(t *testing.T) {
	routes := &fakeRoutes{}
	routes.Set(said{map[string]string{"signet.shop.internal": "127.128.0.7", "db": "127.128.0.8"}, true})
	n := Keep(t.TempDir(), []string{"", "Signet.shop.internal."}, true, routes, slog.New(slog.DiscardHandler))
	if at, known := n.Address("signet.shop.internal"); known {
		t.Errorf("the server is at %s", at)
	}
	if _, known := n.Address("db"); !known {
		t.Error("another service is not known")
	}
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}
