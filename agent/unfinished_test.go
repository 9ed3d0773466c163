package agent_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc/codes"

	"signet.example/api"
	"signet.example/test/parts"
)

// unfinished sends messages of that length that never end, 32 on each of so many
// connections of a socket, and returns in how many bytes.
func unfinished(t *testing.T, socket, method string, conns, length, piece int) int {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	all := 0
	for range conns {
		var d net.Dialer
		c, err := d.DialContext(t.Context(), "unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() }) // it may be closed
		wg.Go(func() {
			sent, _ := parts.Unfinished(c, method, 32, length, piece) // the other end may close it
			mu.Lock()
			all += sent
			mu.Unlock()
		})
	}
	wg.Wait()
	return all
}

// TestMessagesThatNeverEndTakeNoMemoryOfTheAgent sends them as a process that is
// nothing here, to each socket, in large pieces and in small ones.
func TestMessagesThatNeverEndTakeNoMemoryOfTheAgent(t *testing.T) {
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{entry("one", "/shop/one", self(t)), binding("web", "web", "unix:path:/bin/other")}
	})
	r.ready()
	before := memory()
	for _, s := range []struct {
		socket, method string
		length, piece  int
	}{
		{"wayout.sock", authv3.Authorization_Check_FullMethodName, 64<<10 - 5, 16 << 10},
		{"wayout.sock", authv3.Authorization_Check_FullMethodName, 64<<10 - 5, 16},
		{"workload.sock", workloadpb.SpiffeWorkloadAPI_FetchX509SVID_FullMethodName, 64<<10 - 5, 16 << 10},
		{"xds.sock", discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName, 1<<20 - 5, 16 << 10},
	} {
		conns := 24
		if s.piece < 100 {
			conns = 4
		}
		sent := unfinished(t, filepath.Join(r.dir, s.socket), s.method, conns, s.length, s.piece)
		held := memory() - before
		t.Logf("%s: in pieces of %d, %d MiB were sent, and %d MiB are held", s.socket, s.piece, sent>>20, held>>20)
		if held > 64<<20 {
			t.Errorf("%s: %d MiB are held", s.socket, held>>20)
		}
		if err := r.fetchNow(); err != nil {
			t.Errorf("beside them: %v", err)
		}
	}
	r.await("the log tells it", func() bool { return strings.Contains(r.log.String(), "too much was sent that is not whole") })
}

// fetchNow gets what this process is, as an application does.
func (r *rig) fetchNow() error {
	_, err := r.fetchOnce()
	return err
}

// memory is what this process, in which the agent runs, has in use.
func memory() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse) //nolint:gosec // below a terabyte
}

func TestAProxysMessagesThatNeverEndTakeNoMemoryOfTheAuthzProcess(t *testing.T) {
	r, allow, client := newAuthzRig(t)
	sent := unfinished(t, filepath.Join(r.dir, "authz.sock"), authv3.Authorization_Check_FullMethodName, 40, 1<<20-5, 16<<10)
	held := resident(t, authzPID(t))
	t.Logf("%d MiB were sent, and the authz process has %d MiB", sent>>20, held>>20)
	if held > 700<<20 { // 112 without the race detector; of 1,280 that would be held
		t.Errorf("the authz process has %d MiB", held>>20)
	}
	if c, _, err := r.check(client, "GET", allow.GetId()); err != nil || c != codes.OK {
		t.Errorf("a call beside them: %v %v", c, err)
	}
}

// resident is the memory of a process.
func resident(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(kb), " kB"))
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
