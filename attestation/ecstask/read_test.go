package ecstask_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"signet.example/attestation/ecstask"
)

// serving starts an endpoint that answers so.
func serving(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	return s.URL + "/v4/1"
}

func TestAnEndpointThatIsNotTheTasksIsNotAsked(t *testing.T) {
	for _, at := range []string{
		"http://169.254.169.254/v4/1", "https://169.254.170.2/v4/1", "http://192.0.2.1/v4/1", "http://metadata.example/v4/1", "http://localhost/v4/1",
		"http://user@169.254.170.2/v4/1", "http://169.254.170.2/v4/1?x", "http://169.254.170.2/v4/1#x", "file:///etc/passwd", "http://[::ffff:192.0.2.1]/", ":",
	} {
		t.Setenv(ecstask.Variable, at)
		if _, err := ecstask.Read(t.Context()); err == nil || !strings.HasPrefix(err.Error(), ecstask.Variable+": it is not a URL") && !strings.Contains(err.Error(), "is not at the endpoint of ECS") {
			t.Errorf("%s: %v", at, err)
		}
	}
}

func TestAnAnswerIsBoundedAndLeadsNowhereElse(t *testing.T) {
	var elsewhere atomic.Int64
	other := serving(t, func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) })
	t.Setenv("HTTP_PROXY", other)
	t.Setenv("http_proxy", other)
	for want, answer := range map[string]http.HandlerFunc{
		"answers 302": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other, http.StatusFound) },
		"answers 429": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) },
		"answers more than 262144 bytes": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		},
		"unexpected end of JSON input": func(http.ResponseWriter, *http.Request) {},
		"TaskARN: ":                    func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) },
		"Client.Timeout exceeded":      func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		if _, err := ecstask.ReadOnce(t.Context(), serving(t, answer)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if n := elsewhere.Load(); n != 0 {
		t.Errorf("another server was asked %d times", n)
	}
}

func TestAnEndpointThatIsNotReadyIsAskedAgain(t *testing.T) {
	ofContainer, ofTask := answers("", "")
	var n atomic.Int64
	t.Setenv(ecstask.Variable, serving(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case n.Add(1) <= 2:
			w.WriteHeader(http.StatusInternalServerError)
		case r.URL.Path == "/v4/1":
			_, _ = w.Write(ofContainer)
		case r.URL.Path == "/v4/1/task":
			_, _ = w.Write(ofTask)
		}
	}))
	if task, err := ecstask.Read(t.Context()); err != nil || task.Family != "web" {
		t.Errorf("%+v, %v", task, err)
	}
}
