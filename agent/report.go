package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/ads"
	"signet.example/agent/authzproc"
	"signet.example/agent/envoy"
	"signet.example/agent/files"
	"signet.example/agent/relay"
	"signet.example/agent/resources"
	"signet.example/agent/svids"
	"signet.example/agent/wayout"
	"signet.example/api"
	"signet.example/internal/watched"
	"signet.example/proxy"
)

// reportIdle is the most time in which a change that wakes nobody stays untold.
const (
	reportIdle = 5 * time.Second
	// reportLook is the same while there are proxies that the agent did not start.
	reportLook = time.Second
)

// reporter gathers the agent's state for reports. It owns none of it.
type reporter struct {
	state  *watched.Value[*resources.Snapshot]
	keeper *svids.Keeper
	relay  *relay.Relay
	authz  *authzproc.Process
	files  *files.Folders
	// proxyStatus is how each supervised proxy is.
	proxyStatus func() []envoy.Status
	peerMode    api.Report_PeerMode
	task        string // of ECS
	version     string
	// proxies is set with every change of a proxy's status.
	proxies *watched.Value[int]
	// speaker is who may call out through a proxy (wayout.Server.Speaker).
	speaker func(sh proxy.Shape, uid uint32, bound svids.Name) wayout.Speaker
	// begun is when the agent did.
	begun time.Time
	// fixed findings hold as long as the agent runs.
	fixed []*api.AgentFinding
}

// Changed implements Reporter: it is closed when the report may have become another one, or reportIdle
// has passed.
func (r *reporter) Changed(ctx context.Context) <-chan struct{} {
	_, held := r.keeper.Watch()
	_, state := r.state.Get()
	_, loaded := r.authz.Loaded()
	_, stopped := r.authz.Stopped()
	_, proxies := r.proxies.Get()
	relay := r.relay.Changes()
	done := make(chan struct{})
	go func() { // ends within reportIdle, or with ctx
		defer close(done)
		idle := reportIdle
		if r.relay.Looks() {
			idle = reportLook
		}
		t := time.NewTimer(idle)
		defer t.Stop()
		select {
		case <-held:
		case <-state:
		case <-loaded:
		case <-stopped:
		case <-proxies:
		case <-relay:
		case <-t.C:
		case <-ctx.Done():
		}
	}()
	return done
}

// Ready reports whether a proxy of this name serves.
func (r *reporter) Ready(name string) bool {
	own := slices.ContainsFunc(r.proxyStatus(), func(s envoy.Status) bool {
		return s.Proxy.Name == name && s.State == api.ProxyStatus_READY
	})
	return own || slices.ContainsFunc(r.relay.Foreign(), func(f relay.Foreign) bool { return f.Name == name && f.Healthy })
}

// Report implements Reporter.
func (r *reporter) Report() *api.Report {
	report := &api.Report{PeerMode: r.peerMode.Enum(), Task: r.task, Version: r.version, PolicyRevision: r.revision()}
	users := map[string]string{} // proxies by the entries that they use
	proxies := r.proxyStatus()
	stopped, _ := r.authz.Stopped()
	report.Own = slices.Concat(r.fixed, sameUser(proxies), stopped)
	for _, s := range proxies {
		name, view := s.Proxy.Name, r.relay.ViewOf(s.Proxy.Name)
		status := proxyReport(s, view)
		if view != nil && s.State == api.ProxyStatus_READY {
			may := r.speaker(view.Shape(), s.Proxy.UID(), view.BoundAs())
			status.Speaker, status.SpeakerProblem, status.SpeakerFault, status.Applications = may.Who, may.Problem, may.Fault, may.Applications
		}
		report.Proxies = append(report.Proxies, status)
		report.Own = append(report.Own, s.Findings...)
		if view != nil {
			users[view.BoundAs().Entry] = name
			var without []string
			for _, l := range view.LeftOut() {
				status.LeftOut = append(status.LeftOut, &api.ResourceStatus{TypeUrl: ads.ListenerType, Name: l.Listener, Message: l.Why})
				without = append(without, fmt.Sprintf("without listener %s, %s", l.Listener, l.Why))
			}
			if without != nil {
				report.Own = append(report.Own, finding(api.AgentFinding_PROXY_ADDRESS, "proxy %s runs %s", name, strings.Join(without, "; ")))
			}
			for _, p := range view.FileProblems() {
				report.Own = append(report.Own, finding(api.AgentFinding_TLS_FILES, "proxy %s: %s", name, p))
			}
		}
		if s.State == api.ProxyStatus_WAITING && s.Reason != "" {
			f := finding(s.Waits, "proxy %s waits: %s", name, s.Reason)
			f.Proxy = name
			report.Own = append(report.Own, f)
		}
	}
	r.addForeign(report)
	report.Views = r.relay.Statuses()
	held := r.keeper.Held()
	for _, name := range slices.Sorted(maps.Keys(held)) {
		report.Svids = append(report.Svids, svidReport(held[name], name, users[name], r.files.Of(name)))
	}
	if s := r.state.Load(); s != nil {
		for _, p := range s.Problems {
			report.Own = append(report.Own, finding(api.AgentFinding_RESOURCE_NOT_USABLE, "%s", p))
		}
	}
	for _, p := range r.files.Problems() {
		report.Own = append(report.Own, finding(api.AgentFinding_RESOURCE_NOT_USABLE, "%s", p))
	}
	api.Reconcile(report) // for a server of the version before
	for _, f := range report.GetOwn() {
		report.Findings = append(report.Findings, f.GetKindWord()+": "+f.GetText())
	}
	return report
}

