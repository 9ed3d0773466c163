package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"signet.example/api"
	"signet.example/identity"
	"signet.example/internal/plain"
	"signet.example/proxy"
	"signet.example/server/fleet"
	"signet.example/server/kinds"
	"signet.example/server/policies"
)

// overdueAfter is how long past its due time a rotation may be.
const overdueAfter = time.Minute

// reports looks at what the connected agents say.
func (l Look) reports() []*api.Finding {
	var list []*api.Finding
	want, since := l.Policy.State.Current.GetId(), l.Policy.State.Since
	for _, st := range l.Agents {
		if !st.Connected() {
			continue
		}
		r, id := st.Report, st.SPIFFE
		if r.GetPeerMode() == api.Report_TASK {
			id += " (mode: task)"
		}
		for _, v := range r.GetSvids() {
			list = append(list, ofSVID(l.Now, id, v)...)
		}
		for _, p := range r.GetProxies() {
			list = append(list, ofProxy(id, p)...)
			list = append(list, ofSpeaker(id, p)...)
			list = append(list, l.ofApplication(st.Agent.ID, id, p)...)
		}
		if r.GetPeerMode() == api.Report_LEGACY {
			list = append(list, finding(findPeerMode, sevWarning, id, "upgrade the kernel to 6.5 or later",
				"the kernel has no SO_PEERPIDFD: local peers are attested by pid with checks around each answer"))
		}
		for _, f := range r.GetOwn() {
			severity, fix := agentAdvice(f.GetKind())
			text := f.GetText()
			if f.GetKind() == api.AgentFinding_PROXY_WAITING {
				if why, mend := l.elsewhere(st, f.GetProxy()); why != "" {
					text, fix = text+why, mend
				}
			}
			list = append(list, finding(findAgentOwn, severity, id, fix, "%s: %s", f.GetKindWord(), text))
		}
		if r != nil && l.Now.Sub(st.Since) > policies.StampDeadline && l.Now.Sub(since) > policies.StampDeadline && r.GetPolicyRevision() != want {
			list = append(list, finding(findStale, sevError, id, "look at the agent's log for why it does not load it; then restart `signet agent` there",
				"the agent has policy revision %q, and routes ask for %q: its proxies deny every call as unavailable", r.GetPolicyRevision(), want))
		}
	}
	return list
}

func ofSVID(now time.Time, agent string, v *api.SVIDStatus) []*api.Finding {
	end := v.GetNotAfter().AsTime()
	subject := v.GetSpiffeId() + " (" + v.GetConsumerWord() + " of " + agent + ")"
	switch {
	case !end.After(now):
		return []*api.Finding{finding(findExpiry, sevError, subject, "signet certs", "its certificate %s expired at %s", v.GetSerial(), plain.UTC(end))}
	case v.GetNextRenewal() != nil && now.Sub(v.GetNextRenewal().AsTime()) > min(overdueAfter, end.Sub(v.GetNextRenewal().AsTime())/2):
		return []*api.Finding{finding(findOverdue, sevWarning, subject, "see the agent's log for why renewal fails",
			"its rotation was due at %s; the certificate ends at %s", plain.UTC(v.GetNextRenewal().AsTime()), plain.UTC(end))}
	}
	return nil
}

func ofProxy(agent string, p *api.ProxyStatus) []*api.Finding {
	var list []*api.Finding
	subject := fmt.Sprintf("proxy %s of %s", p.GetName(), agent)
	for _, j := range p.GetRejected() {
		fix := "signet get all -o yaml; correct the resource and `signet apply` it"
		if proxy.OfItsHost(j.GetMessage()) {
			fix = "see what on its host holds the port, or keeps the file from the proxy; free it and restart the proxy"
		}
		list = append(list, finding(findRejected, sevError, subject, fix,
			"Envoy refused %s %s, version %s, and keeps the last good one: %s", shortType(j.GetTypeUrl()), plain.Text(j.GetName()), plain.Text(j.GetVersion()), j.GetMessage()))
	}
	if p.GetState() == api.ProxyStatus_BACKOFF {
		list = append(list, finding(findProxy, sevError, subject, "see the agent's log for Envoy's last lines", "Envoy ended %d times and is held back before the next start", p.GetRestarts()))
	}
	return list
}

