package answers_test

import (
	"testing"

	"signet.example/proxy/answers"
)

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
