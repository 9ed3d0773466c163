package ads_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"signet.example/ads"
)

// gRPC measures connections whose windows are not fixed: it pings after what it receives, so
// that a push is twice as many writes and reads at both ends.
func TestNeitherEndPingsBecauseOfWhatItReceives(t *testing.T) {
	w := newWorld(t, ads.Relay, ads.ServerOptions(nil)...)
	c := w.connect(true)
	for i := range 20 {
		w.publish(res(t, cds, "c", fmt.Sprint(i, strings.Repeat("x", 50_000))))
		if i == 0 {
			c.subscribe(cds, "*")
		}
		c.ack(c.of(cds))
	}
	for end := time.Now().Add(patience); w.count(ads.Acked) < 20 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	w.wire.mu.Lock()
	defer w.wire.mu.Unlock()
	got, sent := frames(t, w.wire.got.Bytes()), frames(t, w.wire.sent.Bytes()[len(http2.ClientPreface):])
	if got[http2.FrameData] < 20 || sent[http2.FrameData] < 20 {
		t.Fatalf("frames from the server %v, to it %v", got, sent)
	}
	if got[http2.FramePing]+sent[http2.FramePing] > 0 {
		t.Errorf("%d pings from the server, %d to it", got[http2.FramePing], sent[http2.FramePing])
	}
}

// frames counts those of b by type; the last may be cut off.
func frames(t *testing.T, b []byte) map[http2.FrameType]int {
	t.Helper()
	n, f := map[http2.FrameType]int{}, http2.NewFramer(nil, bytes.NewReader(b))
	for {
		frame, err := f.ReadFrame()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		n[frame.Header().Type]++
	}
}

