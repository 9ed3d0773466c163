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

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"signet.example/proxy"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// floodPerSecond is how often each socket is tried: the promise is about 2,000.
const floodPerSecond = 2200

// flood tries a socket all the time: connections, and calls on them.
func (q question) flood() told {
	var tries atomic.Int64
	end := time.Now().Add(q.For)
	pace := rate.NewLimiter(floodPerSecond, 50)
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for time.Now().Before(end) {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				if n == 0 {
					_ = pace.Wait(ctx) // it ends with ctx
					if c, err := (&net.Dialer{}).DialContext(ctx, "unix", q.Socket); err == nil {
						_, _ = c.Write([]byte("nothing"))
						_ = c.Close()
					}
					tries.Add(1)
				} else {
					tries.Add(q.calls(ctx, pace))
				}
				cancel()
			}
		})
	}
	wg.Wait()
	return told{Code: "OK", Tries: int(tries.Load())}
}

// calls makes some on one connection, while it is one.
func (q question) calls(ctx context.Context, pace *rate.Limiter) int64 {
	conn, err := grpc.NewClient("unix:"+q.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 1
	}
	defer func() { _ = conn.Close() }()
	const most = 50
	var out told
	for n := range int64(most) {
		if pace.Wait(ctx) != nil {
			return n
		}
		var err error
		switch filepath.Base(q.Socket) {
		case "xds.sock":
			err = q.xds(ctx, conn, &out)
		case "workload.sock":
			err = q.workload(ctx, conn, &out)
		case "signer.sock":
			err = q.sign(ctx, conn, &out)
		default:
			err = q.authz(ctx, conn, &out)
		}
		if status.Code(err) == codes.Unavailable {
			return n + 1 // it was closed: the next call would only be told so
		}
	}
	return most
}

// TestStrangersAtTheSocketsNeitherFillTheDiskNorDisturb has a user of no rights
// try every socket of the host at once.
func TestStrangersAtTheSocketsNeitherFillTheDiskNorDisturb(t *testing.T) {
	w := peersMesh(t, func(o *meshtest.Options) { o.SignerUID, o.ServerUID = signerUID, serverUID })
	length := 4 * time.Second
	if parts.Soak() {
		length = time.Minute
	}
	sockets := []string{w.Socket(), w.SignerSocket()}
	for _, name := range []string{"xds.sock", "workload.sock", "authz.sock", "wayout.sock"} {
		sockets = append(sockets, filepath.Join(w.AgentDir(), name))
	}
	sizes := func() (log, store int64) {
		for _, name := range []string{"agent.log", "server.log", "signer.log"} {
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
			q := question{Do: "flood", Socket: s, For: length, Times: 1, Node: proxy.Node("test", "front").String(), Destination: "spiffe://test.example/test/orders", Header: []string{"true"}}
			tries[i] = askAs(t, nobodyUID, q)[0].Tries
		})
	}
	served, failed, worst := 0, 0, time.Duration(0)
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		begun := time.Now()
		if status, err := rawCall(w.Nodes["front"].EgressAddress(), "/orders"); err != nil || status != 200 {
			failed++
			// On a machine that does other things as well, who may call out is not always found
			// within the second that Envoy waits.
			if took := time.Since(begun); took < 900*time.Millisecond {
				t.Errorf("a call was refused after %s: %d, %v", took, status, err)
			}
		} else {
			served++
		}
		worst = max(worst, time.Since(begun))
	}
	wg.Wait()
	logNow, storeNow := sizes()
	for i, n := range tries {
		t.Logf("%s: %d attempts, %.0f/s", filepath.Base(sockets[i]), n, float64(n)/length.Seconds())
	}
	t.Logf("%d sockets, %s: logs grew by %d bytes, the store by %d; %d calls served, %d not, the slowest %s", len(sockets), length, logNow-log, storeNow-store, served, failed, worst)
	if failed*20 > served {
		t.Errorf("%d of %d calls failed", failed, served+failed)
	}
	if logNow-log > 1<<20 || storeNow-store > 1<<20 {
		t.Errorf("logs grew by %d bytes, the store by %d", logNow-log, storeNow-store)
	}
	addresses, err := w.Addresses(w.AgentDir())
	if err != nil {
		t.Fatal(err)
	}
	page := get(t, "http://"+addresses.Metrics+"/metrics")
	for _, socket := range []string{"xds", "workload", "authz", "wayout"} {
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
