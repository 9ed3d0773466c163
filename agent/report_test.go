package agent

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"signet.example/agent/authzproc"
	"signet.example/agent/envoy"
	"signet.example/agent/files"
	"signet.example/agent/relay"
	"signet.example/agent/resources"
	"signet.example/agent/resources/resourcestest"
	"signet.example/agent/svids"
	"signet.example/agent/svids/svidstest"
	"signet.example/agent/wayout"
	"signet.example/api"
	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/internal/watched"
	"signet.example/proxy"
)

func TestOnlyAProxyThatServesIsReady(t *testing.T) {
	for state, ready := range map[api.ProxyStatus_State]bool{api.ProxyStatus_READY: true, api.ProxyStatus_DRAINING: false, api.ProxyStatus_STARTING: false} {
		r := &reporter{relay: &relay.Relay{}, proxyStatus: func() []envoy.Status { return []envoy.Status{{Proxy: envoy.Proxy{Name: "web"}, State: state}} }}
		if r.Ready("web") != ready || r.Ready("other") {
			t.Errorf("%s: %v", state, r.Ready("web"))
		}
	}
}

// runningRelay is one whose server never answers, for a host with these bindings.
func runningRelay(t *testing.T, keeper *svids.Keeper, authz *authzproc.Process, bindings ...*api.Entry) *relay.Relay {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///nobody", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	state := &watched.Value[*resources.Snapshot]{}
	state.Set(resources.New(svidstest.Domain, resourcestest.Set(t, bindings...), nil, nil, resources.OfProcesses))
	r := relay.New(relay.Config{
		Conn: conn, Connected: &watched.Value[bool]{}, State: state, Trust: &watched.Value[*svids.Trust]{}, SVIDs: keeper, Policies: authz, Drain: time.Second,
		CheckApp: wayout.CheckApp, Stay: func(*attestation.Peer) {}, Refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "refused"}), Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		_ = conn.Close() // nobody answered
	})
	return r
}

// A supervisor's shape is that of the file: what an Envoy's program says of its version is in
// the view's alone, which is what everything about the proxy is looked up by.
func TestWhoMayCallOutIsAskedOfTheShapeThatTheServerKnows(t *testing.T) {
	authz, err := authzproc.New(authzproc.Config{})
	if err != nil {
		t.Fatal(err)
	}
	keeper := svids.NewKeeper(nil, svids.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	selector := identity.Selector{Type: "signet", Value: "proxy:web"}
	bound := &api.Entry{
		Name: "binding/web", SpiffeId: "spiffe://test.example/shop/web", Selectors: []string{selector.String()},
		VirtualNode: &api.VirtualNodeRef{Mesh: "shop", Name: "web"},
	}
	r := runningRelay(t, keeper, authz, bound)
	ofTheFile := envoy.Proxy{Name: "web", Ref: proxy.Node("shop", "web"), Shape: proxy.Shape{Bind: "127.0.0.9", App: "127.0.0.1"}}
	known := ofTheFile.Shape
	known.EnvoyVersion = "1.40.0"
	r.Configure(ofTheFile.Name, ofTheFile.Ref, known)
	if _, err := r.ForProxy(t.Context(), ofTheFile.Name, identity.Selectors{selector}); err != nil {
		t.Fatal(err)
	}

	reports := &reporter{
		state: &watched.Value[*resources.Snapshot]{}, keeper: keeper, relay: r, authz: authz, files: files.New(files.Parts{}),
		proxyStatus: func() []envoy.Status {
			return []envoy.Status{{Proxy: ofTheFile, State: api.ProxyStatus_READY, Version: known.EnvoyVersion, Failing: []uint32{8080}}}
		},
		speaker: func(sh proxy.Shape, uid uint32, as svids.Name) wayout.Speaker {
			if sh != known || uid != ofTheFile.UID() || as.Entry != bound.GetName() {
				t.Errorf("asked of %+v, user %d, %v", sh, uid, as)
			}
			return wayout.Speaker{Who: "user 1000"}
		},
	}
	got := reports.Report().GetProxies()
	if len(got) != 1 || !slices.Equal(got[0].GetFailing(), []uint32{8080}) || got[0].GetSpeaker() != "user 1000" || got[0].GetEnvoyVersion() != known.EnvoyVersion {
		t.Errorf("reported: %v", got)
	}
}
