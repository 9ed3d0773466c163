package corpus

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// BodyHeader is where HTTP1 leaves the body that it has read.
const BodyHeader = "Test-Body"

// patience bounds one request.
const patience = 3 * time.Second

// HTTP1 writes a request's bytes as they are and reads the answer with its body;
// nil where there is none.
func HTTP1(t testing.TB, conn net.Conn, request string) *http.Response {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		return nil // refused by closing
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil
	}
	var body bytes.Buffer
	_, _ = body.ReadFrom(resp.Body) // what there is
	_ = resp.Body.Close()
	resp.Body = http.NoBody
	resp.Header.Set(BodyHeader, body.String())
	return resp
}

// Status of an answer; 0 for none.
func Status(r *http.Response) int {
	if r == nil {
		return 0
	}
	return r.StatusCode
}

// HTTP2 sends one request as frames, since no client library would send these,
// and gives the status; 0 for none.
func HTTP2(t testing.TB, conn net.Conn, fields ...[2]string) int {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return 0
	}
	f := http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, h := range fields {
		if err := e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			t.Fatal(err)
		}
	}
	if f.WriteSettings() != nil || f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}) != nil {
		return 0
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return 0
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			var code int
			_, _ = fmt.Sscanf(frame.PseudoValue("status"), "%d", &code)
			return code
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return 0
		}
	}
}
