package xdstest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"signet.example/ads"
	"signet.example/test/envoytest"
	"signet.example/test/invariants"
	xdstest "signet.example/test/xds"
	"signet.example/xds"
)

// proxy is a real Envoy that is served one view by our own ADS server.
type running struct {
	t     *testing.T
	view  *ads.View
	envoy *envoytest.Envoy
	edit  func(*ads.Resource) *ads.Resource // of what was built, where a test must; nil leaves it out
}

// View makes the view every client's.
func (p *running) View(context.Context, *corev3.Node) (*ads.View, error) { return p.view, nil }

// loopback is an address of the test's own, so that tests may run side by side.
func loopback() string {
	return fmt.Sprintf("127.%d.%d.%d", 64+rand.IntN(128), rand.IntN(256), 2+rand.IntN(250))
}

// startProxy runs Envoy with what c describes and the secrets that it names.
func startProxy(t *testing.T, c xdstest.Case, pki *pki) *running {
	t.Helper()
	return startEdited(t, c, pki, func(r *ads.Resource) *ads.Resource { return r })
}

func startEdited(t *testing.T, c xdstest.Case, pki *pki, edit func(*ads.Resource) *ads.Resource) *running {
	t.Helper()
	p := &running{t: t, view: ads.NewView(c.Name, ads.Proxy), edit: edit}
	dir := socketDir(t)
	g := grpc.NewServer(ads.ServerOptions(nil)...)
	(&ads.Server{Views: p}).Register(g)
	l, err := net.Listen("unix", filepath.Join(dir, "xds.sock"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(l) })
	t.Cleanup(func() { g.Stop(); wg.Wait() })
	p.publish(c, pki)

	p.envoy = envoytest.Start(t, envoytest.Config{
		NodeID: c.Ref().String(), Cluster: "test", ADS: filepath.Join(dir, "xds.sock"),
		Args: []string{"--file-flush-interval-msec", "50"},
	})
	p.settle()
	return p
}

// publish builds the view and completes it as an agent would.
func (p *running) publish(c xdstest.Case, pki *pki) {
	p.t.Helper()
	set, err := xds.Build(c.Input, c.Ref(), c.Shape)
	if err != nil {
		p.t.Fatal(err)
	}
	full, err := set.Merge(pki.secrets(p.t, set))
	if err != nil {
		p.t.Fatal(err)
	}
	var edited []*ads.Resource
	for _, typeURL := range full.Types() {
		for _, r := range full.Type(typeURL) {
			if r = p.edit(r); r != nil {
				edited = append(edited, r)
			}
		}
	}
	if full, err = ads.NewSet(edited...); err != nil {
		p.t.Fatal(err)
	}
	p.view.Publish(full)
}

// settle waits until Envoy has acknowledged every resource that it asked for, and that those of
// the view before are gone, which it is told last: of 200 views it had not answered that 178 times
// when all else was acknowledged, and one dump of theirs had a cluster of the view before, for
// 0.6 s. What it has acknowledged each of them showed at once.
func (p *running) settle() {
	p.t.Helper()
	var waiting string
	defer func() {
		if p.t.Failed() {
			p.t.Logf("not acknowledged: %s; refused: %+v", waiting, p.view.Rejected())
		}
	}()
	p.envoy.Wait(p.t, "Envoy has the view", func() bool {
		for _, r := range p.view.Rejected() {
			p.t.Fatalf("Envoy refuses %s: %s", r.Name, r.Message)
		}
		set := p.view.Set()
		for _, typeURL := range set.Types() {
			for _, r := range set.Type(typeURL) {
				if version, n, _ := p.view.Acked(typeURL, r.Name); version != r.Version || n == 0 {
					waiting = r.Name
					return false
				}
			}
		}
		for _, typeURL := range []string{ads.ClusterType, ads.ListenerType} {
			held, _ := p.view.Holding(typeURL) // of a client that has answered nothing, above says so
			for _, r := range held {
				if set.Get(typeURL, r.Name) == nil {
					waiting = "the end of " + r.Name
					return false
				}
			}
		}
		return true
	})
}

// socketDir is short: a Unix socket's path has at most 107 bytes.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "xds")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// sdsNames finds the names of all secrets that a set refers to.
func sdsNames(t *testing.T, set *ads.Set) []string {
	t.Helper()
	var names []string
	var find func(v any)
	find = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if name, ok := v["name"].(string); ok && v["sdsConfig"] != nil {
				names = append(names, name)
			}
			for _, w := range v {
				find(w)
			}
		case []any:
			for _, w := range v {
				find(w)
			}
		}
	}
	for _, typeURL := range []string{ads.ListenerType, ads.ClusterType} {
		for _, r := range set.Type(typeURL) {
			m, err := invariants.Decode(r)
			if err != nil {
				t.Fatal(err)
			}
			j, err := protojson.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			var v any
			if err := json.Unmarshal(j, &v); err != nil {
				t.Fatal(err)
			}
			find(v)
		}
	}
	return names
}
