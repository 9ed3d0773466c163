package fleet

import (
	"strings"

	"signet.example/api"
	"signet.example/internal/plain"
	"signet.example/server/fault"
)

// Limits of what one agent may report (A28): generous for one that hosts a hundred
// proxies.
const (
	maxProxies = 1024 // in one report
	maxPorts   = 64   // of one proxy
	maxSVIDs   = 8192

	reportPerSecond, reportBurst = 50, 100 // messages of one session
	// Reports of one agent that change its endpoints. A host that starts a hundred proxies has one
	// for each at most.
	changesPerSecond, changesBurst = 2, 100
)

// checkReport bounds what an agent makes the server remember and show.
func checkReport(r *api.Report) error {
	if len(r.GetProxies()) > maxProxies || len(r.GetSvids()) > maxSVIDs || len(r.GetFindings()) > maxProxies || len(r.GetOwn()) > maxProxies || len(r.GetViews()) > maxProxies {
		return fault.New(fault.Invalid, "report: more than %d proxies, views or findings, or %d SVIDs", maxProxies, maxSVIDs)
	}
	for _, v := range r.GetViews() {
		if len(v.GetRejected()) > maxProxies {
			return fault.New(fault.Invalid, "report: view with more than %d rejected resources", maxProxies)
		}
	}
	for _, p := range r.GetProxies() {
		if len(p.GetPorts()) > maxPorts || len(p.GetFailing()) > maxPorts || len(p.GetTypes()) > maxPorts || len(p.GetRejected()) > maxProxies || len(p.GetLeftOut()) > maxProxies {
			return fault.New(fault.Invalid, "report: proxy with more than %d ports or types, or %d resources rejected or left out", maxPorts, maxProxies)
		}
	}
	if len(r.GetOwn()) == 0 { // an agent of the version before has them in words alone
		for _, f := range r.GetFindings() {
			kind, text, _ := strings.Cut(f, ": ")
			r.Own = append(r.Own, &api.AgentFinding{KindWord: kind, Text: text})
		}
	}
	for _, p := range r.GetProxies() { // one of the version before says what a problem is about in words alone
		if p.SpeakerFault != nil {
			continue
		}
		switch about := p.GetSpeakerProblem(); {
		case strings.HasPrefix(about, "egress"):
			p.SpeakerFault = api.ProxyStatus_EGRESS_SOCKET.Enum()
		case strings.HasPrefix(about, "app: "):
			p.SpeakerFault = api.ProxyStatus_APPLICATION_SOCKET.Enum()
		}
	}
	plain.Message(r)
	api.Reconcile(r) // an agent of the version before has words for its states
	return nil
}
