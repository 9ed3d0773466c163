package fleet

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

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
		if len(p.GetPorts()) > maxPorts || len(p.GetTypes()) > maxPorts || len(p.GetRejected()) > maxProxies || len(p.GetLeftOut()) > maxProxies {
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
	plainMessage(r.ProtoReflect())
	api.Reconcile(r) // an agent of the version before has words for its states
	return nil
}

// plainMessage makes plain text of every string in a message that an agent wrote.
// A new field of a report is then as harmless as the old ones.
func plainMessage(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			plainMap(f, v.Map())
		case f.IsList():
			for i := range v.List().Len() {
				if item, changed := plainValue(f, v.List().Get(i)); changed {
					v.List().Set(i, item)
				}
			}
		default:
			if item, changed := plainValue(f, v); changed {
				m.Set(f, item)
			}
		}
		return true
	})
}

func plainMap(f protoreflect.FieldDescriptor, m protoreflect.Map) {
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		if f.MapKey().Kind() == protoreflect.StringKind && plain.Text(k.String()) != k.String() {
			m.Clear(k) // a name that cannot be shown is nobody's
		} else if item, changed := plainValue(f.MapValue(), v); changed {
			m.Set(k, item)
		}
		return true
	})
}

func plainValue(f protoreflect.FieldDescriptor, v protoreflect.Value) (protoreflect.Value, bool) {
	switch f.Kind() {
	case protoreflect.StringKind:
		s := plain.Text(v.String())
		return protoreflect.ValueOfString(s), s != v.String()
	case protoreflect.MessageKind:
		plainMessage(v.Message())
	default: // numbers and bytes are printed as such
	}
	return v, false
}
