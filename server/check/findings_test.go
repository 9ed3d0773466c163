package check

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/authz/jwt"
	"signet.example/identity"
	"signet.example/internal/ordered"
	"signet.example/internal/watched"
	"signet.example/mesh"
	"signet.example/policy"
	"signet.example/proxy"
	"signet.example/server/cloudmap"
	"signet.example/server/fleet"
	"signet.example/server/groups"
	"signet.example/server/issuers"
	"signet.example/server/kinds"
	"signet.example/server/policies"
	"signet.example/store"
)

var td = spiffeid.RequireTrustDomainFromString("test.example")

// model is what is stored.
type model struct {
	graph   *mesh.Graph
	objects ordered.Map[kinds.Key, *kinds.Object]
	groups  groups.Groups
}

func (m model) Graph() *mesh.Graph                             { return m.graph }
func (m model) Objects() ordered.Map[kinds.Key, *kinds.Object] { return m.objects }
func (m model) Groups() groups.Groups                          { return m.groups }

func modelOf(t *testing.T, manifests string) model {
	t.Helper()
	docs, err := mesh.Split("a.yaml", []byte(manifests))
	if err != nil {
		t.Fatal(err)
	}
	var m model
	var objects []*kinds.Object
	var placing []identity.NodeGroup
	for _, d := range docs {
		o, err := kinds.Parse(d, td)
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, o)
	}
	if err := kinds.AssignMeshes(objects); err != nil {
		t.Fatal(err)
	}
	var resources []*mesh.Resource
	for _, o := range objects {
		m.objects = m.objects.With(o.Key(), o)
		if o.Resource != nil {
			resources = append(resources, o.Resource)
		}
		if g, ok := o.Value.(identity.NodeGroup); ok {
			placing = append(placing, g)
		}
		grant, err := groups.NewGrant(o.Value, 1, td)
		if err != nil {
			t.Fatal(err)
		}
		m.groups = m.groups.With(grant)
	}
	m.groups = m.groups.Placed(slices.Values(placing))
	if m.graph, err = mesh.NewGraph(resources); err != nil {
		t.Fatal(err)
	}
	return m
}

func own(kind, name, spec string) string {
	return fmt.Sprintf("---\napiVersion: signet.example/v1alpha1\nkind: %s\nmetadata: {name: %s}\nspec: {%s}\n", kind, name, spec)
}

func ofMesh(kind, metadata, spec string) string {
	return fmt.Sprintf("---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: %s\nmetadata: {%s}\nspec: {%s}\n", kind, metadata, spec)
}

const listener = "listeners: [{portMapping: {port: 80, protocol: http}}]"

// parts of a mesh in which web calls orders, which a name leads to.
var (
	shop    = ofMesh("Mesh", "name: shop", "")
	web     = ofMesh("VirtualNode", "name: web", listener+", backends: [{virtualService: {virtualServiceRef: {name: orders}}}]")
	orders  = ofMesh("VirtualNode", "name: orders", listener+", serviceDiscovery: {dns: {hostname: orders.internal}}")
	service = ofMesh("VirtualService", "name: orders", "provider: {virtualNode: {virtualNodeRef: {name: orders}}}")
	source  = own("PolicySource", "main", "url: \"https://git.example/p.git\"")
	rack    = own("NodeGroup", "rack", "selectors: [\"x509pop:subject:cn:rack-1\"]")
	all     = shop + web + orders + service + source + rack
)

// sound is a look that nothing is wrong with.
func sound(t *testing.T) Look {
	t.Helper()
	there := connected(agent("here", "g", "here", time.Hour, time.Minute))
	there.Report = &api.Report{PolicyRevision: "r", PeerMode: api.Report_PIDFD.Enum()}
	l := lookAt(there)
	l.TrustDomain, l.Stored, l.Endpoints = td, modelOf(t, all), &fleet.Registered{}
	l.Signer = Signer{Separate: true, NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour)}
	l.Policy = Policy{State: &policies.State{Current: &api.PolicyRevision{Id: "r", Modules: []*api.PolicyModule{{}}}, Since: noon.Add(-time.Hour)}}
	return l
}

