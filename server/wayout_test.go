package server_test

import (
	"strings"
	"testing"

	"signet.example/api"
)

// What a Unix socket lets in, no Binding can mend.
func TestWhoMayNotCallOutIsToldWhatMendsIt(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	report, _ := r.join("front").session()
	const paste = "name them in its Binding's spec"
	for fix, p := range map[string]*api.ProxyStatus{
		paste:                            {SpeakerProblem: "nobody listens", SpeakerFault: api.ProxyStatus_APPLICATIONS.Enum()},
		"the socket's folder must be":    {SpeakerProblem: "egress: anybody can open it", SpeakerFault: api.ProxyStatus_EGRESS_SOCKET.Enum()},
		"the folder of its sockets":      {SpeakerProblem: "app: anybody can write to it", SpeakerFault: api.ProxyStatus_APPLICATION_SOCKET.Enum()},
		"must be the proxy's own, and a": {SpeakerProblem: "egress: of an agent of the version before"},
	} {
		p.Name, p.State = "web", api.ProxyStatus_READY.Enum()
		report(&api.Report{Proxies: []*api.ProxyStatus{p}})
		if f := awaitFinding(t, r, "SIG040", p.GetSpeakerProblem()); !strings.Contains(f.GetFix(), fix) || fix != paste && strings.Contains(f.GetFix(), paste) {
			t.Errorf("%s: %s", p.GetSpeakerProblem(), f.GetFix())
		}
	}
}
