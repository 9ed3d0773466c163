package envoy

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"signet.example/internal/sampled"
)

// They were lost without a word, by the agent in a task's standard output and by Envoy in a file.
func TestLostLinesOfAccessLogsAreCountedAndSaidOnceAMinute(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = full.Close() }() // nothing is in it
	var failed atomic.Pointer[string]
	socket := filepath.Join(t.TempDir(), "a.sock")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, *failed.Load()) // the test sees what was read
	})}}
	srv.Start()
	t.Cleanup(srv.Close)

	var log bytes.Buffer
	metrics := NewMetrics(prometheus.NewRegistry())
	e := &envoy{
		proxy: Proxy{Name: "web"}, config: Config{AccessLogs: full, Metrics: metrics}, admin: newAdmin(socket),
		log: slog.New(slog.NewTextHandler(&log, nil)), lost: sampled.Budget{Most: 1, PerKey: 1, Window: time.Minute},
	}
	count := metrics.logsLost.WithLabelValues("web")
	for range 3 {
		e.accessLog(t.Context(), `{"path": "/"}`)
	}
	if n := testutil.ToFloat64(count); n != 3 {
		t.Errorf("%v of 3 lines are counted", n)
	}
	for _, x := range []struct {
		page string
		want float64
	}{
		{"", 3}, {"filesystem.write_failed: 2\n", 5}, {"filesystem.write_failed: 2\n", 5}, {"filesystem.write_failed: 7\n", 10},
	} {
		failed.Store(&x.page)
		e.readCounters(t.Context())
		if n := testutil.ToFloat64(count); n != x.want {
			t.Errorf("%q: %v are counted, want %v", x.page, n, x.want)
		}
	}
	if said := log.String(); strings.Count(said, "access logs are lost") != 1 || !strings.Contains(said, "no space left on device") {
		t.Errorf("the log says:\n%s", said)
	}
}
