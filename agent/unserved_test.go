package agent

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"signet.example/agent/envoy"
	"signet.example/api"
)

func TestAProxyThatStopsIsNotSaidToBeCalled(t *testing.T) {
	status := envoy.Status{Proxy: envoy.Proxy{Name: "web"}}
	var log bytes.Buffer
	s := &session{reporter: &reporter{proxyStatus: func() []envoy.Status { return []envoy.Status{status} }}, log: slog.New(slog.NewTextHandler(&log, nil))}
	for state, told := range map[api.ProxyStatus_State]bool{api.ProxyStatus_READY: true, api.ProxyStatus_DRAINING: false} {
		status.State = state
		log.Reset()
		s.takeUnserved(t.Context(), map[string]string{"web": "its address is another"})
		s.takeUnserved(t.Context(), map[string]string{})
		if got := strings.Contains(log.String(), "callers are sent to this proxy"); got != told {
			t.Errorf("%s: told %v:\n%s", state, got, log.String())
		}
	}
}
