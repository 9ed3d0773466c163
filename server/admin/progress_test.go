package admin_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"signet.example/api"
	"signet.example/server/fleet"
	"signet.example/store"
)

// progressStream keeps what is sent, a line a proxy.
type progressStream struct {
	grpc.ServerStream

	ctx  context.Context
	sent []string
}

func (s *progressStream) Context() context.Context { return s.ctx }

func (s *progressStream) Send(m *api.ProgressResponse) error {
	line := ""
	for _, p := range m.GetProxies() {
		line += p.GetName() + " " + p.GetStateWord()
		if p.GetWhy() != "" {
			line += " (" + p.GetWhy() + ")"
		}
		for _, r := range p.GetRefused() {
			line += ": " + r.GetMessage()
		}
		line += "; "
	}
	if m.GetSettled() {
		line += "settled"
	}
	s.sent = append(s.sent, line)
	return nil
}

var webRef = &api.VirtualNodeRef{Mesh: "shop", Name: "web"}

// at is an agent with proxies of web.
func at(id string, state api.AgentInfo_State, proxies ...*api.ProxyStatus) fleet.Status {
	for _, p := range proxies {
		if p.GetVirtualNode() == nil {
			p.VirtualNode = webRef
		}
	}
	return fleet.Status{Agent: store.Agent{ID: id}, State: state, Report: &api.Report{Proxies: proxies}}
}

func proxyIn(name string, state api.ProxyStatus_State) *api.ProxyStatus {
	return &api.ProxyStatus{Name: name, State: state.Enum(), Address: "10.0.0.1"}
}

// aChange of web is of a cluster and two listeners.
var aChange = []*api.Effect_Node{{Node: webRef, Resources: []*api.Effect_Resource{
	{Type: "x.Cluster", Name: "c"}, {Type: "x.Listener", Name: "lds_ingress_ADDRESS_80"}, {Type: "x.Listener", Name: "lds_egress_127.0.0.2_15001"},
}}}

// progressNow is what is sent of aChange in a while.
func progressNow(t *testing.T, d *desk) []string {
	t.Helper()
	return progressOf(t, d, aChange)
}

func progressOf(t *testing.T, d *desk, nodes []*api.Effect_Node) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(d.ctx())
	s, done := &progressStream{ctx: ctx}, make(chan error, 1)
	go func() { done <- d.admin.Progress(&api.ProgressRequest{Nodes: nodes}, s) }()
	time.Sleep(10 * time.Second)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return s.sent
}

func TestAChangeIsAtEachProxyThatHasItOrRefusedItAndWhoDidNotAnswerIsWaitedFor(t *testing.T) {
	refused := func(typeURL, name, message string) *api.ResourceStatus {
		return &api.ResourceStatus{TypeUrl: typeURL, Name: name, Version: "2", Message: message}
	}
	const ready, connected = api.ProxyStatus_READY, api.AgentInfo_CONNECTED
	waits := proxyIn("p", api.ProxyStatus_WAITING)
	waits.Reason = "no binding fits"
	left := proxyIn("p", ready)
	left.LeftOut = []*api.ResourceStatus{{TypeUrl: "x.Listener", Name: "lds_ingress_10.0.0.1_80", Message: "taken"}, {TypeUrl: "x.Listener", Name: "lds_ingress_10.0.0.1_90", Message: "also taken"}}
	foreign := proxyIn("q", ready)
	foreign.VirtualNode = &api.VirtualNodeRef{Mesh: "shop", Name: "orders"}
	twin := proxyIn("q", ready)
	twin.Rejected = []*api.ResourceStatus{refused("x.Cluster", "c", "no")}
	for name, c := range map[string]struct {
		agents []fleet.Status
		said   reached
		moving bool
		want   string
	}{
		"it has it":                  {[]fleet.Status{at("a", connected, proxyIn("p", ready))}, reached{has: true}, false, "p applied; settled"},
		"it has not":                 {[]fleet.Status{at("a", connected, proxyIn("p", ready))}, reached{}, false, "p waiting; "},
		"no caller is sent to it":    {[]fleet.Status{at("a", connected, proxyIn("p", api.ProxyStatus_UNSERVED))}, reached{has: true}, false, "p applied; settled"},
		"it does not run":            {[]fleet.Status{at("a", connected, waits)}, reached{}, false, "p waiting (it is waiting: no binding fits); "},
		"it ends":                    {[]fleet.Status{at("a", connected, proxyIn("p", api.ProxyStatus_DRAINING))}, reached{}, false, "settled"},
		"its agent is away":          {[]fleet.Status{at("a", api.AgentInfo_AWAY, proxyIn("p", ready))}, reached{has: true}, false, "p waiting (its agent is away); "},
		"its host is gone":           {[]fleet.Status{at("a", api.AgentInfo_GONE, proxyIn("p", ready))}, reached{}, false, "settled"},
		"its host is banned":         {[]fleet.Status{at("a", api.AgentInfo_BANNED, proxyIn("p", ready))}, reached{}, false, "settled"},
		"another node's":             {[]fleet.Status{at("a", connected, foreign)}, reached{}, false, "settled"},
		"there are no hosts":         {nil, reached{}, false, "settled"},
		"another host tries it next": {[]fleet.Status{at("a", connected, proxyIn("p", ready))}, reached{has: true}, true, "p applied; "},
		"it refused some": {
			[]fleet.Status{at("a", connected, proxyIn("p", ready))},
			reached{true, []*api.ResourceStatus{refused("x.Cluster", "c", "no"), refused("x.Cluster", "c", "no")}},
			false, "p refused: no; settled",
		},
		"it refused its own listeners": {
			[]fleet.Status{at("a", connected, proxyIn("p", ready))},
			reached{true, []*api.ResourceStatus{refused("x.Listener", "lds_ingress_10.0.0.1_80", "in"), refused("x.Listener", "lds_egress_unix:/x", "out")}},
			false, "p refused: in: out; settled",
		},
		"it refused something else before": {
			[]fleet.Status{at("a", connected, proxyIn("p", ready))},
			reached{true, []*api.ResourceStatus{refused("x.Cluster", "d", "no"), refused("x.Listener", "lds_ingress_10.0.0.1_90", "no")}},
			false, "p applied; settled",
		},
		"its agent leaves out what changes": {[]fleet.Status{at("a", connected, left)}, reached{has: true}, false, "p refused: taken; settled"},
		"its twin on the host refused it": {
			[]fleet.Status{at("a", connected, proxyIn("p", ready), twin)},
			reached{true, []*api.ResourceStatus{refused("x.Cluster", "c", "no")}},
			false, "p applied; q refused: no; settled",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDesk(t)
				d.agents, d.reached, d.moving = c.agents, map[string]reached{"a": c.said}, c.moving
				if got := progressNow(t, d); !slices.Equal(got, []string{c.want}) {
					t.Errorf("%q, want %q", got, c.want)
				}
			})
		})
	}
}

