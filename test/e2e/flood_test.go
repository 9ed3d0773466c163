package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"signet.example/test/parts"
	"signet.example/xds"
)

// flood tries a socket as fast as it goes: connections, and calls on them.
func (q question) flood() told {
	var tries atomic.Int64
	end := time.Now().Add(q.For)
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for time.Now().Before(end) {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				if n == 0 {
					if c, err := (&net.Dialer{}).DialContext(ctx, "unix", q.Socket); err == nil {
						_, _ = c.Write([]byte("nothing"))
						_ = c.Close()
					}
					tries.Add(1)
				} else {
					tries.Add(q.calls(ctx))
				}
				cancel()
			}
		})
	}
	wg.Wait()
	return told{Code: "OK", Tries: int(tries.Load())}
}

// calls makes some on one connection.
func (q question) calls(ctx context.Context) int64 {
	conn, err := grpc.NewClient("unix:"+q.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 1
	}
	defer func() { _ = conn.Close() }()
	const each = 50
	var out told
	for range each {
		switch filepath.Base(q.Socket) {
		case "xds.sock":
			_ = q.xds(ctx, conn, &out)
		case "workload.sock":
			_ = q.workload(ctx, conn, &out)
		default:
			_ = q.authz(ctx, conn, &out)
		}
	}
	return each
}

// TestStrangersAtTheSocketsNeitherFillTheDiskNorDisturb has a user of no rights
// try every socket of the host at once.
func TestStrangersAtTheSocketsNeitherFillTheDiskNorDisturb(t *testing.T) {
	w := peersMesh(t)
	length := 4 * time.Second
	if parts.Soak() {
		length = time.Minute
	}
	sockets := []string{filepath.Join(w.AgentDir(), "xds.sock"), filepath.Join(w.AgentDir(), "workload.sock"), filepath.Join(w.AgentDir(), "authz.sock"), w.Socket()}
	sizes := func() (log, store int64) {
		for _, name := range []string{"agent.log", "server.log"} {
			log += size(t, filepath.Join(w.Dir, name))
		}
		for _, name := range []string{"store.db", "store.db-wal"} {
			store += size(t, filepath.Join(w.ServerDir(), name))
		}
		return log, store
	}
	log, store := sizes()
	var wg sync.WaitGroup
	tries := make([]int, len(sockets))
	for i, s := range sockets {
		wg.Go(func() {
			q := question{Do: "flood", Socket: s, For: length, Node: xds.NodeID("test", "front"), Destination: "spiffe://test.example/test/orders", Header: []string{"true"}}
			tries[i] = askAs(t, nobodyUID, q)[0].Tries
		})
	}
	served, worst := 0, time.Duration(0)
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		begun := time.Now()
		if a := w.Get("front", host+"/orders"); a.Status != 200 {
			t.Errorf("a call meanwhile: %d %s", a.Status, a.Body)
		}
		served++
		worst = max(worst, time.Since(begun))
	}
	wg.Wait()
	logNow, storeNow := sizes()
	t.Logf("%v attempts at %d sockets in %s: logs grew by %d bytes, the store by %d; %d calls, the slowest %s", tries, len(sockets), length, logNow-log, storeNow-store, served, worst)
	if logNow-log > 1<<20 || storeNow-store > 1<<20 {
		t.Errorf("logs grew by %d bytes, the store by %d", logNow-log, storeNow-store)
	}
	addresses, err := w.Addresses(w.AgentDir())
	if err != nil {
		t.Fatal(err)
	}
	page := get(t, "http://"+addresses.Metrics+"/metrics")
	for _, socket := range []string{"xds", "workload", "authz"} {
		if strings.Contains(page, fmt.Sprintf("signet_agent_peers_refused_total{socket=%q} 0\n", socket)) {
			t.Errorf("refusals at %s.sock are not counted", socket)
		}
	}
	if n := strings.Count(page, "\n"); n > 600 {
		t.Errorf("%d lines of metrics", n)
	}
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		return 0 // not there yet
	}
	return fi.Size()
}
