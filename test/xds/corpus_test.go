package xdstest_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"signet.example/test/envoytest"
)

// The applications that stand behind proxies read paths in different ways.
// Each takes a request target as it arrived and says what it would serve.
var readings = map[string]func(string) string{
	"Go ServeMux": func(target string) string {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return ""
		}
		return path.Clean(u.Path)
	},
	"strips ;parameters": func(target string) string {
		p, _, _ := strings.Cut(target, "?")
		var segments []string
		for s := range strings.SplitSeq(p, "/") {
			s, _, _ = strings.Cut(s, ";")
			segments = append(segments, s)
		}
		return path.Clean(strings.Join(segments, "/"))
	},
	"decodes once, then resolves": func(target string) string {
		p, _, _ := strings.Cut(target, "?")
		return path.Clean(strings.ReplaceAll(unescape(p), `\`, "/"))
	},
	"decodes once, then strips ;parameters": func(target string) string {
		p, _, _ := strings.Cut(target, "?")
		var segments []string
		for s := range strings.SplitSeq(unescape(p), "/") {
			s, _, _ = strings.Cut(s, ";")
			segments = append(segments, s)
		}
		return path.Clean(strings.Join(segments, "/"))
	},
	"decodes twice": func(target string) string {
		p, _, _ := strings.Cut(target, "?")
		return path.Clean(unescape(unescape(p)))
	},
}

// unescape is careless, as some applications are: it takes %u escapes and
// overlong UTF-8 for what was meant, and leaves what it does not understand.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		var c byte
		switch {
		case i+6 <= len(s) && strings.EqualFold(s[i:i+2], "%u") && hex(s[i+2:i+6], &c):
			i += 5
		case i+3 <= len(s) && s[i] == '%' && hex(s[i+1:i+3], &c):
			i += 2
		default:
			c = s[i]
		}
		b.WriteByte(c)
	}
	return strings.NewReplacer("\xc0\xae", ".", "\xc0\xaf", "/", "\xe0\x80\xae", ".", "\xe0\x80\xaf", "/").Replace(b.String())
}

func hex(s string, into *byte) bool {
	var n uint32
	if _, err := fmt.Sscanf(s, "%x", &n); err != nil || strings.Trim(s, "0123456789abcdefABCDEF") != "" {
		return false
	}
	*into = byte(n)
	return true
}

// ours are paths beside the shared corpus.
var ours = []string{
	"/x/%2E%2E;/admin", "/x/..;/admin", "/;/admin", "/;a=b/admin", "/x;/../admin", "/x/%2e%2e;a/admin",
	"/%61%64%6d%69%6e", "/x/%25%32%65%25%32%65/admin", "/%25%61dmin", "/x%3b/../admin", "/x/..%3b/admin", "/x/%2e%2e%3b/admin",
	"/x/%c0%ae%c0%ae/admin", "/x/%e0%80%ae%e0%80%ae/admin", "/x/%f0%80%80%ae/admin", "/x/..%c0%afadmin", "/x/..%255cadmin", "/x/..%5cadmin",
	`/x\..\admin`, `\admin`, `/\admin`, "/.//admin", "/x/.../../admin", "/%u0061dmin", "/%uff0fadmin", "/%", "/%2", "/%zzadmin", "/x/%00/../admin",
	"/x%0a/../admin", "/x%09", "/x/%7f/../admin", "//admin/", "/x/..//admin", "/x/%2e%2e//admin", "/ok?x=/../admin", "/ok%20here", "/C%23", "/caf%C3%A9",
	"/%ED%A0%80admin", "/%F4%90%80%80", "/%ff/admin", "http://h/x/..;/admin", "http://h//admin", "/?/../admin", "/#/../admin", "/x/.;/../admin", "/x/..;a/..;b/admin",
}

// mustPass are ordinary: a refusal that refuses these would be easy, and useless.
var mustPass = map[string]bool{"/ok?x=/../admin": true, "/ok%20here": true, "/C%23": true, "/caf%C3%A9": true}

func TestNoRequestOfThePathCorpusReachesAdmin(t *testing.T) {
	in := startInbound(t, orders)
	rows := append(corpus(t, "path"), ours...)
	passed := map[string]int{}
	for _, target := range rows {
		for version, send := range map[string]func(*testing.T, string, string) int{"HTTP/1.1": sendHTTP1, "HTTP/2": sendHTTP2} {
			if version == "HTTP/2" && !strings.HasPrefix(target, "/") {
				continue // not a :path (RFC 9113 section 8.3.1); Envoy closes, after a second
			}
			status := send(t, in.addr, target)
			arrived := in.app.take()
			if status == http.StatusOK {
				passed[version]++
			}
			if mustPass[target] && status != http.StatusOK {
				t.Errorf("%s %q: %d, want it to pass", version, target, status)
			}
			if status == http.StatusOK && len(arrived) != 1 || status != http.StatusOK && len(arrived) != 0 {
				t.Errorf("%s %q: %d, but %d requests arrived", version, target, status, len(arrived))
			}
			for _, r := range arrived {
				if saw := r.Header.Get(seenHeader); saw != r.RequestURI {
					t.Errorf("%s %q: the policy saw %q, the application %q", version, target, saw, r.RequestURI)
				}
				for name, read := range readings {
					if p := read(r.RequestURI); p == "/admin" || strings.HasPrefix(p, "/admin/") {
						t.Errorf("%s %q arrived as %q, which an application that %s serves as %s", version, target, r.RequestURI, name, p)
					}
				}
			}
		}
	}
	t.Logf("%d paths, passed: %v", len(rows), passed)
	if passed["HTTP/1.1"] < len(mustPass) || passed["HTTP/2"] < len(mustPass) {
		t.Errorf("passed: %v; the test sees nothing if nothing passes", passed)
	}
}

// corpus reads the shared rows of one kind.
func corpus(t *testing.T, kind string) []string {
	t.Helper()
	shared := os.Getenv("SIGNET_SHARED")
	if shared == "" {
		shared = filepath.Join(envoytest.Root(t), "..", "shared")
	}
	f, err := os.Open(filepath.Join(shared, "testdata", "path-corpus", "path-corpus-dev.tsv")) // #nosec G304 -- chosen by who runs the test
	if err != nil {
		envoytest.Missing(t, fmt.Sprintf("path corpus: %v; set SIGNET_SHARED", err))
	}
	defer func() { _ = f.Close() }()
	var rows []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if c := strings.Split(s.Text(), "\t"); len(c) > 1 && c[0] == kind {
			rows = append(rows, plain(c[1]))
		}
	}
	if len(rows) == 0 {
		t.Fatalf("no rows of kind %s", kind)
	}
	return rows
}

// plain undoes the escapes of the corpus's file.
func plain(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		var c byte
		switch {
		case strings.HasPrefix(s[i:], `\\`):
			c, i = '\\', i+1
		case strings.HasPrefix(s[i:], `\t`):
			c, i = '\t', i+1
		case strings.HasPrefix(s[i:], `\x`) && i+4 <= len(s) && hex(s[i+2:i+4], &c):
			i += 3
		default:
			c = s[i]
		}
		b.WriteByte(c)
	}
	return b.String()
}

// sendHTTP1 writes the target as it is and returns the status; 0 for none.
func sendHTTP1(t *testing.T, addr, target string) int {
	t.Helper()
	return status(raw(t, addr, "GET "+target+" HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n"))
}

func raw(t *testing.T, addr, request string) *http.Response {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second) //nolint:noctx // bounded
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := conn.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil
	}
	var body bytes.Buffer
	_, _ = body.ReadFrom(resp.Body)
	_ = resp.Body.Close()
	resp.Body = http.NoBody
	resp.Header.Set(bodyHeader, body.String())
	return resp
}

// bodyHeader is where raw leaves the body that it has read.
const bodyHeader = "Test-Body"

func status(r *http.Response) int {
	if r == nil {
		return 0
	}
	return r.StatusCode
}

// sendHTTP2 speaks frames: no client library would send these paths.
func sendHTTP2(t *testing.T, addr, target string) int {
	t.Helper()
	return headers2(t, addr, [2]string{":method", "GET"}, [2]string{":scheme", "http"}, [2]string{":authority", "orders"}, [2]string{":path", target})
}

func headers2(t *testing.T, addr string, fields ...[2]string) int {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second) //nolint:noctx // bounded
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
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
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
		t.Fatal(err)
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