func TestWhatIsNewsOfAChangeIsSentAndEndsWithTheLastAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.agents = []fleet.Status{
			at("a", api.AgentInfo_CONNECTED, proxyIn("p", api.ProxyStatus_READY)),
			at("b", api.AgentInfo_CONNECTED, proxyIn("q", api.ProxyStatus_READY)),
		}
		d.reached = map[string]reached{}
		s, done := &progressStream{ctx: d.ctx()}, make(chan error, 1)
		go func() { done <- d.admin.Progress(&api.ProgressRequest{Nodes: aChange}, s) }()
		for _, agent := range []string{"b", "a"} {
			time.Sleep(10 * time.Second)
			synctest.Wait()
			d.reaching.Lock()
			d.reached[agent] = reached{has: true}
			d.reaching.Unlock()
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if want := []string{"p waiting; q waiting; ", "p waiting; q applied; ", "p applied; q applied; settled"}; !slices.Equal(s.sent, want) {
			t.Errorf("%q, want %q", s.sent, want)
		}
	})
}

// A Mesh and its options are in the views of all nodes: who applies one again that a proxy refuses is
// told so, and not of what others changed since.
func TestWhatRefusesAMeshOrABindingIsToldToWhoAppliesItAgain(t *testing.T) {
	const head = "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: "
	options := func(mode string) string {
		return "---\napiVersion: signet.example/v1alpha1\nkind: MeshOptions\nmetadata: {name: shop}\nspec: {authorization: " + mode + "}\n"
	}
	egress := func(kind string) string {
		return head + "Mesh\nmetadata: {name: shop}\nspec: {egressFilter: {type: " + kind + "}}\n"
	}
	port := func(node, port string) string {
		return head + "VirtualNode\nmetadata: {name: " + node + "}\nspec: {listeners: [{portMapping: {port: " + port + ", protocol: http}}]}\n"
	}
	binding := func(selector string) string {
		return "---\napiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: b}\nspec: {group: front, mesh: shop, virtualNode: web, selectors: [\"unix:uid:" + selector + "\"]}\n"
	}
	for name, c := range map[string]struct {
		stored []string // one after the other
		again  string
		want   string // the nodes whose refusals are told
	}{
		"a mesh":                         {[]string{port("orders", "80"), egress("DROP_ALL")}, egress("DROP_ALL"), "orders web"},
		"its options":                    {[]string{options("observe")}, options("observe"), "orders web"},
		"a node of it was changed since": {[]string{egress("DROP_ALL"), port("web", "81")}, egress("DROP_ALL"), "orders"},
		"both were changed":              {[]string{egress("DROP_ALL"), port("web", "81")}, egress("DROP_ALL") + port("web", "81"), "orders web"},
		"a node alone":                   {[]string{egress("DROP_ALL"), port("web", "81")}, port("web", "81"), "web"},
		"a binding":                      {[]string{binding("7")}, binding("7"), "web"},
		"a group":                        {nil, groupNamed("front"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			for _, m := range append([]string{groupNamed("front") + options("enforce") + egress("ALLOW_ALL") + port("web", "80") + port("orders", "90")}, c.stored...) {
				if _, err := d.admin.Apply(d.ctx(), applyOf(m)); err != nil {
					t.Fatal(err)
				}
			}
			for _, node := range []string{"web", "orders"} {
				p := proxyIn(node, api.ProxyStatus_READY)
				p.VirtualNode, p.Rejected = &api.VirtualNodeRef{Mesh: "shop", Name: node}, []*api.ResourceStatus{{TypeUrl: "x.Cluster", Name: "c", Message: "no"}}
				d.agents = append(d.agents, at("a-"+node, api.AgentInfo_CONNECTED, p))
			}
			req := applyOf(c.again)
			req.Concerned = true
			resp, err := d.admin.Apply(d.ctx(), req)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, n := range resp.GetEffect().GetNodes() {
				got = append(got, n.GetNode().GetName())
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("told are refusals of %q, want %q", got, c.want)
			}
		})
	}
}
