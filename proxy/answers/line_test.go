package answers_test

import (
	"testing"

	"signet.example/proxy/answers"
)

// Every connection is looked at for TLS, and most that are redirected or of tcp have none.
func TestThatAConnectionIsNotTLSIsNoFailureOfAHandshake(t *testing.T) {
	const line = `{"msg":"native denial","id":"0b6f5c2a-9a53-4c41-8e3f-0123456789ab","way":"in","method":"tcp","flags":"UF,URX","callee_tls":"delayed_connect_error:_Connection_refused","caller_tls":"TLS_error|error:100000f7:SSL_routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end"}`
	l, ok := answers.ParseLine(line)
	if k := answers.Of(l); !ok || k.Name != "application-down" || l.CallerTLS != "" {
		t.Errorf("%s, with %q", k.Name, l.CallerTLS)
	}
}

func TestOtherLinesOfAProxyAreNoAnswers(t *testing.T) {
	for _, line := range []string{
		"[warning] main: caught SIGTERM", "", "{", `{"msg":"something else","decision_id":"0b6f5c2a9a534c418e3f0123456789ab"}`,
		`{"msg":"native denial","decision_id":"short"}`, `{"msg":"native denial","decision_id":"zzzzzzzz-9a53-4c41-8e3f-0123456789ab"}`,
	} {
		if l, ok := answers.ParseLine(line); ok {
			t.Errorf("%q was taken for an answer: %+v", line, l)
		}
	}
}
