package e2e

import (
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/test/meshtest"
)

// received collects the serials of every certificate that a client got.
type received struct {
	mu      sync.Mutex
	serials map[string]bool
}

func (r *received) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.serials)
}

// ask for n certificates in one batch, and note those that came.
func (r *received) ask(t *testing.T, h *meshtest.Host, n int) {
	var csrs [][]byte
	for range n {
		csrs = append(csrs, meshtest.CSR(t, meshtest.Key(t)))
	}
	leaves, _ := h.Issue(t.Context(), "record", csrs...) // a server that is being killed answers with errors
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, leaf := range leaves {
		r.serials[meshtest.SerialText(leaf.SerialNumber)] = true
	}
}

func TestNoCertificateWithoutARecordThoughServerAndSignerAreKilled(t *testing.T) {
	kills := meshtest.Soak(15, 200)
	w := meshtest.Start(t, meshtest.Options{
		NoAgent: true, Lifetime: time.Hour,
		Manifests: "apiVersion: signet.example/v1alpha1\nkind: Entry\nmetadata: {name: record}\nspec: {group: hosts, spiffeID: \"spiffe://test.example/test/record\", selectors: [\"unix:uid:1\"]}\n",
	})
	h := w.JoinHost()
	got := &received{serials: map[string]bool{}}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					got.ask(t, h, 1+i%4*3)
				}
			}
		})
	}
	for i := range kills {
		before := got.count()
		eventually(t, 20*time.Second, "issuance goes on", func() bool { return got.count() > before })
		time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond) // anywhere within an issuance
		killOne(t, w, i)
	}
	close(stop)
	wg.Wait()
	state := map[string]api.Cert_State{}
	for _, c := range certs(t, w, true) {
		state[c.GetSerial()] = c.GetState()
	}
	without := 0
	for serial := range got.serials {
		if s, ok := state[serial]; !ok || s == api.Cert_RESERVED {
			without++
			t.Errorf("serial %s was received and its record is %s", serial, s)
		}
	}
	t.Logf("%d kills: %d certificates received, %d without a record, %d in the log", kills, len(got.serials), without, len(state))
}

// killOne kills the signer, the server, or both, in turn.
func killOne(t *testing.T, w *meshtest.World, turn int) {
	t.Helper()
	signer := childPID(t, w.Server.PID(), "signer")
	if signer == 0 && turn%3 == 0 {
		t.Fatal("the server has no signer")
	}
	if turn%3 != 1 && signer != 0 { // the server starts another
		if err := syscall.Kill(signer, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if turn%3 != 0 { // the signer ends with it
		w.KillServer()
		w.StartServer()
	}
}
