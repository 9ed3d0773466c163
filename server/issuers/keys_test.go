package issuers_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"signet.example/authz/jwt"
	"signet.example/internal/watched"
	"signet.example/server/issuers"
	"signet.example/server/shared"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// keysOf are those of a server with this list, and what it has to tell.
func keysOf(known shared.Value[issuers.Sets], list func() []jwt.Issuer, changed func()) *issuers.Keys {
	return issuers.New(issuers.Config{
		List: list, Shared: known, Changed: changed, Clock: time.Now, Log: slog.New(slog.DiscardHandler),
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
	known, changed := &watched.Value[issuers.Sets]{}, make(chan struct{}, 2)
	first := keysOf(known, given, func() {})
	if got := served(first, list); got != `{"keys":[]}` {
		t.Errorf("before there were any: %s", got)
	}
	second := keysOf(known, given, func() { changed <- struct{}{} })
	running(t, first)
	for len(known.Load()) == 0 {
		time.Sleep(time.Millisecond)
	}
	idp.Close()
	running(t, second) // it can fetch nothing itself
	if a, b := served(first, list), served(second, list); a != set || b != a {
		t.Errorf("%s, and the second %s", a, b)
	}
	next := fmt.Sprintf(jwksFormat, "two")
	known.Update(func(now issuers.Sets) issuers.Sets { // as a third one does
		return issuers.Sets{"users": {URL: idp.URL, JWKS: []byte(next), Fetched: time.Now()}}
	})
	<-changed
	if got := served(second, list); got != next {
		t.Errorf("%s, after another server has fetched other keys", got)
	}
	other := []jwt.Issuer{{Name: "users", Issuer: "https://users.example", JWKSURL: "https://other.example/keys"}}
	if got := served(second, other); got != `{"keys":[]}` {
		t.Errorf("keys of another URL vouch for it: %s", got)
	}
}

func TestAStoreThatCannotBeReadIsACacheThatIsLost(t *testing.T) {
	folder := t.TempDir()
	for name, c := range map[string]struct {
		content string
		bad     bool
	}{
		"unreadable":          {"<html>", true},
		"a set of no use now": {`{"users": {"url": "https://users.example/keys", "jwks": "e30="}}`, false},
		"none":                {"", false},
	} {
		path := filepath.Join(folder, name)
		if c.content != "" {
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		list := []jwt.Issuer{{Name: "users", Issuer: "https://users.example", JWKSURL: "https://users.example/keys"}}
		f, err := issuers.OpenFile(path, slog.New(slog.DiscardHandler))
		if (err != nil) != c.bad {
			t.Errorf("%s: %v", name, err)
		}
		k := keysOf(f, func() []jwt.Issuer { return list }, func() {})
		if got := served(k, list); got != `{"keys":[]}` {
			t.Errorf("%s: %s", name, got)
		}
		good := fmt.Sprintf(jwksFormat, "one")
		f.Update(func(issuers.Sets) issuers.Sets {
			return issuers.Sets{"users": {URL: "https://users.example/keys", JWKS: []byte(good)}}
		})
		ended, end := context.WithCancel(t.Context())
		end()
		if err := f.Run(ended); err != nil {
			t.Error(err)
		}
		again, err := issuers.OpenFile(path, slog.New(slog.DiscardHandler))
		if got := served(keysOf(again, nil, nil), list); err != nil || got != good {
			t.Errorf("%s, after the next start: %s, %v", name, got, err)
		}
	}
}

// A failed fetch is tried again soon, and the last good keys stay meanwhile.
func TestAFailedFetchIsToldAndKeepsTheLastGoodKeys(t *testing.T) {
	var asked atomic.Int64
	list := []jwt.Issuer{{Name: "users", Issuer: "https://users.example", JWKSURL: "unix:///nowhere", Refresh: time.Hour}}
	set := fmt.Sprintf(jwksFormat, "one")
	synctest.Test(t, func(t *testing.T) {
		known := &watched.Value[issuers.Sets]{}
		known.Set(issuers.Sets{"users": {URL: "unix:///nowhere", JWKS: []byte(set), Fetched: time.Unix(1, 0)}})
		k := keysOf(known, func() []jwt.Issuer { asked.Add(1); return list }, func() {})
		ctx, end := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		if f := k.Failing()["users"]; f.Err == "" || !f.Fetched.Equal(time.Unix(1, 0)) || served(k, list) != set {
			t.Errorf("%+v, served %s", f, served(k, list))
		}
		if n := asked.Load() - 1; n < 6 || n > 8 { // once to see that there are no load balancers
			t.Errorf("tried %d times in a minute", n)
		}
		end()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A restart is no reason to ask an issuer again, also where its keys have not changed since.
func TestKeysThatAreNotDueAreNotFetchedBecauseOfARestart(t *testing.T) {
	list := []jwt.Issuer{{Name: "tasks", Issuer: "https://tasks.example", JWKSURL: "unix:///nowhere", Refresh: time.Hour}}
	set := []byte(fmt.Sprintf(jwksFormat, "one"))
	path := filepath.Join(t.TempDir(), "issuers.json")
	open := func() *shared.File[issuers.Sets] {
		f, err := issuers.OpenFile(path, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	synctest.Test(t, func(t *testing.T) {
		for _, fetched := range []time.Time{time.Now().Add(-50 * time.Minute), time.Now().Add(-20 * time.Minute)} { // the same keys
			before := open()
			before.Update(func(issuers.Sets) issuers.Sets {
				return issuers.Sets{"tasks": {URL: "unix:///nowhere", JWKS: set, Fetched: fetched}}
			})
			ended, end := context.WithCancel(t.Context())
			end()
			if err := before.Run(ended); err != nil {
				t.Error(err)
			}
		}
		k := keysOf(open(), func() []jwt.Issuer { return list }, func() {})
		ctx, end := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		time.Sleep(39 * time.Minute)
		synctest.Wait()
		if f := k.Failing(); len(f) > 0 || served(k, list) != string(set) {
			t.Errorf("it was tried: %v", f)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if f := k.Failing(); len(f) != 1 {
			t.Error("after an hour it was not tried")
		}
		end()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