// ofApplication is about the ports at which a proxy's application fails its health check, of
// those at which callers have its endpoint.
func (l Look) ofApplication(agent, id string, p *api.ProxyStatus) []*api.Finding {
	if p.GetState() != api.ProxyStatus_READY {
		return nil
	}
	var list []*api.Finding
	at := fleet.RefOf(p)
	all := l.Endpoints.Of(at)
	own := slices.IndexFunc(all, func(e *fleet.Endpoint) bool { return e.Agent == agent && e.Proxy == p.GetName() })
	if own < 0 {
		return nil
	}
	for _, port := range all[own].Failing {
		severity, callers := sevWarning, "callers go elsewhere, as long as half of its endpoints are healthy"
		switch healthy := slices.ContainsFunc(all, func(e *fleet.Endpoint) bool { return e.Gone.IsZero() && e.HealthyAt(port) }); {
		case l.Awaited.Awaits(at, l.Endpoints.Ready):
			callers = "callers go on by its service discovery until it passes (" + findAwaited + ")"
		case !healthy:
			severity, callers = sevError, "no other endpoint of it is healthy there, so that callers call all of them"
		}
		list = append(list, finding(findApplication, severity, fmt.Sprintf("proxy %s of %s", p.GetName(), id),
			"see the application's own log; correct it, or the healthCheck of the listener, and `signet apply` that",
			"the application behind it fails the health check of port %d of %s/%s: %s", port, at.Mesh, at.Name, callers))
	}
	return list
}

func shortType(url string) string { return url[strings.LastIndexByte(url, '.')+1:] }

// endpoints looks at what is reported and not served.
func (l Look) endpoints() []*api.Finding {
	var list []*api.Finding
	for _, c := range l.Refused {
		list = append(list, finding(findConflict, sevError, fmt.Sprintf("proxy %s of %s", c.Endpoint.Proxy, fleet.IDOf(l.TrustDomain, c.Endpoint.Agent)),
			c.Fix,
			"its endpoint for %s/%s is not served: %s", c.Endpoint.Mesh, c.Endpoint.Node, c.Reason))
	}
	return list
}

// agentAdvice is how bad a finding is that an agent reports of itself, and what
// mends it.
func agentAdvice(kind api.AgentFinding_Kind) (severity api.Finding_Severity, fix string) {
	switch kind {
	case api.AgentFinding_AUTHZ_SAME_USER:
		return sevWarning, "set authz.user in the agent's configuration to a user of its own; the agent then needs CAP_SETUID, CAP_SETGID and CAP_KILL, as the unit in docs/AGENT.md grants"
	case api.AgentFinding_PROXIES_SAME_USER:
		return sevWarning, "set proxy_user in the agent's configuration to a user of its own, another than authz.user; the agent then needs CAP_SETUID, CAP_SETGID and CAP_KILL, as the unit in docs/AGENT.md grants"
	case api.AgentFinding_METRICS_OPEN:
		return sevWarning, "set metrics in the agent's configuration to an address of the loopback interface, such as 127.0.0.1:9465"
	case api.AgentFinding_CLASSICAL_KEY_EXCHANGE: // what falls back is served, and is not of today's dangers
		return sevInfo, "upgrade the TLS library at the other end; require_post_quantum in the server's configuration refuses such connections by mesh"
	case api.AgentFinding_PROXY_ADDRESS:
		return sevError, fleet.OtherBind
	case api.AgentFinding_TLS_FILES:
		return sevError, "mend the file on that host, or let the proxy have it by tls_dirs in the agent's configuration (docs/AGENT.md); it is looked at again by itself"
	case api.AgentFinding_POLICY_STOPPED:
		return sevError, "correct the policy and push it: under its next revision the calls are decided again; docs/POLICY.md says what an evaluation may cost"
	case api.AgentFinding_PROXY_WAITING:
		return sevError, "signet get bindings -o yaml; one must name the proxy's virtual node and fit it, e.g. by selector signet:proxy:<name>"
	}
	return sevWarning, "see the agent's log"
}

// mostElsewhere is how many Bindings of other groups are named.
const mostElsewhere = 5

