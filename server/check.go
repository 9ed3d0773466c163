package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"signet.example/api"
	"signet.example/authz/jwt"
	"signet.example/internal/plain"
	"signet.example/policy"
	"signet.example/proxy"
	"signet.example/server/fleet"
	"signet.example/server/groups"
	"signet.example/server/issuance"
	"signet.example/server/issuers"
	"signet.example/server/kinds"
	"signet.example/server/policies"
)

// Severities of findings.
const (
	sevError   = api.Finding_ERROR
	sevWarning = api.Finding_WARNING
	sevInfo    = api.Finding_INFO
)

// The findings of `signet check`. An id is never given to another cause.
// docs/CHECKS.md has a section for each.
const (
	findDisconnected = "SIG001"
	findExpiry       = "SIG002"
	findOverdue      = "SIG003"
	findRejected     = "SIG004"
	findPolicy       = "SIG005"
	findNoPolicy     = "SIG006"
	findIssuingCA    = "SIG007"
	findConflict     = "SIG008"
	findPeerMode     = "SIG009"
	findAgentOwn     = "SIG010"
	findOrphan       = "SIG011"
	findAmbiguous    = "SIG012"
	findNoAgent      = "SIG013"
	findJWKS         = "SIG014"
	findStale        = "SIG015"
	findProxy        = "SIG016"
	findSigner       = "SIG017"
	findSignerUser   = "SIG018"
	findOpenEgress   = "SIG019"
	findTwoPlaces    = "SIG020"
	findNoEndpoint   = "SIG021"
	findNoProvider   = "SIG022"
	findLogCut       = "SIG023"
	findNoGroup      = "SIG024"
	findContested    = "SIG030"
	findPolicyWarn   = "SIG031"
	findAccessLog    = "SIG032"
	findUnsafeMesh   = "SIG033"
	findKeysLeft     = "SIG034"
	findNoSpeaker    = "SIG040"
	findWideSpeaker  = "SIG041"
	findSpeaker      = "SIG042"
	findPostQuantum  = "SIG050"
)

// severities is which a finding can have: an error makes calls fail, or will when
// something ends; a warning does not.
var severities = map[string][]api.Finding_Severity{
	findDisconnected: {sevWarning},
	findExpiry:       {sevError},
	findOverdue:      {sevWarning},
	findRejected:     {sevError},
	findPolicy:       {sevError},
	findNoPolicy:     {sevError, sevWarning},
	findIssuingCA:    {sevError},
	findConflict:     {sevError},
	findPeerMode:     {sevWarning},
	findNoGroup:      {sevError},
	findAgentOwn:     {sevError, sevWarning, sevInfo},
	findOrphan:       {sevInfo},
	findAmbiguous:    {sevWarning},
	findNoAgent:      {sevError, sevWarning},
	findJWKS:         {sevError, sevWarning},
	findStale:        {sevError},
	findProxy:        {sevError},
	findSigner:       {sevError},
	findSignerUser:   {sevWarning},
	findOpenEgress:   {sevWarning},
	findTwoPlaces:    {sevError},
	findNoEndpoint:   {sevError, sevWarning},
	findNoProvider:   {sevError, sevWarning},
	findLogCut:       {sevError},
	findContested:    {sevError},
	findPolicyWarn:   {sevWarning},
	findAccessLog:    {sevWarning},
	findUnsafeMesh:   {sevWarning},
	findKeysLeft:     {sevWarning, sevInfo},
	findNoSpeaker:    {sevError, sevWarning},
	findWideSpeaker:  {sevWarning},
	findSpeaker:      {sevInfo},
	findPostQuantum:  {sevError},
}

// overdueAfter is how long past its due time a rotation may be; expirySoon is
// the part of a lifetime below which a certificate counts as near its end.
const overdueAfter = time.Minute

// Check looks at everything once and tells what is wrong, why, and the command
// that fixes it.
func (a *admin) Check(ctx context.Context, _ *api.CheckRequest) (*api.CheckResponse, error) {
	var list []*api.Finding
	for _, part := range []func(context.Context) []*api.Finding{
		a.checkAuthority, a.checkAgents, a.checkInstances, a.checkGroups, a.checkReports, a.checkEndpoints, a.checkPolicy, a.checkIssuers, a.checkModel, a.checkLog, a.checkShapes, a.checkRoutes,
	} {
		list = append(list, part(ctx)...)
	}
	slices.SortStableFunc(list, func(x, y *api.Finding) int {
		return cmp.Or(cmp.Compare(x.GetSeverity(), y.GetSeverity()), strings.Compare(x.GetId()+x.GetSubject(), y.GetId()+y.GetSubject()))
	})
	return &api.CheckResponse{Findings: list}, nil
}

