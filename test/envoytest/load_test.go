package envoytest_test

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"signet.example/test/envoytest"
)

// stalls serves nobody until it is let, and each hundredth then with a failure.
func stalls(t *testing.T) (url string, let func()) {
	t.Helper()
	gate := make(chan struct{})
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		<-gate
		if n.Add(1)%100 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, func() { close(gate) }
}

func status(code int, _ http.Header, _ string) string {
	if code == http.StatusOK {
		return ""
	}
	return strconv.Itoa(code)
}

// What waits is sent when there is room, and each failure counts.
func TestALoadMakesUpForAStallAndHidesNoFailure(t *testing.T) {
	url, let := stalls(t)
	run := envoytest.Load{URL: url, Rate: 1000, MaxInFlight: 8, CatchUp: true, Check: status}.Start(t.Context())
	for run.Report().Behind < 400 {
		time.Sleep(time.Millisecond)
	}
	if sent, failed := run.Counts(); sent != 0 || failed != 0 {
		t.Fatalf("%d of %d failed before anybody was served", failed, sent)
	}
	let()
	for sent := 0; sent < 1000; sent, _ = run.Counts() {
		time.Sleep(time.Millisecond)
	}
	if r := run.Stop(); r.Skipped != 0 || r.Failed != r.Sent/100 || r.Reasons["503"] != r.Failed {
		t.Errorf("%s", r)
	}
}

// Without it the load is what was asked for, or says that it is not.
func TestALoadThatMakesUpForNothingCountsWhatItSkipped(t *testing.T) {
	url, let := stalls(t)
	run := envoytest.Load{URL: url, Rate: 1000, MaxInFlight: 8}.Start(t.Context())
	for run.Report().Skipped < 400 {
		time.Sleep(time.Millisecond)
	}
	let()
	if r := run.Stop(); r.Sent < 8 || r.Behind != 0 {
		t.Errorf("%s", r)
	}
}