// elsewhere is why a proxy waits that an agent cannot know, and what mends it: there is no such
// virtual node, or no Binding of it is for the group of its host. It is "" where one is: the
// agent has that one, and says what the proxy lacks.
func (l Look) elsewhere(st fleet.Status, proxyName string) (why, fix string) {
	i := slices.IndexFunc(st.Report.GetProxies(), func(p *api.ProxyStatus) bool {
		return p.GetState() == api.ProxyStatus_WAITING && p.GetName() == proxyName
	})
	if proxyName == "" || i < 0 || st.Agent.Group == "" { // an agent of before does not name it; SIG024 says that it is in none
		return "", ""
	}
	p, group := st.Report.GetProxies()[i], st.Agent.Group
	node, bound := fleet.RefOf(p), l.Stored.Groups().Hosts
	if bound.May(group, node) {
		return "", ""
	}
	if k := kinds.Node(node); l.Stored.Objects().Get(k) == nil {
		return fmt.Sprintf("; there is no %s%s", k, kinds.Meant(l.Stored.Objects(), k)),
			"name one that `signet get all` lists in the agent's configuration, and reload the agent (SIGHUP)"
	}
	var others []string
	first, more := "", 0
	for name, of := range bound.Bindings(node) {
		var asks identity.Selectors
		if o := l.Stored.Objects().Get(kinds.Key{Kind: kinds.Binding, Name: name}); o != nil {
			if b, ok := o.Value.(identity.Binding); ok {
				asks = b.Selectors
			}
		}
		if len(others) == mostElsewhere {
			more++
			continue
		}
		if first == "" {
			first = name
		}
		others = append(others, fmt.Sprintf("%s (group %s, selectors %s)", name, of, strings.Join(asks.Strings(), ", ")))
	}
	if more > 0 {
		others = append(others, fmt.Sprintf("%d more", more))
	}
	if len(others) == 0 {
		return fmt.Sprintf("; its host is in group %s, and no Binding of any group is for that virtual node", group),
			fmt.Sprintf("apply a Binding for %s with group: %s that the proxy fits, e.g. by selector signet:proxy:%s", node, group, plain.Text(p.GetName()))
	}
	return fmt.Sprintf("; its host is in group %s, and the Bindings for that virtual node are for others: %s", group, strings.Join(others, "; ")),
		fmt.Sprintf("signet get bindings -o yaml; where this host is to run the proxy, set group: %s in binding %s, or apply another Binding for this group", group, first)
}

// ofSpeaker finds who may call out through a proxy, and what is wrong with it.
func ofSpeaker(agent string, p *api.ProxyStatus) []*api.Finding {
	subject := fmt.Sprintf("proxy %s of %s", p.GetName(), agent)
	paste := "name them for good in its Binding's spec: applications: [" + strings.Join(quoted(p.GetApplications()), ", ") + "]"
	if len(p.GetApplications()) == 0 {
		paste = "name them in its Binding's spec: applications: [\"unix:uid:<uid of the application>\"]"
	}
	who, problem := plain.Text(p.GetSpeaker()), plain.Text(p.GetSpeakerProblem())
	switch p.GetSpeakerFault() { // what no Binding can mend
	case api.ProxyStatus_EGRESS_SOCKET:
		paste = "the socket's folder must be the proxy's own, and applications left out of its Binding: docs/AGENT.md"
	case api.ProxyStatus_APPLICATION_SOCKET:
		paste = "nobody but the application's user and root may put anything into the folder of its sockets: docs/AGENT.md"
	}
	switch {
	case who == "" && problem == "":
		return nil
	case who == "":
		severity := sevWarning
		if len(p.GetApplications()) > 0 { // somebody is there, and refused
			severity = sevError
		}
		return []*api.Finding{finding(findNoSpeaker, severity, subject, paste, "nobody may call out through it: %s", problem)}
	case problem != "":
		return []*api.Finding{finding(findWideSpeaker, sevWarning, subject, "run the application as a user of its own, or name who may call out in applications of the Binding", "%s", problem)}
	case len(p.GetApplications()) == 0: // the Binding says it
		return nil
	}
	return []*api.Finding{finding(findSpeaker, sevInfo, subject, paste, "who may call out through it, as was found when it first listened: %s", who)}
}

func quoted(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strconv.Quote(plain.Text(s))
	}
	return out
}