func finding(id string, severity api.Finding_Severity, subject, fix, cause string, args ...any) *api.Finding {
	return &api.Finding{Id: id, Severity: severity.Enum(), Subject: subject, Fix: fix, Cause: fmt.Sprintf(cause, args...)}
}

func (a *admin) checkAuthority(ctx context.Context) []*api.Finding {
	var list []*api.Finding
	restart := "signet server"
	if a.cfg.Signer != "" {
		restart = "signet signer"
	} else {
		list = append(list, finding(findSignerUser, sevWarning, "signer", "signet signer --listen <socket> --server-user <user>, run as another user: docs/SIGNER.md",
			"the signer runs as the server's own user: whoever gets into the server can read the CA's keys"))
	}
	var gone *issuance.RecordsGone
	if err := a.authority.Load(ctx); errors.As(err, &gone) {
		list = append(list, finding(findLogCut, sevError, "issuance log", gone.Fix(), "%s", gone))
	} else if err != nil {
		list = append(list, finding(findSigner, sevError, "signer", "look at its log and the server's, then restart `"+restart+"`", "the signer does not answer: %v", err))
	}
	r := a.authority.Roots()
	left := r.Issuing.NotAfter.Sub(a.clock())
	if life := r.Issuing.NotAfter.Sub(r.Issuing.NotBefore); left < life/4 {
		list = append(list, finding(findIssuingCA, sevError, "issuing CA", "restart `"+restart+"`; the signer renews the issuing CA from the root at half of its life",
			"the issuing certificate ends in %s, at %s, and was not renewed", left.Round(time.Second), utc(r.Issuing.NotAfter)))
	}
	return list
}

