package admin

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"signet.example/api"
	"signet.example/internal/watched"
	"signet.example/proxy"
	"signet.example/server/fault"
	"signet.example/server/fleet"
	"signet.example/server/kinds"
)

const (
	// progressPace is the least time from one look at how far a change has come to the next.
	progressPace = 50 * time.Millisecond
	// progressIdle is the most, where no agent says anything.
	progressIdle = time.Second
)

// Progress sends how far what is stored has come.
func (s *Server) Progress(req *api.ProgressRequest, stream grpc.ServerStreamingServer[api.ProgressResponse]) error {
	ctx := stream.Context()
	since := s.cfg.Routing.Mark(ctx)
	decided, err := s.decided(ctx, req.GetNodes())
	if err != nil {
		return err
	}
	var sent *api.ProgressResponse
	for {
		wake := s.cfg.Sessions.Wait()
		decided.look(ctx)
		next := s.progress(req.GetNodes(), since, decided)
		if sent == nil || !proto.Equal(sent, next) {
			if err := stream.Send(next); err != nil {
				return err
			}
			sent = next
		}
		if next.GetSettled() || !watched.Sleep(ctx, progressPace) {
			return nil
		}
		if err := s.await(ctx, wake, progressIdle); err != nil {
			return err
		}
	}
}

// await waits until wake is closed, or the caller is gone, or for the most that it may. It returns an
// error if the server stops.
func (s *Server) await(ctx context.Context, wake <-chan struct{}, most time.Duration) error {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-wake:
	case <-timer.C:
	case <-s.cfg.Stopping:
		return fault.New(fault.Unavailable, "the server is stopping")
	case <-ctx.Done():
	}
	return nil
}

// progress returns what the proxies of virtual nodes have now.
func (s *Server) progress(nodes []*api.Effect_Node, since uint64, decided *decided) *api.ProgressResponse {
	resp := &api.ProgressResponse{Settled: true}
	agents := slices.DeleteFunc(s.cfg.Fleet.All(), func(st fleet.Status) bool { return !st.Serves() })
	for _, n := range nodes {
		for _, st := range agents {
			resp.Proxies = append(resp.Proxies, s.progressAt(n, st, since, decided)...)
		}
		resp.Settled = resp.Settled && s.cfg.Routing.Settled(refOfNode(n))
	}
	for _, p := range resp.GetProxies() {
		resp.Settled = resp.Settled && p.GetState() != api.ProgressResponse_Proxy_WAITING
	}
	api.Reconcile(resp)
	return resp
}

func refOfNode(n *api.Effect_Node) proxy.Ref {
	return proxy.For(n.GetNode().GetMesh(), n.GetNode().GetName(), n.GetNode().GetGateway())
}

// progressAt returns what the proxies of a virtual node at one agent have.
func (s *Server) progressAt(n *api.Effect_Node, at fleet.Status, since uint64, decided *decided) (list []*api.ProgressResponse_Proxy) {
	var of []*api.ProxyStatus
	for _, p := range at.Report.GetProxies() {
		if fleet.RefOf(p) == refOfNode(n) && p.GetState() != api.ProxyStatus_DRAINING {
			of = append(of, p)
		}
	}
	if of == nil {
		return nil
	}
	has, rejected := s.cfg.Routing.Reached(at.Agent.ID, refOfNode(n), since)
	undecided := ""
	if n.GetAuthorization() != "" {
		undecided = decided.lacks(at, refOfNode(n))
	}
	for _, p := range of {
		one := &api.ProgressResponse_Proxy{Agent: at.Agent.ID, Name: p.GetName(), Node: n.GetNode(), State: api.ProgressResponse_Proxy_WAITING.Enum()}
		switch {
		case at.State != api.AgentInfo_CONNECTED:
			one.Why = "its agent is " + api.Word(at.State)
		case !fleet.Runs(p):
			one.Why = strings.TrimSuffix("it is "+api.Word(p.GetState())+": "+p.GetReason(), ": ")
		case undecided != "":
			one.Why = undecided
		case has:
			one.State = api.ProgressResponse_Proxy_APPLIED.Enum()
		}
		if one.Refused = fleet.Lacks(p, of, rejected, func(r *api.ResourceStatus) bool { return changes(n, r) }); len(one.GetRefused()) > 0 && at.State == api.AgentInfo_CONNECTED {
			one.State = api.ProgressResponse_Proxy_REFUSED.Enum()
		}
		list = append(list, one)
	}
	return list
}

// changes reports whether a resource of a proxy is one of those that a change makes another.
func changes(n *api.Effect_Node, r *api.ResourceStatus) bool {
	return slices.ContainsFunc(n.GetResources(), func(c *api.Effect_Resource) bool {
		return c.GetType() == r.GetTypeUrl() && fleet.Placeless(c.GetName()) == fleet.Placeless(r.GetName())
	})
}

// standing adds to those whom an apply concerns the proxies that refused what it has from before:
// whoever applies again what was refused is not told that all is well since nothing changes. That
// is of the objects that were given, and not of what others stored.
func (s *Server) standing(e *api.Effect, in Model, given []*api.Change) {
	var unchanged []kinds.Key
	for _, c := range given {
		if c.GetAction() == api.Change_UNCHANGED {
			unchanged = append(unchanged, kinds.Key{Kind: c.GetKind(), Mesh: c.GetMesh(), Name: c.GetName()})
		}
	}
	reached := kinds.Reached(in.Graph(), in.Objects(), unchanged)
	nodes := map[proxy.Ref]*api.Effect_Node{}
	for _, n := range e.GetNodes() {
		nodes[refOfNode(n)] = n
	}
	for _, st := range s.cfg.Fleet.All() {
		for _, p := range st.Report.GetProxies() {
			at, refused := fleet.RefOf(p), slices.Concat(p.GetRejected(), p.GetLeftOut())
			if !reached[at] || len(refused) == 0 || !st.Serves() {
				continue
			}
			if nodes[at] == nil {
				nodes[at] = &api.Effect_Node{Node: p.GetVirtualNode()}
			}
			for _, r := range refused {
				if !changes(nodes[at], r) {
					nodes[at].Resources = append(nodes[at].Resources, &api.Effect_Resource{Action: "refused", Type: r.GetTypeUrl(), Name: r.GetName()})
				}
			}
		}
	}
	e.Nodes = nil
	for _, at := range slices.SortedFunc(maps.Keys(nodes), proxy.Ref.Compare) {
		e.Nodes = append(e.Nodes, nodes[at])
	}
}
