package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/ads"
	"signet.example/agent/svids"
	"signet.example/api"
	"signet.example/internal/watched"
)

// reporter gathers the agent's state for reports. It owns none of it.
type reporter struct {
	u        *upstream
	relay    *relay
	authz    *authzProcess
	envoys   func() []*envoy
	peerMode api.Report_PeerMode
	version  string
	// proxies is set with every change of a proxy's status.
	proxies *watched.Value[int]
	// speaker is who may call out through a proxy (wayOut.speaker).
	speaker func(Proxy, *proxyView) (who, problem string, applications []string)
	// fixed findings hold as long as the agent runs.
	fixed []string
}

// changed is closed when the report may have become another one, or reportIdle
// has passed.
func (r *reporter) changed(ctx context.Context) <-chan struct{} {
	_, held := r.u.keeper.Watch()
	_, state := r.u.state.Get()
	_, loaded := r.authz.loaded.Get()
	_, stopped := r.authz.stopped.Get()
	_, proxies := r.proxies.Get()
	_, relay := r.relay.changed.Get()
	done := make(chan struct{})
	go func() { // ends within reportIdle, or with ctx
		defer close(done)
		t := time.NewTimer(reportIdle)
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

// ready reports whether a proxy of this name serves.
func (r *reporter) ready(name string) bool {
	return slices.ContainsFunc(r.envoys(), func(e *envoy) bool {
		return e.proxy.Name == name && e.status.Load().state == api.ProxyStatus_READY
	})
}

func (r *reporter) report() *api.Report {
	report := &api.Report{PeerMode: r.peerMode.Enum(), Version: r.version, PolicyRevision: r.revision()}
	proxies := map[string]string{} // by the entries that they use
	report.Findings = slices.Concat(r.fixed, sameUser(r.envoys()), stoppedFindings(r.authz.stopped.Load()))
	for _, e := range r.envoys() {
		s := e.status.Load()
		status := proxyReport(e, s)
		if s.view != nil && s.state == api.ProxyStatus_READY {
			status.Speaker, status.SpeakerProblem, status.Applications = r.speaker(e.proxy, s.view)
		}
		report.Proxies = append(report.Proxies, status)
		report.Findings = append(report.Findings, e.classical.findings(time.Now(), e.proxy.Name)...)
		if s.view != nil {
			proxies[s.view.want.Entry] = e.proxy.Name
		}
		if s.view != nil {
			if left := s.view.leftOut(); left != "" {
				report.Findings = append(report.Findings, fmt.Sprintf("proxy-address: proxy %s runs %s", e.proxy.Name, left))
			}
		}
		if s.state == api.ProxyStatus_WAITING && s.reason != "" {
			name := "proxy-waiting"
			if strings.HasPrefix(s.reason, addressTaken) {
				name = "proxy-address"
			}
			report.Findings = append(report.Findings, fmt.Sprintf("%s: proxy %s waits: %s", name, e.proxy.Name, s.reason))
		}
	}
	held := r.u.keeper.Held()
	for _, name := range slices.Sorted(maps.Keys(held)) {
		report.Svids = append(report.Svids, svidReport(held[name], name, proxies[name]))
	}
	if s := r.u.state.Load(); s != nil {
		for _, p := range s.problems {
			report.Findings = append(report.Findings, "resource-not-usable: "+p)
		}
	}
	api.Reconcile(report) // for a server of the version before
	return report
}

// revision is the newest revision if the authz process has it, else one that it has.
func (r *reporter) revision() string {
	loaded := r.authz.loaded.Load()
	s := r.u.state.Load()
	if s != nil && slices.Contains(loaded, s.newest) {
		return s.newest
	}
	for _, id := range loaded {
		if s == nil || id != s.newest {
			return id
		}
	}
	return ""
}

func proxyReport(e *envoy, s proxyStatus) *api.ProxyStatus {
	p := &api.ProxyStatus{
		Name:         e.proxy.Name,
		VirtualNode:  &api.VirtualNodeRef{Mesh: e.proxy.Mesh, Name: e.proxy.VirtualNode},
		Address:      e.proxy.Bind,
		Healthy:      s.state == api.ProxyStatus_READY,
		EnvoyVersion: s.version,
		Pid:          int64(s.pid),
		Restarts:     int32(s.restarts), //nolint:gosec // a count
		State:        s.state.Enum(),
		Reason:       s.reason,
	}
	if s.view == nil {
		return p
	}
	p.Ports = ingressPorts(s.view.published.Load())
	for _, j := range s.view.view.Rejected() {
		p.Rejected = append(p.Rejected, &api.ResourceStatus{TypeUrl: j.Type, Name: j.Name, Version: j.Version, Message: j.Message})
	}
	slices.SortFunc(p.Rejected, func(a, b *api.ResourceStatus) int {
		return cmp.Or(cmp.Compare(a.GetTypeUrl(), b.GetTypeUrl()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return p
}

// ingressPrefix begins the names of the listeners that others call.
const ingressPrefix = "lds_ingress_"

// ingressPorts are the ports of the listeners that others call.
func ingressPorts(set *ads.Set) []uint32 {
	var ports []uint32
	for _, r := range set.Type(ads.ListenerType) {
		if !strings.HasPrefix(r.Name, ingressPrefix) {
			continue
		}
		var l listenerv3.Listener
		if proto.Unmarshal(r.Body, &l) == nil {
			ports = append(ports, l.GetAddress().GetSocketAddress().GetPortValue())
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

func svidReport(s *svids.SVID, entry, proxy string) *api.SVIDStatus {
	consumer, word := api.SVIDStatus_WORKLOAD, ""
	switch {
	case entry == svids.Own:
		consumer = api.SVIDStatus_AGENT
	case proxy != "":
		consumer, word = api.SVIDStatus_PROXY, "proxy:"+proxy
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