func utc(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// checkReports looks at what the connected agents say.
func (a *admin) checkReports(context.Context) []*api.Finding {
	var list []*api.Finding
	now := a.clock()
	for _, s := range a.sessions.Connected() {
		r, id := s.Latest(), s.Peer().ID.String()
		for _, v := range r.GetSvids() {
			list = append(list, checkSVID(now, id, v)...)
		}
		for _, p := range r.GetProxies() {
			list = append(list, checkProxy(id, p)...)
			list = append(list, checkSpeaker(id, p)...)
		}
		if r.GetPeerMode() == api.Report_LEGACY {
			list = append(list, finding(findPeerMode, sevWarning, id, "upgrade the kernel to 6.5 or later",
				"the kernel has no SO_PEERPIDFD: local peers are attested by pid with checks around each answer"))
		}
		for _, f := range r.GetOwn() {
			severity, fix := agentAdvice(f.GetKind())
			list = append(list, finding(findAgentOwn, severity, id, fix, "%s: %s", f.GetKindWord(), f.GetText()))
		}
		if want, since := a.policies.InForceSince(); r != nil && now.Sub(later(s.Since(), since)) > policies.StampDeadline && r.GetPolicyRevision() != want {
			list = append(list, finding(findStale, sevError, id, "look at the agent's log for why it does not load it; then restart `signet agent` there",
				"the agent has policy revision %q, and routes ask for %q: its proxies deny every call as unavailable", r.GetPolicyRevision(), want))
		}
	}
	return list
}

func checkSVID(now time.Time, agent string, v *api.SVIDStatus) []*api.Finding {
	end := v.GetNotAfter().AsTime()
	subject := v.GetSpiffeId() + " (" + v.GetConsumerWord() + " of " + agent + ")"
	switch {
	case !end.After(now):
		return []*api.Finding{finding(findExpiry, sevError, subject, "signet certs", "its certificate %s expired at %s", v.GetSerial(), utc(end))}
	case v.GetNextRenewal() != nil && now.Sub(v.GetNextRenewal().AsTime()) > min(overdueAfter, end.Sub(v.GetNextRenewal().AsTime())/2):
		return []*api.Finding{finding(findOverdue, sevWarning, subject, "see the agent's log for why renewal fails",
			"its rotation was due at %s; the certificate ends at %s", utc(v.GetNextRenewal().AsTime()), utc(end))}
	}
	return nil
}

func checkProxy(agent string, p *api.ProxyStatus) []*api.Finding {
	var list []*api.Finding
	subject := fmt.Sprintf("proxy %s of %s", p.GetName(), agent)
	for _, j := range p.GetRejected() {
		list = append(list, finding(findRejected, sevError, subject, "signet get all -o yaml; correct the resource and `signet apply` it",
			"Envoy refused %s %s, version %s, and keeps the last good one: %s", shortType(j.GetTypeUrl()), plain.Text(j.GetName()), plain.Text(j.GetVersion()), j.GetMessage()))
	}
	if p.GetState() == api.ProxyStatus_BACKOFF {
		list = append(list, finding(findProxy, sevError, subject, "see the agent's log for Envoy's last lines", "Envoy ended %d times and is held back before the next start", p.GetRestarts()))
	}
	return list
}

func shortType(url string) string { return url[strings.LastIndexByte(url, '.')+1:] }

func (a *admin) checkEndpoints(context.Context) []*api.Finding {
	var list []*api.Finding
	for _, c := range a.endpoints.Refused() {
		list = append(list, finding(findConflict, sevError, fmt.Sprintf("proxy %s of %s", c.Endpoint.Proxy, a.agentSPIFFE(c.Endpoint.Agent)),
			c.Fix,
			"its endpoint for %s/%s is not served: %s", c.Endpoint.Mesh, c.Endpoint.Node, c.Reason))
	}
	return list
}

func (a *admin) checkPolicy(context.Context) []*api.Finding {
	var list []*api.Finding
	state := a.policies.State()
	for _, st := range a.policies.Statuses() {
		if st.GetError() != "" {
			list = append(list, finding(findPolicy, sevError, "PolicySource "+st.GetSource(), "signet policy sync, after what the cause names is mended and committed",
				"the last sync failed, %s: %s", inForce(state.Current.GetCommit()), st.GetError()))
		}
		for _, w := range st.GetWarnings() {
			list = append(list, finding(findPolicyWarn, sevWarning, "PolicySource "+st.GetSource(), "signet policy check <folder>, in a clone of the repository; commit, and `signet policy sync`", "%s", w))
		}
	}
	list = append(list, a.checkPackages()...)
	if len(state.Current.GetModules()) == 0 {
		severity := sevWarning
		for _, name := range a.model().graph.Meshes() {
			if len(a.model().graph.Nodes(name)) > 0 { // there is something to call
				severity = sevError
			}
		}
		fix := "signet apply -f <file with a PolicySource>"
		if len(a.model().sources) > 0 {
			fix = "signet policy sync, after what its sync names (SIG005) is mended and committed"
		}
		list = append(list, finding(findNoPolicy, severity, "policy", fix,
			"no policy is loaded: "+policy.WithoutPolicy))
	}
	return list
}

// inForce reports what is served where the newest policies are not.
func inForce(commit string) string {
	if commit == "" {
		return "and none succeeded before: " + policy.WithoutPolicy
	}
	return "commit " + commit + " stays in force"
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
	case api.AgentFinding_POLICY_STOPPED:
		return sevError, "correct the policy and push it: under its next revision the calls are decided again; docs/POLICY.md says what an evaluation may cost"
	case api.AgentFinding_PROXY_WAITING:
		return sevError, "signet get bindings -o yaml; one must name the proxy's virtual node and fit it, e.g. by selector signet:proxy:<name>"
	}
	return sevWarning, "see the agent's log"
}

func (a *admin) checkIssuers(context.Context) []*api.Finding {
	failing := a.issuers.Failing()
	var list []*api.Finding
	for _, name := range sortedKeys(failing) {
		f := failing[name]
		severity, what := sevWarning, "the last good ones, of "+utc(f.Fetched)+", stay"
		if f.Fetched.IsZero() {
			severity, what = sevError, "there never were any, so that each of its tokens is refused"
		}
		list = append(list, finding(findJWKS, severity, "JWTIssuer "+name, "signet get jwtissuer "+name+" -o yaml; see that its jwksURL answers",
			"its keys could not be fetched; %s: %s", what, f.Err))
	}
	losing := a.issuers.Losing()
	for _, name := range sortedKeys(losing) {
		severity := sevInfo // losing a key for encryption does not matter
		if slices.ContainsFunc(losing[name], func(err error) bool { return !errors.Is(err, jwt.ErrOtherUse) }) {
			severity = sevWarning
		}
		list = append(list, finding(findKeysLeft, severity, "JWTIssuer "+name, "none here: RS256 (2048 bits and more), ES256 and EdDSA keys are used, each of a kid of its own",
			"keys of its set are not used, and tokens that they sign are refused: %s", strings.Join(issuers.Texts(losing[name]), "; ")))
	}
	return list
}

