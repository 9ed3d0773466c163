package authzproc

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/authz"
	"signet.example/authz/jwt"
	"signet.example/policy"
	"signet.example/proxy/answers"
)

// What travels between the agent's two processes is api's; what decides knows
// only its own values.

func revisionOf(p *api.PolicyRevision) policy.Revision {
	r := policy.Revision{ID: p.GetId(), Source: p.GetSource(), Commit: p.GetCommit(), Generated: policy.Generated{Contested: p.GetContested(), Observed: p.GetObserved()}}
	for _, m := range p.GetModules() {
		r.Modules = append(r.Modules, policy.Module{Path: m.GetPath(), Rego: m.GetRego()})
	}
	for _, e := range p.GetExemptions() {
		r.Exemptions = append(r.Exemptions, policy.Exemption{
			Name: e.GetName(), Destination: e.GetDestination(), Method: e.GetMethod(), Path: e.GetPath(), Port: e.GetPort(), Sources: e.GetSources(), Ingress: e.GetIngress(),
		})
	}
	return r
}

func issuersOf(all []*api.JWTIssuer) []authz.Issuer {
	var out []authz.Issuer
	for _, j := range all {
		if b := j.GetLoadBalancer(); b != nil {
			_, name := jwt.KindOf(j.GetName())
			out = append(out, authz.Issuer{
				Name: name, Issuer: b.GetIssuer(), Audiences: b.GetClients(), JWKS: b.GetJwks(),
				ALB: &jwt.ALB{Signers: b.GetSigners(), Ingress: b.GetIngress(), Callers: b.GetCallers()},
			})
			continue
		}
		out = append(out, authz.Issuer{Name: j.GetName(), Issuer: j.GetIssuer(), Audiences: j.GetAudiences(), AudienceClaim: j.GetAudienceClaim(), JWKS: j.GetJwks()})
	}
	return out
}

var causes = map[authz.Cause]api.Cause{
	authz.CausePolicy:      api.Cause_CAUSE_POLICY,
	authz.CauseError:       api.Cause_CAUSE_ERROR,
	authz.CauseUnavailable: api.Cause_CAUSE_UNAVAILABLE,
}

func decisionOf(r authz.Record) *api.Decision {
	d := &api.Decision{
		Id: r.ID, Time: timestamppb.New(r.Time), Allowed: r.Allowed, Observed: r.Observed, Cause: causes[r.Cause],
		Source: r.Source, Destination: r.Destination, Peer: r.Peer, Status: r.Status, Method: r.Method, Host: r.Host, Path: r.Path, Headers: r.Headers,
		Rules: rulesOf(r.Rules), Failed: rulesOf(r.Failed),
		PolicyRevision: r.PolicyRevision, PolicySource: r.PolicySource, Commit: r.Commit,
		Message: r.Message, Proxy: r.Proxy, DurationMicros: r.Duration.Microseconds(),
	}
	if !r.Allowed {
		d.Kind = answers.OfDecision(string(r.Cause), ruleOf(r)).Name
	}
	if t := r.Token; t != nil {
		d.Token = &api.TokenSummary{
			Issuer: t.Issuer, Subject: t.Subject, Audience: t.Audience, KeyId: t.KeyID, KeyedHash: t.KeyedHash, Error: t.Error,
		}
		if !t.Expiry.IsZero() {
			d.Token.Expiry = timestamppb.New(t.Expiry)
		}
	}
	return d
}

// ruleOf is the one rule that decided, where it is Signet's own.
func ruleOf(r authz.Record) string {
	if len(r.Rules) == 1 && r.Rules[0].File == "" {
		return r.Rules[0].Name
	}
	return ""
}

func rulesOf(refs []policy.RuleRef) []*api.Rule {
	var out []*api.Rule
	for _, r := range refs {
		out = append(out, &api.Rule{
			Name: r.Name, File: r.File, Line: int32(r.Line), //nolint:gosec // a line of a file
			Expression: r.Expression, ExpressionLine: int32(r.ExpressionLine), //nolint:gosec // likewise
		})
	}
	return out
}

// counted is what metrics need of a decision.
func counted(d *api.Decision) authz.Record {
	r := authz.Record{
		Allowed: d.GetAllowed(), Observed: d.GetObserved(), Duration: time.Duration(d.GetDurationMicros()) * time.Microsecond,
		Source: d.GetSource(), Destination: d.GetDestination(), PolicyRevision: d.GetPolicyRevision(),
	}
	if rules := d.GetRules(); len(rules) > 0 { // the first is the one that is counted
		r.Rules = []policy.RuleRef{{Name: rules[0].GetName()}}
	}
	for ours, theirs := range causes {
		if theirs == d.GetCause() {
			r.Cause = ours
		}
	}
	return r
}

func evaluationsOf(list []*api.Evaluation) map[authz.Evaluation]bool {
	all := make(map[authz.Evaluation]bool, len(list))
	for _, e := range list {
		all[authz.Evaluation{Destination: e.GetDestination(), Revision: e.GetRevision()}] = true
	}
	return all
}

// evaluationMessages is the reverse, sorted.
func evaluationMessages[T any](all map[authz.Evaluation]T) []*api.Evaluation {
	var list []*api.Evaluation
	for e := range all {
		list = append(list, &api.Evaluation{Destination: e.Destination, Revision: e.Revision})
	}
	slices.SortFunc(list, func(a, b *api.Evaluation) int {
		return cmp.Or(cmp.Compare(a.GetDestination(), b.GetDestination()), cmp.Compare(a.GetRevision(), b.GetRevision()))
	})
	return list
}