// behindALB is what a load balancer calls, and byALB the beginning of an issuer that is one.
var behindALB = own("VirtualNodeOptions", "orders", "listeners: [{port: 80, ingress: [{name: alb, ranges: [10.0.0.0/24]}]}]")

const byALB = `issuer: "https://login.example", clients: [web], signers: ["arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/front/50dc6c495c0c9188"], `

// ill and well are proxies of one virtual node, of which the first has an application that fails.
func ill() *api.ProxyStatus {
	return &api.ProxyStatus{
		Name: "web", VirtualNode: &api.VirtualNodeRef{Mesh: "shop", Name: "web"}, Address: "127.0.0.2", Ports: []uint32{80}, Failing: []uint32{80},
		State: api.ProxyStatus_READY.Enum(), Healthy: true,
	}
}

func well() *api.ProxyStatus {
	p := ill()
	p.Name, p.Address, p.Failing = "web-2", "127.0.0.3", nil
	return p
}

type anywhere struct{}

func (anywhere) MayHost(string, proxy.Ref) (string, bool) { return "g", true }
func (anywhere) MayListen(string, netip.Addr) bool        { return true }

// registered is what a server has of proxies of agent "here".
func registered(t *testing.T, proxies ...*api.ProxyStatus) *fleet.Registered {
	t.Helper()
	known := &watched.Value[*fleet.Known]{}
	known.Set(&fleet.Known{})
	e := fleet.NewEndpoints(fleet.EndpointsConfig{Shared: known, Hosts: anywhere{}, Clock: func() time.Time { return noon }})
	if refused := e.Report(fleet.Peer{Agent: store.Agent{ID: "here"}, Remote: netip.IPv6Loopback()}, &api.Report{Proxies: proxies}); len(refused) > 0 {
		t.Fatal(refused)
	}
	return e.Snapshot()
}

