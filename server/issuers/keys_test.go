package issuers_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"signet.example/authz/jwt"
	"signet.example/server/issuers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shared is a Store that several servers have.
type shared struct {
	mu   sync.Mutex
	sets map[string]issuers.Set
	err  error
}

func (s *shared) Load() (map[string]issuers.Set, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sets, s.err
}

func (s *shared) Save(sets map[string]issuers.Set) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sets = sets
	return s.err
}

// keysOf are those of a server with this list, and what it has to tell.
func keysOf(t *testing.T, store issuers.Store, list func() []jwt.Issuer, changed func()) (*issuers.Keys, error) {
	t.Helper()
	return issuers.New(issuers.Config{
		List: list, Store: store, Changed: changed, Clock: time.Now, Log: slog.New(slog.DiscardHandler),
		Failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "x"}, []string{"issuer"}),
	})
}

// running runs them until the test ends.
func running(t *testing.T, k *issuers.Keys) {
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	t.Cleanup(func() {
		end()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func served(k *issuers.Keys, list []jwt.Issuer) string { return string(k.Resources(list)[0].GetJwks()) }

func TestTwoServersOverOneStoreServeTheSameKeys(t *testing.T) {
	set := fmt.Sprintf(jwksFormat, "one")
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(set)) }))
	list := []jwt.Issuer{{Name: "users", Issuer: "https://users.example", JWKSURL: idp.URL, Refresh: time.Hour}}
	given := func() []jwt.Issuer { return list }
	store, changed := &shared{}, make(chan struct{}, 1)
	first, err := keysOf(t, store, given, func() { changed <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	if got := served(first, list); got != `{"keys":[]}` {
		t.Errorf("before there were any: %s", got)
	}
	running(t, first)
	<-changed
	for sets, _ := store.Load(); len(sets) == 0; sets, _ = store.Load() {
		time.Sleep(time.Millisecond)
	}
	idp.Close()
	second, err := keysOf(t, store, given, func() {})
	if err != nil {
		t.Fatal(err)
	}
	if a, b := served(first, list), served(second, list); a != set || b != a {
		t.Errorf("%s, and the second %s", a, b)
	}
	other := []jwt.Issuer{{Name: "users", Issuer: "https://users.example", JWKSURL: "https://other.example/keys"}}
	if got := served(second, other); got != `{"keys":[]}` {
		t.Errorf("keys of another URL vouch for it: %s", got)
	}
}

func TestAStoreThatCannotBeReadIsACacheThatIsLost(t *testing.T) {
	bad := fmt.Errorf("disk: %w", errors.ErrUnsupported)
	for name, store := range map[string]*shared{
		"unreadable":          {err: bad},
		"a set of no use now": {sets: map[string]issuers.Set{"users": {URL: "https://users.example/keys", JWKS: []byte("{}")}}},
	} {
		list := []jwt.Issuer{{Name: "users", Issuer: "https://users.example", JWKSURL: "https://users.example/keys"}}
		k, err := keysOf(t, store, func() []jwt.Issuer { return list }, func() {})
		if !errors.Is(err, store.err) {
			t.Errorf("%s: %v", name, err)
		}
		if got := served(k, list); got != `{"keys":[]}` {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// A failed fetch is tried again soon, and the last good keys stay meanwhile.
func TestAFailedFetchIsToldAndKeepsTheLastGoodKeys(t *testing.T) {
	var asked atomic.Int64
	list := []jwt.Issuer{{Name: "users", Issuer: "https://users.example", JWKSURL: "unix:///nowhere", Refresh: time.Hour}}
	set := fmt.Sprintf(jwksFormat, "one")
	store := &shared{sets: map[string]issuers.Set{"users": {URL: "unix:///nowhere", JWKS: []byte(set), Fetched: time.Unix(1, 0)}}}
	synctest.Test(t, func(t *testing.T) {
		k, err := keysOf(t, store, func() []jwt.Issuer { asked.Add(1); return list }, func() {})
		if err != nil {
			t.Fatal(err)
		}
		ctx, end := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		if f := k.Failing()["users"]; f.Err == "" || !f.Fetched.Equal(time.Unix(1, 0)) || served(k, list) != set {
			t.Errorf("%+v, served %s", f, served(k, list))
		}
		if n := asked.Load(); n < 6 || n > 8 {
			t.Errorf("tried %d times in a minute", n)
		}
		end()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
