package upstream

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestAProxyThatStopsIsNotSaidToBeCalled(t *testing.T) {
	for ready, told := range map[string]bool{"web": true, "": false} {
		var log bytes.Buffer
		s := &Session{Reporter: reporting{ready}, Log: slog.New(slog.NewTextHandler(&log, nil))}
		s.takeUnserved(t.Context(), map[string]string{"web": "its address is another"})
		s.takeUnserved(t.Context(), map[string]string{})
		if got := strings.Contains(log.String(), "callers are sent to this proxy"); got != told {
			t.Errorf("ready %q: told %v:\n%s", ready, got, log.String())
		}
	}
}
