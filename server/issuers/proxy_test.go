package issuers_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"signet.example/server/issuers"
)

// A proxy dials for whoever asks it, so that what must not be dialled is not asked for.
func TestIssuerKeysAreFetchedByTheProxyAndStillNotFromInside(t *testing.T) {
	var asked atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		asked.Add(1)
		if q.URL.Host != "idp.invalid" {
			http.Error(w, "not here", http.StatusBadGateway)
			return
		}
		_, _ = fmt.Fprintf(w, jwksFormat, "by-proxy")
	}))
	t.Cleanup(proxy.Close)
	t.Setenv("HTTP_PROXY", strings.Replace(proxy.URL, "http://", "http://u:secretcanary@", 1))
	t.Setenv("HTTPS_PROXY", proxy.URL)
	got, _, err := issuers.Fetch(t.Context(), "http://idp.invalid/keys")
	if err != nil || !strings.Contains(string(got), "by-proxy") {
		t.Errorf("%s, %v", got, err)
	}
	asked.Store(0)
	for _, url := range []string{
		"http://169.254.169.254/latest", "https://169.254.169.254/latest", "http://[fe80::1]/", "http://0.0.0.0/",
		"https://2130706433/", "https://0x7f000001/", "https://127.1/",
	} {
		if b, _, err := issuers.Fetch(t.Context(), url); err == nil {
			t.Errorf("%s answered %s", url, b)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the proxy was asked %d times for what is inside", n)
	}
	t.Setenv("NO_PROXY", "idp.invalid")
	if _, _, err := issuers.Fetch(t.Context(), "http://idp.invalid/keys"); err == nil || asked.Load() != 0 {
		t.Errorf("NO_PROXY: %v, asked %d times", err, asked.Load())
	}
	t.Setenv("NO_PROXY", "")
	t.Setenv("HTTP_PROXY", "http://u:secretcanary@bad host\x7f")
	if _, _, err := issuers.Fetch(t.Context(), "http://idp.invalid/keys"); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("a proxy that is no URL: %v", err)
	}
}
