package upstream

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"signet.example/ads"
	"signet.example/agent/resources"
	"signet.example/agent/resources/resourcestest"
	"signet.example/agent/svids"
	"signet.example/agent/svids/svidstest"
	"signet.example/api"
	"signet.example/internal/watched"
)

// known is the standing of a host that is asked for nothing.
type known struct{ trust *svids.Trust }

func (k *known) Trust() *svids.Trust { return k.trust }
func (k *known) Keep(t *svids.Trust) { k.trust = t }
func (k *known) Renew(context.Context) (*svids.SVID, error) {
	return nil, errors.New("not asked for")
}

func TestAnIdentityThatIsGrantedNoLongerIsForgotten(t *testing.T) {
	root, log := svidstest.NewRoot(t), slog.New(slog.DiscardHandler)
	keeper := svids.NewKeeper(nil, svids.NewMetrics(prometheus.NewRegistry()), log)
	u := New(Config{Keeper: keeper, Standing: &known{trust: root.Trust(1)}, State: &watched.Value[*resources.Snapshot]{}, Check: resources.OfProcesses, Log: log})
	keeper.Install(root.SVID(svids.Own, "/signet/agent/one"))
	for _, path := range []string{"/kept", "/gone"} {
		keeper.Install(root.SVID(path, path))
	}
	u.apply(t.Context(), resourcestest.Set(t, &api.Entry{Name: "/kept", SpiffeId: "spiffe://test.example/kept", Selectors: []string{"unix:uid:1"}}), nil)
	if keeper.Get("/gone") != nil || keeper.Get("/kept") == nil || keeper.Get(svids.Own) == nil {
		t.Errorf("held: %v", keeper.Held())
	}
}

// A balancer in front of no server at all takes connections and closes them.
func TestConnectionsThatEndAtOnceAreNotTriedWithoutPause(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	var taken atomic.Int64
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			taken.Add(1)
			_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
			_ = http2.NewFramer(c, nil).WriteSettings() // the handshake is done
			time.AfterFunc(5*time.Millisecond, func() { _ = c.Close() })
		}
	}()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	log := slog.New(slog.DiscardHandler)
	u := New(Config{
		Conn: conn, Keeper: svids.NewKeeper(nil, svids.NewMetrics(prometheus.NewRegistry()), log), Connected: &watched.Value[bool]{}, Check: resources.OfProcesses,
		Up: prometheus.NewGauge(prometheus.GaugeOpts{Name: "up"}), Log: log,
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := u.watchConnection(ctx); err != nil {
		t.Error(err)
	}
	if n := taken.Load(); n < 2 || n > 20 {
		t.Errorf("%d connections within a second", n)
	}
}

func TestARootSetIsFollowedIfItIsNewerAndOfTheSameKey(t *testing.T) {
	root, other := svidstest.NewRoot(t), svidstest.NewRoot(t)
	now := root.Trust(5)
	for name, c := range map[string]struct {
		doc  []byte
		want uint64
		err  bool
	}{
		"the next":           {root.RootSet(6, root.Cert, other.Cert), 6, false},
		"the same again":     {root.RootSet(5, root.Cert), 5, false},
		"an older one":       {root.RootSet(4, root.Cert, other.Cert), 5, false},
		"one of another key": {other.RootSet(6, other.Cert), 5, true},
	} {
		r, err := ads.NewResource(ads.BundleType, svidstest.Domain.Name(), &api.Bundle{TrustDomain: svidstest.Domain.Name(), SignedRootSet: c.doc})
		if err != nil {
			t.Fatal(err)
		}
		set, err := ads.NewSet(r)
		if err != nil {
			t.Fatal(err)
		}
		next, err := followed(now, set)
		if (err != nil) != c.err || next.Roots.Number != c.want {
			t.Errorf("%s: number %d, %v", name, next.Roots.Number, err)
		}
	}
}