func (a *admin) checkModel(context.Context) []*api.Finding {
	var list []*api.Finding
	for _, name := range a.cfg.RequirePostQuantum {
		if !slices.Contains(a.model().graph.Meshes(), name) {
			list = append(list, finding(findPostQuantum, sevError, "require_post_quantum "+name, "signet get meshes; correct the name in the server's configuration and restart it",
				"there is no mesh of this name: what was meant accepts other key exchanges"))
		}
	}
	for _, o := range groups.Overlaps(a.model().groups.Granted.All()) {
		list = append(list, finding(findAmbiguous, sevWarning, "Binding "+o.First.Name+" and Binding "+o.Second.Name,
			"add a selector to one that tells them apart, or: signet delete binding "+o.Second.Name, "%s", o))
	}
	for _, name := range groups.Unlisted(a.model().groups.Granted.All()) {
		list = append(list, finding(findAmbiguous, sevWarning, "NodeGroup "+name, "correct the ones that are listed, and look again",
			"more of its objects do not go together than the %d pairs that are listed", groups.MostPairs))
	}
	return list
}

func (a *admin) checkLog(context.Context) []*api.Finding {
	var list []*api.Finding
	for _, r := range a.issued.Orphans(a.clock()) {
		list = append(list, finding(findOrphan, sevInfo, "serial "+r.GetSerial(), "signet certs --all",
			"it was reserved for %s at %s and never answered: the signer or the server ended meanwhile", r.GetSpiffeId(), utc(r.GetTime().AsTime())))
	}
	return list
}

// checkShapes looks at what proxies listen on, log to and let through, their
// operators' own Envoys included.
func (a *admin) checkShapes(context.Context) []*api.Finding {
	var list []*api.Finding
	for _, key := range a.views.Open() {
		list = append(list, finding(findOpenEgress, sevWarning, "proxy of "+key.Node.String(),
			"give egress (of proxies[] in the agent's configuration, or of signet.shape) a loopback address and leave egress_open out",
			"its outbound listener at %s is one that other hosts reach: who calls from there cannot be seen, and is let out only where its Binding has applications: [anyone], and then whoever reaches it calls as this virtual node", key.Shape.Egress))
	}
	graph := a.model().graph
	for _, name := range graph.Meshes() {
		if names := graph.UnsafeNames(name); len(names) > 0 {
			list = append(list, finding(findUnsafeMesh, sevWarning, "Mesh "+name, "take what no application needs out of its annotation "+proxy.UnsafeAnnotation+": docs/POLICY.md",
				"its proxies let through what is unsafe: %s", strings.Join(names, ", ")))
		}
	}
	for _, key := range a.views.Unlogged() {
		list = append(list, finding(findAccessLog, sevWarning, "proxy of "+key.Node.String(),
			"name its folder as access_log_dir in the agent's configuration, or log to /dev/stdout",
			"its access log is not written: %s is not in the folder that its agent names", plain.Text(accessLogOf(a.model().objects.Get(kinds.Node(key.Node))))))
	}
	return list
}

// checkSpeaker finds who may call out through a proxy, and what is wrong with it.
func checkSpeaker(agent string, p *api.ProxyStatus) []*api.Finding {
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
	return []*api.Finding{finding(findSpeaker, sevInfo, subject, paste, "%s may call out through it, as was found when it first listened", who)}
}

func quoted(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strconv.Quote(plain.Text(s))
	}
	return out
}

// checkPackages finds packages that several virtual nodes claim.
func (a *admin) checkPackages() []*api.Finding {
	var list []*api.Finding
	m := a.model()
	for _, p := range policies.Contested(m.graph, a.policies.PackagesInForce()) {
		nodes := policies.Claims(m.graph, p)
		list = append(list, finding(findContested, sevError, p.String(), "rename the package as the cause says, commit, and `signet policy sync`",
			"what it allows holds for none of them, what it denies for each: %s", policies.ContestedText(p, nodes)))
	}
	return list
}
