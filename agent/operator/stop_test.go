package operator_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"signet.example/agent/envoy"
	"signet.example/agent/operator"
)

// TestWhoIsToldBeforeItsApplicationWaitsForItsOwnEnd: ECS tells a proxy's container when the application has ended.
func TestWhoIsToldBeforeItsApplicationWaitsForItsOwnEnd(t *testing.T) {
	t.Parallel()
	log, order := slog.New(slog.DiscardHandler), &envoy.StopOrder{}
	if order.Early() {
		t.Error("early, and nobody was told")
	}
	socket := filepath.Join(t.TempDir(), "stop.sock")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	told, tell := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	serving, end := context.WithCancel(t.Context())
	go func() {
		ended <- operator.Stop{Order: order, Proxies: envoy.New(envoy.Config{Log: log}).Status, Log: log}.Serve(serving, l, tell)
	}()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for range 2 { // asked again it is the same
		r, err := client.Post("http://agent/", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, r.Body) // it has none
		_ = r.Body.Close()                 // the same
	}
	<-told.Done()
	if !order.Early() {
		t.Error("not early, and only the socket was told")
	}
	order.End()
	if order.Early() {
		t.Error("early, and the container itself was told")
	}
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
