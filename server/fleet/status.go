package fleet

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/identity"
	"signet.example/store"
)

// States are the states of an agent, in the order in which they are counted.
var States = []api.AgentInfo_State{api.AgentInfo_CONNECTED, api.AgentInfo_JOINED, api.AgentInfo_AWAY, api.AgentInfo_GONE, api.AgentInfo_BANNED}

// Status is what is known of an agent at one moment. Immutable.
type Status struct {
	Agent    store.Agent
	SPIFFE   string // its identity, as findings and certificates name it
	State    api.AgentInfo_State
	Unserved map[string]string // why no caller is sent to a proxy, by its name
	Report   *api.Report       // the latest, nil if there was none
	Remote   netip.Addr        // where its connection comes from; zero unless it is connected
	Since    time.Time         // when its session began; zero unless it is connected
	Seen     time.Time
	Left     time.Time // when its last session ended, zero if that was not seen
	End      time.Time // of its own newest certificate
}

// OwnCert is the newest certificate of an agent's own, zero if none is known.
type OwnCert struct {
	Issued, End time.Time
	Renewed     bool // there was one before it
}

// Statuses joins what is known of agents.
type Statuses struct {
	TrustDomain spiffeid.TrustDomain
	Joined      func() []store.Agent // those that joined, by id
	Sessions    *Sessions
	Endpoints   *Endpoints
	// Own is the newest certificate that an agent, by its SPIFFE ID, was issued for itself.
	Own      func(spiffeID string) OwnCert
	Lifetime time.Duration // of such a certificate
	Started  time.Time     // before it, nobody saw who came
	Clock    func() time.Time
	// Withheld is an agent's report with what is withheld from its proxies.
	Withheld func(agent string, r *api.Report) *api.Report
}

// All is the status of each agent that joined, by id.
func (s Statuses) All() []Status {
	agents := s.Joined()
	list := make([]Status, 0, len(agents))
	for _, a := range agents {
		list = append(list, s.Of(a))
	}
	return list
}

// Of is the status of one.
func (s Statuses) Of(a store.Agent) Status {
	now := s.Clock()
	session, left := s.Sessions.Of(a.ID)
	st := Status{Agent: a, SPIFFE: IDOf(s.TrustDomain, a.ID), Report: left.Report, Left: left.At}
	cert := s.Own(st.SPIFFE)
	st.Seen = later(later(a.Joined, cert.Issued), left.At)
	// The log may have no certificate of it: not read so far, or never issued.
	st.End = cmp.Or(cert.End, a.Joined.Add(s.Lifetime))
	if session != nil {
		st.Report, st.Remote, st.Since, st.Seen = session.Latest(), session.Peer().Remote, session.Since(), now
		st.Unserved = s.Endpoints.Unserved(a.ID)
	}
	st.Report = s.Withheld(a.ID, st.Report)
	switch {
	case a.Banned:
		st.State = api.AgentInfo_BANNED
	case session != nil:
		st.State = api.AgentInfo_CONNECTED
	case !st.End.After(now):
		st.State = api.AgentInfo_GONE
	case left.At.IsZero() && !cert.Renewed && a.Joined.After(s.Started):
		st.State = api.AgentInfo_JOINED
	default:
		st.State = api.AgentInfo_AWAY
	}
	return st
}

// Connected reports whether the agent had a session.
func (st Status) Connected() bool { return !st.Since.IsZero() }

// IDOf is an agent's identity for whoever reads of it; an id that makes none is shown.
func IDOf(td spiffeid.TrustDomain, agent string) string {
	id, err := identity.ForAgent(td, agent)
	if err != nil {
		return agent
	}
	return id.String()
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Message is the status as an operator is told.
func (st Status) Message() *api.AgentInfo {
	a := st.Agent
	info := &api.AgentInfo{
		Id: a.ID, Group: a.Group, Hostname: a.Hostname, Connected: st.Connected(),
		Joined: timestamppb.New(a.Joined), Report: st.Report, State: st.State.Enum(),
		LastSeen: timestamppb.New(st.Seen), NotAfter: timestamppb.New(st.End),
		Attestation: a.Method, Selectors: a.Selectors,
		BanReason: a.BanReason,
	}
	if len(st.Unserved) > 0 {
		info.Report = withUnserved(st.Report, st.Unserved)
	}
	if st.Connected() {
		info.Address = st.Remote.String()
	}
	return info
}

// withUnserved is a report in which a proxy that runs, and to which no caller is
// sent, is not told to be ready.
func withUnserved(r *api.Report, reasons map[string]string) *api.Report {
	r, _ = proto.Clone(r).(*api.Report) // Clone returns what it was given
	for _, p := range r.GetProxies() {
		if reason, ok := reasons[p.GetName()]; ok && p.GetState() == api.ProxyStatus_READY {
			p.State, p.Reason = api.ProxyStatus_UNSERVED.Enum(), reason
		}
	}
	return r
}
