package envoy

import (
	"net/http"

	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/internal/plain"
	"signet.example/proxy"
	"signet.example/proxy/answers"
)

// Bounds of what a line says in words of others: Envoy's details quote no request, but how
// long they are nobody promises.
const (
	maxDetails = 256
	maxHost    = 256
)

// answered is the record of an answer that a proxy made by itself: of a denial, like those
// that authz makes, or of a failure, which has no cause of a denial.
func (e *envoy) answered(l answers.Line) *api.Decision {
	k := answers.Of(l)
	out := &api.Decision{
		Id: l.ID, Time: timestamppb.New(l.Time), Source: verified(l), Destination: e.config.Records.Destination(e.proxy.Ref), Proxy: e.proxy.Name,
		Method: plain.Clip(l.Method, maxDetails), Host: plain.Clip(l.Host, maxHost), Path: plain.Clip(l.Path, maxDetails),
		Kind: k.Name, Peer: plain.Clip(l.Peer, maxDetails), Status: uint32(max(l.Status, 0)), //nolint:gosec // a status
	}
	if out.Message = k.Cause; words(l) != "" {
		out.Message += " (" + words(l) + ")"
	}
	if l.Way == answers.Out || l.Class == proxy.ClassUndeclared {
		out.Source, out.Destination = out.Destination, ""
		if callee, ok := answers.CalleeOf(e.proxy.Ref.Mesh, l.Cluster); ok {
			out.Destination = e.config.Records.Destination(callee)
		}
	}
	switch rule := rules[l.Class]; {
	case l.Class == "" && l.Way != "":
	case l.Class == proxy.ClassUnavailable:
		out.Cause = api.Cause_CAUSE_UNAVAILABLE
	case l.Class == proxy.ClassError:
		out.Cause = api.Cause_CAUSE_ERROR
	default:
		switch {
		case k.Name == "tunnel" && l.Method == http.MethodConnect:
			rule = "CONNECT"
		case k.Name == "no-route":
			rule = "no route"
		}
		out.Cause, out.Rules = api.Cause_CAUSE_POLICY, []*api.Rule{{Name: "signet: " + rule}}
	}
	return out
}

// verified is who called. Of a certificate that was refused Envoy has the name, too: anybody
// can write one.
func verified(l answers.Line) string {
	if l.CallerTLS != "" || l.Closed != "" {
		return ""
	}
	return l.Source
}

// rules are what a class of denials has in the place of a policy's rule.
var rules = map[proxy.Class]string{
	"":                   "ambiguous request", // what a proxy wrote before there were classes
	proxy.ClassAmbiguous: "ambiguous request", proxy.ClassMalformed: "malformed request", proxy.ClassUpgrade: "upgrade", proxy.ClassUndeclared: "undeclared host",
}

// words are Envoy's for what it found.
func words(l answers.Line) string {
	for _, s := range []string{l.CalleeTLS, l.CallerTLS, l.Closed, l.Details, l.Flags} {
		if s != "" {
			return plain.Clip(s, maxDetails)
		}
	}
	return ""
}
