package agent

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"signet.example/agent/resources/resourcestest"
	"signet.example/agent/svids"
	"signet.example/agent/svids/svidstest"
	"signet.example/api"
)

func TestAnIdentityThatIsGrantedNoLongerIsForgotten(t *testing.T) {
	root, log := svidstest.NewRoot(t), slog.New(slog.DiscardHandler)
	u := &upstream{enrol: &enrolment{dir: &dataDir{path: t.TempDir()}}, keeper: svids.NewKeeper(nil, newMetrics().svids, log), log: log}
	u.enrol.keep(root.Trust(1), "one")
	u.keeper.Install(root.SVID(svids.Own, "/signet/agent/one"))
	for _, path := range []string{"/kept", "/gone"} {
		u.keeper.Install(root.SVID(path, path))
	}
	u.apply(t.Context(), resourcestest.Set(t, &api.Entry{Name: "/kept", SpiffeId: "spiffe://test.example/kept", Selectors: []string{"unix:uid:1"}}), nil)
	if u.keeper.Get("/gone") != nil || u.keeper.Get("/kept") == nil || u.keeper.Get(svids.Own) == nil {
		t.Errorf("held: %v", u.keeper.Held())
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
	log, m := slog.New(slog.DiscardHandler), newMetrics()
	u := &upstream{conn: conn, keeper: svids.NewKeeper(nil, m.svids, log), metrics: m, log: log}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := u.watchConnection(ctx); err != nil {
		t.Error(err)
	}
	if n := taken.Load(); n < 2 || n > 20 {
		t.Errorf("%d connections within a second", n)
	}
}
