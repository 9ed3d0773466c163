package xdstest_test

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"signet.example/test/corpus"
)

func TestAPoolBoundsWhatTheApplicationGetsAtOnce(t *testing.T) {
	in := startInbound(t, strings.Replace(orders, "protocol: http}", "protocol: http}\n      connectionPool: {http: {maxConnections: 1, maxPendingRequests: 1}}", 1))
	hold := make(chan struct{})
	in.app.hold = hold
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		over []*http.Response
		ok   int
	)
	// One is under way, and one waits: the first, until it has a connection.
	const asked = 6
	for range asked {
		wg.Go(func() {
			r := raw(t, in.addr, "GET /held HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n")
			mu.Lock()
			defer mu.Unlock()
			if corpus.Status(r) == 200 {
				ok++
			} else {
				over = append(over, r)
			}
		})
	}
	eventually(t, "most do not fit", func() bool { mu.Lock(); defer mu.Unlock(); return len(over) >= asked-2 })
	close(hold)
	wg.Wait()
	if ok < 1 || ok > 2 {
		t.Errorf("%d were served, want the one under way and at most one that waited", ok)
	}
	for _, r := range over {
		// It was not served, and whoever asked may ask again.
		if corpus.Status(r) != http.StatusServiceUnavailable || r.Header.Get("X-Signet-Not-Served") != "true" {
			t.Errorf("overflow: %v", r)
		}
	}
}

func TestAnEndpointThatAnswersWithErrorsIsLeftAloneForAWhile(t *testing.T) {
	broken := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	const service = "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: shop}\nspec: {awsName: shop.internal, provider: {virtualNode: {virtualNodeRef: {name: shop}}}}\n"
	listener := plain("http") + ", outlierDetection: {maxServerErrors: 3, interval: {unit: ms, value: 100}, baseEjectionDuration: {unit: ms, value: 1500}, maxEjectionPercent: 50}"
	c := startCaller(t, service, []string{"shop"}, callee{"shop", listener, answers("good")}, callee{"shop", listener, broken})
	calls := func(n int) (failed int) {
		for range n {
			if r := raw(t, c.out, "GET http://shop.internal/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); corpus.Status(r) != 200 {
				failed++
			}
		}
		return failed
	}
	// Half of them would fail; Envoy needs a moment after the third.
	if failed := calls(60); failed < 3 || failed > 20 {
		t.Errorf("%d of 60 calls failed, want 3 and a few: after them the endpoint is left alone", failed)
	}
	if failed := calls(10); failed != 0 {
		t.Errorf("%d of 10 calls failed while the endpoint is left alone", failed)
	}
	eventually(t, "the endpoint is tried again", func() bool { return calls(1) == 1 })
}

// The application answers late, or stops in the middle.
func TestACallEndsWhenItsRouteOrItsTargetSaysSo(t *testing.T) {
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stops" {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush() // the caller sees the headers
		}
		select {
		case <-time.After(3 * time.Second):
		case <-r.Context().Done():
		}
	})
	const services = `---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualRouter
metadata: {name: shop}
spec:
  listeners: [{portMapping: {port: PORT, protocol: http}}]
  routes:
    - name: late
      httpRoute: {match: {prefix: /late}, timeout: {perRequest: {unit: ms, value: 300}}, action: {weightedTargets: [{virtualNodeRef: {name: shop}, weight: 1}]}}
    - name: stops
      httpRoute: {match: {prefix: /stops}, timeout: {perRequest: {unit: s, value: 20}, idle: {unit: ms, value: 300}}, action: {weightedTargets: [{virtualNodeRef: {name: shop}, weight: 1}]}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: shop}
spec: {awsName: shop.internal, provider: {virtualRouter: {virtualRouterRef: {name: shop}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: own}
spec: {awsName: own.internal, provider: {virtualNode: {virtualNodeRef: {name: own}}}}
`
	c := startCaller(t, services, []string{"shop", "own"}, callee{"shop", plain("http"), slow},
		callee{"own", plain("http") + ", timeout: {http: {perRequest: {unit: ms, value: 400}}}", slow})
	port := strconv.FormatUint(uint64(c.port), 10)
	for url, want := range map[string]int{"shop.internal:" + port + "/late": 504, "shop.internal:" + port + "/stops": 200, "own.internal/": 504} {
		began := time.Now()
		r := raw(t, c.out, "GET http://"+url+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		_, _ = io.ReadAll(r.Body) // it is cut off where it stops
		if took := time.Since(began); corpus.Status(r) != want || took < 250*time.Millisecond || took > 2500*time.Millisecond {
			t.Errorf("%s: %d after %s, want %d", url, corpus.Status(r), took, want)
		}
	}
}
