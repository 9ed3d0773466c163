package check

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"signet.example/api"
	"signet.example/authz/jwt"
	"signet.example/internal/plain"
	"signet.example/policy"
	"signet.example/proxy"
	"signet.example/server/issuers"
	"signet.example/server/kinds"
	"signet.example/server/policies"
)

// policy looks at the sources of policies and what is in force.
func (l Look) policy() []*api.Finding {
	var list []*api.Finding
	for _, st := range l.Policy.Statuses {
		if st.GetError() != "" {
			list = append(list, finding(findPolicy, sevError, "PolicySource "+st.GetSource(), "signet policy sync, after what the cause names is mended and committed",
				"the last sync failed, %s: %s", inForce(l.Policy.State.Current.GetCommit()), st.GetError()))
		}
		for _, w := range st.GetWarnings() {
			list = append(list, finding(findPolicyWarn, sevWarning, "PolicySource "+st.GetSource(), "mend in its repository what the cause names (docs/POLICY.md), commit, and `signet policy sync`, which says what is left", "%s", w))
		}
	}
	if len(l.Policy.State.Current.GetModules()) == 0 {
		severity, meanwhile := sevWarning, ""
		if g := l.Stored.Graph(); g.Enforces() { // there is something to call
			severity = sevError
		} else if slices.ContainsFunc(g.Meshes(), g.Observes) {
			meanwhile = ", once it does not only observe (SIG036)"
		}
		fix := "signet apply -f <file with a PolicySource>"
		if hasSource(l.Stored) {
			fix = "signet policy sync, after what its sync names (SIG005) is mended and committed"
		}
		list = append(list, finding(findNoPolicy, severity, "policy", fix,
			"no policy is loaded: %s%s", policy.WithoutPolicy, meanwhile))
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

// packages finds packages that several virtual nodes claim.
func (l Look) packages() []*api.Finding {
	var list []*api.Finding
	graph := l.Stored.Graph()
	for _, p := range policies.Contested(graph, l.Policy.Packages) {
		nodes := policies.Claims(graph, p)
		list = append(list, finding(findContested, sevError, p.String(), "rename the package as the cause says, commit, and `signet policy sync`",
			"what it allows holds for none of them, what it denies for each: %s", policies.ContestedText(p, nodes)))
	}
	return list
}

// cloudMap looks at the virtual nodes whose instances are asked for elsewhere.
func (l Look) cloudMap() []*api.Finding {
	var list []*api.Finding
	for _, node := range slices.SortedFunc(maps.Keys(l.CloudMap), proxy.Ref.Compare) {
		f := l.CloudMap[node]
		severity, what := sevWarning, "the last good answer, of "+plain.UTC(f.Answered)+", stays"
		if f.Answered.IsZero() {
			severity, what = sevError, "it has not since the server started, so that an answer of before stays, or nobody is called"
		}
		list = append(list, finding(findCloudMap, severity, node.String(), "see that cloud_map of the server's configuration names the region of that service, and that its role may call servicediscovery:DiscoverInstances and DiscoverInstancesRevision",
			"AWS Cloud Map does not answer for %s; %s: %s", f.Service, what, f.Err))
	}
	return list
}

// issuers looks at the keys of those who issue end-users' tokens.
func (l Look) issuers() []*api.Finding {
	var list []*api.Finding
	for _, key := range slices.Sorted(maps.Keys(l.Failing)) {
		f := l.Failing[key]
		kind, name := jwt.KindOf(key)
		severity, what := sevWarning, "the last good ones, of "+plain.UTC(f.Fetched)+", stay"
		if f.Fetched.IsZero() {
			severity, what = sevError, "there never were any, so that each of its tokens is refused"
		}
		field := map[string]string{kinds.JWTIssuer: "jwksURL", kinds.ALBIssuer: "keysURL"}[kind]
		subject, fix := kind+" "+name, "signet get "+strings.ToLower(kind)+" "+name+" -o yaml; see that its "+field+" answers"
		if strings.Contains(name, ":") { // of hosts, by the server's configuration: no object's name has a colon
			subject, fix = name, "see in the server's configuration that the issuer is right, and that this server reaches it"
		}
		list = append(list, finding(findJWKS, severity, subject, fix,
			"its keys could not be fetched; %s: %s", what, f.Err))
	}
	for _, name := range slices.Sorted(maps.Keys(l.Losing)) {
		severity := sevInfo // losing a key for encryption does not matter
		if slices.ContainsFunc(l.Losing[name], func(err error) bool { return !errors.Is(err, jwt.ErrOtherUse) }) {
			severity = sevWarning
		}
		list = append(list, finding(findKeysLeft, severity, "JWTIssuer "+name, "none here: RS256 (2048 bits and more), ES256, ES384 and EdDSA keys are used, each of a kid of its own",
			"keys of its set are not used, and tokens that they sign are refused: %s", strings.Join(issuers.Texts(l.Losing[name]), "; ")))
	}
	return list
}