// TestEachFindingIsOfItsConditionAlone has one thing wrong at a time. What is wrong on a
// server that runs, and mended there, is server's test.
func TestEachFindingIsOfItsConditionAlone(t *testing.T) {
	report := func(change func(*api.Report)) func(*Look) {
		return func(l *Look) { change(l.Agents[0].Report) }
	}
	proxyOf := func(p *api.ProxyStatus) func(*Look) {
		return report(func(r *api.Report) { p.Name, r.Proxies = "web", []*api.ProxyStatus{p} })
	}
	svid := func(due, end time.Duration) func(*Look) {
		return report(func(r *api.Report) {
			r.Svids = []*api.SVIDStatus{{SpiffeId: "spiffe://test.example/x", Serial: "01", NextRenewal: timestamppb.New(noon.Add(due)), NotAfter: timestamppb.New(noon.Add(end))}}
		})
	}
	stored := func(manifests string) func(*Look) { return func(l *Look) { l.Stored = modelOf(t, manifests) } }
	issuing := func(left time.Duration) func(*Look) {
		return func(l *Look) { l.Signer.NotAfter = noon.Add(left) }
	}
	binding := func(name, node string) string {
		return own("Binding", name, "group: rack, mesh: shop, virtualNode: "+node+", selectors: [\"unix:uid:1\"]")
	}
	node := proxy.Node("shop", "web")
	found := map[string]bool{}
	for _, c := range []struct {
		id, says string
		severity api.Finding_Severity
		wrong    func(*Look)
	}{
		{"SIG001", "it is not connected", sevWarning, func(l *Look) { l.Agents = append(l.Agents, agent("away", "g", "away", time.Hour, time.Minute)) }},
		{"SIG002", "expired", sevError, svid(-time.Minute, 0)},
		{"SIG003", "rotation was due", sevWarning, svid(-2*time.Minute, time.Hour)},
		{"SIG004", "Envoy refused Listener", sevError, proxyOf(&api.ProxyStatus{Rejected: []*api.ResourceStatus{{TypeUrl: "type.googleapis.com/envoy.config.listener.v3.Listener", Name: "x\x1b"}}})},
		{"SIG005", "commit c stays in force: it does not compile", sevError, func(l *Look) {
			l.Policy.State.Current.Commit = "c"
			l.Policy.Statuses = []*api.PolicyStatus{{Source: "main", Error: "it does not compile"}}
		}},
		{"SIG006", policy.WithoutPolicy, sevError, func(l *Look) { l.Policy.State.Current.Modules = nil }},
		{"SIG006", policy.WithoutPolicy, sevWarning, func(l *Look) { l.Policy.State.Current.Modules, l.Stored = nil, modelOf(t, shop) }},
		{"SIG007", "was not renewed", sevError, issuing(10 * time.Minute)},
		{"SIG008", "is not served: taken", sevError, func(l *Look) {
			l.Refused = []fleet.Conflict{{Endpoint: fleet.Endpoint{Agent: "here", Proxy: "web"}, Reason: "taken", Fix: fleet.OtherBind}}
		}},
		{"SIG009", "SO_PEERPIDFD", sevWarning, report(func(r *api.Report) { r.PeerMode = api.Report_LEGACY.Enum() })},
		{"SIG010", "it waits", sevError, report(func(r *api.Report) {
			r.Own = []*api.AgentFinding{{Kind: api.AgentFinding_PROXY_WAITING.Enum(), Text: "it waits"}}
		})},
		{"SIG010", "it fell back", sevInfo, report(func(r *api.Report) {
			r.Own = []*api.AgentFinding{{Kind: api.AgentFinding_CLASSICAL_KEY_EXCHANGE.Enum(), Text: "it fell back"}}
		})},
		{"SIG011", "it was reserved for", sevInfo, func(l *Look) { l.Orphans = []*api.LogRecord{{Serial: "01"}} }},
		{"SIG012", "overlap", sevWarning, stored(all + binding("one", "web") + binding("two", "orders"))},
		{"SIG013", "no agent has joined", sevWarning, func(l *Look) { l.Agents = nil }},
		{"SIG035", "it has not since the server started", sevError, func(l *Look) {
			l.CloudMap = map[proxy.Ref]cloudmap.Failure{proxy.Node("shop", "orders"): {Service: "orders.shop.local", Err: "no answer"}}
		}},
		{"SIG035", "the last good answer", sevWarning, func(l *Look) {
			l.CloudMap = map[proxy.Ref]cloudmap.Failure{proxy.Node("shop", "orders"): {Service: "orders.shop.local", Err: "no answer", Answered: noon}}
		}},
		{"SIG014", "there never were any", sevError, func(l *Look) { l.Failing = map[string]issuers.Failure{"alb/front": {Err: "no answer"}} }},
		{"SIG014", "there never were any", sevError, func(l *Look) { l.Failing = map[string]issuers.Failure{"login": {Err: "no answer"}} }},
		{"SIG014", "the last good ones", sevWarning, func(l *Look) { l.Failing = map[string]issuers.Failure{"login": {Err: "no answer", Fetched: noon}} }},
		{"SIG015", "routes ask for", sevError, func(l *Look) { l.Agents[0].Since, l.Agents[0].Report.PolicyRevision = noon.Add(-time.Minute), "q" }},
		{"SIG016", "held back", sevError, proxyOf(&api.ProxyStatus{State: api.ProxyStatus_BACKOFF.Enum()})},
		{"SIG017", "does not answer: no", sevError, func(l *Look) { l.Signer.Err = errors.New("no") }},
		{"SIG018", "the server's own user", sevWarning, func(l *Look) { l.Signer.Separate = false }},
		{"SIG019", "other hosts reach", sevWarning, func(l *Look) { l.Open = []Proxy{{Node: node}} }},
		{"SIG020", "in two places", sevError, func(l *Look) {
			l.Clashes = map[string]fleet.Clash{"here": {At: noon, Served: netip.IPv6Loopback(), Refused: netip.IPv6Unspecified()}}
		}},
		{"SIG021", "which has no endpoint", sevError, stored(strings.Replace(all, ", serviceDiscovery: {dns: {hostname: orders.internal}}", "", 1))},
		{"SIG022", "it has no provider", sevError, stored(strings.Replace(all, "provider: {virtualNode: {virtualNodeRef: {name: orders}}}", "", 1))},
		{"SIG022", "no virtual node declares it", sevWarning, stored(all + ofMesh("VirtualService", "name: others", ""))},
		{"SIG023", "records are missing", sevError, func(l *Look) { l.Signer.Err, l.Signer.Gone = errors.New("records are missing"), "put it back" }},
		{"SIG024", "no NodeGroup's selectors fit", sevError, func(l *Look) {
			l.Agents[0].Agent.Group, l.Agents[0].Agent.Selectors = "", []string{"x509pop:subject:cn:rack-2"}
		}},
		{"SIG025", "no space left on device", sevError, func(l *Look) { l.Signer.Failed, l.Signer.FailedAt = errors.New("no space left on device"), noon }},
		{"SIG025", "database or disk is full", sevError, func(l *Look) { l.Signer.Err, l.Signer.NotKept = errors.New("database or disk is full"), true }},
		{"SIG030", "shop/a-b and shop/a_b", sevError, func(l *Look) {
			l.Stored = modelOf(t, all+ofMesh("VirtualNode", "name: a-b", listener)+ofMesh("VirtualNode", "name: x, annotations: {}", "awsName: a_b, "+listener))
			l.Policy.Packages = []policy.Package{{Node: "a_b", File: "a.rego", Line: 1}}
		}},
		{"SIG031", "a word of warning", sevWarning, func(l *Look) {
			l.Policy.Statuses = []*api.PolicyStatus{{Source: "main", Warnings: []string{"a word of warning"}}}
		}},
		{"SIG032", "its access log is not written", sevWarning, func(l *Look) { l.Unlogged = []proxy.Ref{node} }},
		{"SIG033", "let through what is unsafe", sevWarning, stored(strings.Replace(all, ofMesh("Mesh", "name: shop", ""), ofMesh("Mesh", "name: shop, annotations: {"+proxy.UnsafeAnnotation+": method-headers}", ""), 1))},
		{"SIG036", "virtual nodes and gateways of mesh shop", sevWarning, stored(all + "---\napiVersion: signet.example/v1alpha1\nkind: MeshOptions\nmetadata: {name: shop}\nspec: {authorization: observe}\n")},
		{"SIG036", "is denied here", sevWarning, stored(all + "---\napiVersion: signet.example/v1alpha1\nkind: VirtualNodeOptions\nmetadata: {name: web}\nspec: {authorization: observe}\n")},
		{"SIG037", "STRICT and refuses plaintext, which is what ingress alb (10.0.0.0/24) sends", sevWarning, stored(all +
			ofMesh("VirtualNode", "name: behind", "listeners: [{portMapping: {port: 8080, protocol: http}, tls: {mode: STRICT, certificate: {acm: {certificateARN: a}}}}]") +
			"---\napiVersion: signet.example/v1alpha1\nkind: VirtualNodeOptions\nmetadata: {name: behind}\nspec: {listeners: [{port: 8080, ingress: [{name: alb, ranges: [10.0.0.0/24]}]}]}\n")},
		{"SIG038", "its routes look at color_header", sevWarning, stored(all + byUnderscore("shop", "web"))},
		{"SIG039", "from ingress front, and no listener has one of this name: to the policy, who comes by that load balancer is no user", sevWarning, stored(all + behindALB + own("ALBIssuer", "login", byALB+"ingress: [alb, front]"))},
		{"SIG039", "is a user only where one of its callers passes the token on", sevWarning, stored(all + behindALB + own("ALBIssuer", "login", byALB+"ingress: [alb, front], callers: [\"spiffe://test.example/shop/edge\"]"))},
		{"SIG034", "are not used", sevWarning, func(l *Look) { l.Losing = map[string][]error{"login": {errors.New("it is weak")}} }},
		{"SIG034", "are not used", sevInfo, func(l *Look) { l.Losing = map[string][]error{"login": {jwt.ErrOtherUse}} }},
		{"SIG040", "nobody may call out", sevWarning, proxyOf(&api.ProxyStatus{SpeakerProblem: "nobody listens"})},
		{"SIG040", "nobody may call out", sevError, proxyOf(&api.ProxyStatus{SpeakerProblem: "nobody fits", Applications: []string{"unix:uid:1"}})},
		{"SIG041", "anybody can", sevWarning, proxyOf(&api.ProxyStatus{Speaker: "unix:uid:1", SpeakerProblem: "anybody can"})},
		{"SIG042", "may call out through it", sevInfo, proxyOf(&api.ProxyStatus{Speaker: "unix:uid:1", Applications: []string{"unix:uid:1"}})},
		{"SIG043", "health check of port 80 of shop/web: no other endpoint", sevError, func(l *Look) {
			p := ill()
			p.Failing = []uint32{81, 80, 80} // as an agent can say: it has no port 81
			proxyOf(p)(l)
			l.Endpoints = registered(t, p)
		}},
		{"SIG043", "health check of port 80 of shop/web: callers go elsewhere", sevWarning, func(l *Look) {
			proxyOf(ill())(l)
			l.Endpoints = registered(t, ill(), well())
		}},
		{"SIG044", "900 agents joined by it, and at 1000 no other one does", sevWarning, func(l *Look) {
			l.Many = map[string]Count{"aws_task:role:web": {900, 1000, "join.aws_task.agents_per_role"}}
		}},
		{"SIG045", "none of its proxies has been ready since: its callers go on as before", sevWarning, func(l *Look) { l.Awaited = l.Awaited.With(proxy.Node("shop", "web")) }},
		{"SIG050", "there is no mesh of this name", sevError, func(l *Look) { l.PostQuantum = []string{"shop", "shp"} }},
	} {
		l := sound(t)
		if list := Findings(l); len(list) > 0 {
			t.Fatalf("nothing is wrong, and it finds %v", list)
		}
		c.wrong(&l)
		list := Findings(l)
		if len(list) != 1 || list[0].GetId() != c.id || list[0].GetSeverity() != c.severity || !strings.Contains(list[0].GetCause(), c.says) || list[0].GetFix() == "" || list[0].GetSubject() == "" {
			t.Errorf("%s %s: it finds %v", c.id, c.says, list)
			continue
		}
		if !slices.Contains(severities[c.id], c.severity) {
			t.Errorf("%s is not said to be %s", c.id, api.Word(c.severity))
		}
		if strings.ContainsRune(list[0].String(), '\x1b') {
			t.Errorf("%s repeats a control character", c.id)
		}
		found[c.id] = true
	}
	for id := range severities {
		if !found[id] {
			t.Errorf("nothing here makes %s", id)
		}
	}
}

// A load balancer of connections carries its clients' TLS to a gateway that takes nothing else.
func TestAStrictGatewayMayBeBehindALoadBalancerOfConnections(t *testing.T) {
	for proxyProtocol, want := range map[string]bool{"": true, "proxyProtocol: true, ": false} {
		l := sound(t)
		l.Stored = modelOf(t, all+ofMesh("VirtualGateway", "name: edge", "listeners: [{portMapping: {port: 8443, protocol: http}, tls: {mode: STRICT, certificate: {acm: {certificateARN: a}}}}]")+
			own("VirtualGatewayOptions", "edge", "listeners: [{port: 8443, "+proxyProtocol+"ingress: [{name: nlb, ranges: [10.0.0.0/24]}]}]"))
		if got := slices.ContainsFunc(Findings(l), func(f *api.Finding) bool { return f.GetId() == "SIG037" }); got != want {
			t.Errorf("%q: said %t", proxyProtocol, got)
		}
	}
}