func finding(kind api.AgentFinding_Kind, text string, args ...any) *api.AgentFinding {
	return &api.AgentFinding{Kind: kind.Enum(), Text: fmt.Sprintf(text, args...)}
}

// revision is the newest revision if the authz process has it, else one that it has.
func (r *reporter) revision() string {
	loaded, _ := r.authz.Loaded()
	s := r.state.Load()
	if s != nil && slices.Contains(loaded, s.Newest) {
		return s.Newest
	}
	for _, id := range loaded {
		if s == nil || id != s.Newest {
			return id
		}
	}
	return ""
}

func proxyReport(s envoy.Status, view *relay.View) *api.ProxyStatus {
	p := &api.ProxyStatus{
		Name:         s.Proxy.Name,
		VirtualNode:  &api.VirtualNodeRef{Mesh: s.Proxy.Ref.Mesh, Name: s.Proxy.Ref.Name, Gateway: s.Proxy.Ref.Gateway()},
		Address:      s.Proxy.Shape.Bind,
		Healthy:      s.State == api.ProxyStatus_READY,
		EnvoyVersion: s.Version,
		Pid:          int64(s.PID),
		Restarts:     int32(s.Restarts), //nolint:gosec // a count
		State:        s.State.Enum(),
		Reason:       s.Reason,
		Failing:      s.Failing,
	}
	if view != nil {
		p.Ports = view.Ports()
		addConfig(p, view)
	}
	return p
}

// addForeign adds the proxies that the agent did not start, after those that it did: the
// places of these are theirs.
func (r *reporter) addForeign(report *api.Report) {
	for _, f := range r.relay.Foreign() {
		p := &api.ProxyStatus{
			Name: f.Name, Foreign: true, VirtualNode: &api.VirtualNodeRef{Mesh: f.Ref.Mesh, Name: f.Ref.Name, Gateway: f.Ref.Gateway()},
			Address: f.Shape.Bind, Ports: f.Ports, Healthy: f.Healthy, EnvoyVersion: f.Shape.EnvoyVersion, State: api.ProxyStatus_READY.Enum(),
		}
		if !f.Healthy {
			p.Reason = "it has no stream to its agent, or listens no more"
		}
		addConfig(p, f.View)
		report.Proxies = append(report.Proxies, p)
		if f.Left != "" {
			report.Own = append(report.Own, finding(api.AgentFinding_PROXY_ADDRESS, "proxy %s is not called at all of its ports, %s", f.Name, f.Left))
		}
	}
	report.Returning = time.Since(r.begun) < relay.ComesBackWithin
}

// addConfig adds what a proxy has of its view.
func addConfig(p *api.ProxyStatus, view *relay.View) {
	p.Types = view.Types()
	version, at, synced := view.Synced()
	p.ConfigVersion, p.Config = version, api.ProxyStatus_PENDING.Enum()
	if synced {
		p.Config, p.Acknowledged = api.ProxyStatus_SYNCED.Enum(), timestamppb.New(at)
	}
	for _, j := range view.Rejected() {
		p.Rejected = append(p.Rejected, &api.ResourceStatus{TypeUrl: j.Type, Name: j.Name, Version: j.Version, Message: j.Message})
	}
	if len(p.GetRejected()) > 0 {
		p.Config = api.ProxyStatus_REJECTED.Enum()
	}
	slices.SortFunc(p.Rejected, func(a, b *api.ResourceStatus) int {
		return cmp.Or(cmp.Compare(a.GetTypeUrl(), b.GetTypeUrl()), cmp.Compare(a.GetName(), b.GetName()))
	})
}

// sameUser is the finding about proxies that run as the agent's own user.
func sameUser(all []envoy.Status) []*api.AgentFinding {
	var same []string
	for _, s := range all {
		if !s.Proxy.User.Other() {
			same = append(same, s.Proxy.Name)
		}
	}
	if same == nil {
		return nil
	}
	slices.Sort(same)
	return []*api.AgentFinding{finding(api.AgentFinding_PROXIES_SAME_USER, "as the agent's own user, uid %d, run the Envoys of %s", os.Geteuid(), strings.Join(same, ", "))}
}

func svidReport(s *svids.SVID, entry, proxy, folder string) *api.SVIDStatus {
	consumer, word := api.SVIDStatus_WORKLOAD, ""
	switch {
	case entry == svids.Own:
		consumer = api.SVIDStatus_AGENT
	case proxy != "":
		consumer, word = api.SVIDStatus_PROXY, "proxy:"+proxy
	case folder != "":
		word = "workload:files/" + folder
	}
	return &api.SVIDStatus{
		SpiffeId:     s.ID.String(),
		Serial:       s.Serial(),
		NotAfter:     timestamppb.New(s.NotAfter()),
		NextRenewal:  timestamppb.New(s.Due),
		LastRotation: timestamppb.New(s.Issued),
		Consumer:     consumer.Enum(),
		ConsumerWord: word,
		// What it leaves at worst, just before it is renewed: a figure that does not
		// change by itself, so that it is not news every second.
		OutageBudget: durationpb.New(s.NotAfter().Sub(s.Due)),
	}
}
