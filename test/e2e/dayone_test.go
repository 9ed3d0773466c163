package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/mesh"
	"signet.example/mesh/importer"
	"signet.example/proxy"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
	"signet.example/test/samples"
	xdstest "signet.example/test/xds"
	"signet.example/xds/predict"
)

// oneDay are samples of which each has what the others lack: weights and tcp; routes by headers,
// gRPC, mTLS by names, certificates of files, gateways with rewrites and with two ports.
// SOAK=1 takes all.
var oneDay = []string{
	"fargate__appmesh-colorapp.yaml",
	"howto-http-headers__app.yaml",
	"howto-grpc__mesh.yaml",
	"howto-k8s-mtls-sds-based__v1beta2_manifest.yaml.template",
	"howto-k8s-tls-file-based__v1beta2_manifest.yaml.template",
	"howto-k8s-http-ingress-v2__v1beta2_gatewayroutes_rewrite-prefix.yaml.template",
	"howto-k8s-multiple-listeners__manifest.yaml",
}

// ofOurs are the values that samples with names of certificates need to be brought here: the
// identities that their nodes have with us.
var ofOurs = map[string]string{
	"SVID_CA_TRUST_DOMAIN": "spiffe://test.example",
	"FRONTEND_APP_SVID":    "spiffe://test.example/app/front_app",
	"COLORAPP_BLUE_SVID":   "spiffe://test.example/app/blue_app",
	"COLORAPP_GREEN_SVID":  "spiffe://test.example/app/green_app",
	"COLORAPP_RED_SVID":    "spiffe://test.example/app/red_app",
}

// privileged are the ports of listeners that are the superuser's.
var privileged = regexp.MustCompile(`(\bport: )80\b`)

// TestEverySampleIsObservedAndThenEnforcedByWhatItDeclares goes the way of the first day with
// App Mesh's own walkthroughs, through real proxies: each is imported, nothing is denied, and
// what would be is listed; a policy is written of it and enforced, and of all pairs of its nodes
// exactly those that it declares answer, where everybody has a way to everybody by then.
func TestEverySampleIsObservedAndThenEnforcedByWhatItDeclares(t *testing.T) {
	all := sum{}
	for _, form := range importer.Forms() {
		for _, name := range samples.Of(t, importer.Form(form)) {
			if !parts.Soak() && !slices.Contains(oneDay, name) {
				continue
			}
			t.Run(name, func(t *testing.T) {
				d := dayOf(t, importer.Form(form), name)
				d.observe()
				d.enforce()
				t.Logf("%+v", d.sum)
				all.add(d.sum)
			})
		}
	}
	t.Logf("%+v", all)
	if want := meshtest.Soak(len(oneDay), 40); all.Samples != want || all.Sent < 5*want || all.Denied < 20*want {
		t.Errorf("%+v of %d", all, want)
	}
}

// sum is what was tried.
type sum struct {
	Samples, Nodes, Pairs int
	Sent                  int           // by declared routes, each time
	Listed                int           // would-be denials
	Slowest               time.Duration // until one of them is listed
	Allowed, Denied       int           // when it is enforced, of pairs
	Unmade                int           // of calls, by what is no policy
}

func (s *sum) add(o sum) {
	s.Samples++
	s.Nodes += o.Nodes
	s.Pairs += o.Pairs
	s.Sent += o.Sent
	s.Listed += o.Listed
	s.Slowest = max(s.Slowest, o.Slowest)
	s.Allowed += o.Allowed
	s.Denied += o.Denied
	s.Unmade += o.Unmade
}

// day is one sample's.
type day struct {
	sum

	t      *testing.T
	w      *meshtest.World
	report *importer.Report
	graph  *mesh.Graph
	nodes  []*mesh.VirtualNode // and gateways
	places map[proxy.Ref]place
	sends  map[proxy.Ref]xdstest.Sends
}

func dayOf(t *testing.T, form importer.Form, name string) *day {
	t.Helper()
	files, options := samples.Input(t, form, name)
	for i := range files { // a proxy of ours has no capability, so that the host would have to let all of its users have such a port
		files[i].Content = privileged.ReplaceAll(files[i].Content, []byte("${1}8080"))
	}
	maps.Copy(options.Values, ofOurs)
	report := importer.Read(files, options)
	d := &day{t: t, report: report, graph: samples.Graph(t, name, slices.Concat(report.Manifests(), report.Beginnings(true))), places: map[proxy.Ref]place{}, sends: map[proxy.Ref]xdstest.Sends{}}
	if d.graph == nil {
		t.Fatal("it is not complete")
	}
	d.w = meshtest.Start(t, meshtest.Options{
		TrustDomain: xdstest.TrustDomain.Name(), NoAgent: true,
		Policy: map[string]string{"nothing.rego": "package signet.authz\n\nallow contains \"nothing yet\" if false\n"},
	})
	dir := t.TempDir()
	var args []string
	for _, f := range files {
		args = append(args, manifest(t, d.w, f.Name, string(f.Content)))
	}
	var vars strings.Builder
	for _, key := range slices.Sorted(maps.Keys(options.Values)) {
		fmt.Fprintf(&vars, "%s=%s\n", key, options.Values[key])
	}
	args = append(args, "--vars", manifest(t, d.w, "values.env", vars.String()))
	o := options.Other
	for flag, value := range map[string]string{"--name": o.Name, "--kind": string(o.Kind), "--region": o.Region, "--account-id": o.AccountID, "--stack-name": o.StackName} {
		if value != "" {
			args = append(args, flag, value)
		}
	}
	for key, value := range o.Exports {
		args = append(args, "--import-value", key+"="+value)
	}
	if out, code := d.w.CLI(append([]string{"import", "appmesh"}, args...)...); code != 0 {
		t.Fatalf("import: exit %d\n%s", code, out)
	}
	if out, _ := d.w.CLI("check"); !strings.Contains(out, "SIG036") {
		t.Errorf("check does not say that it is observed:\n%s", out)
	}
	for _, m := range d.graph.Meshes() {
		d.nodes = append(d.nodes, d.graph.Nodes(m)...)
	}
	d.Nodes = len(d.nodes)
	for _, n := range d.nodes {
		s, err := xdstest.SendsOf(d.graph, n)
		if err != nil {
			t.Fatal(err)
		}
		d.sends[n.Ref] = s
	}
	d.serve(dir)
	return d
}

// observe sends what is declared, and to each node what nobody has declared; nothing is denied,
// and all of it is listed.
func (d *day) observe() {
	for _, n := range d.nodes {
		for _, s := range d.sends[n.Ref].List {
			got := d.declared(n, s)
			for _, asked := range s.Asked {
				switch {
				case asked.At.Gateway():
					d.listed("", asked)
				case asked.At == got:
					d.listed(d.id(n.Ref), asked)
				}
			}
		}
		if port, ok := plaintext(n); ok {
			if a := d.get(d.places[n.Ref].at(port), nobodys); a.by != n.Ref {
				d.t.Errorf("nobody calls %s while it is observed: %s", n.Name, a)
			}
			d.listed("", xdstest.Asked{At: n.Ref, What: nobodys})
		}
	}
	d.refused()
	for _, decision := range decisionsOf(d.t, d.w, "--denied", "-n", "500") {
		if !decision.Observed && decision.Path != otherUnderscore.Path && decision.Path != "" { // of what Envoy refused as it read it there is none
			d.t.Errorf("denied while it is observed: %+v", decision)
		}
	}
}

// otherUnderscore is asked for with a header with an underscore that no route looks at.
var otherUnderscore = xdstest.What{Method: http.MethodGet, Path: "/underscore"}

// refused are requests with such a header, whether or not routes look at another one.
func (d *day) refused() {
	for _, n := range d.nodes {
		if port, ok := plaintext(n); ok {
			a := d.request(d.places[n.Ref].at(port), predict.Request{Method: http.MethodGet, Authority: "h", Path: otherUnderscore.Path, Headers: map[string][]string{"x_role": {"admin"}}})
			if a.denied != "ambiguous" && a.denied != "policy" || a.by != (proxy.Ref{}) {
				d.t.Errorf("%s with x_role: %s", n.Name, a)
			}
		}
	}
}

// declared sends what a route takes until it is answered, and returns by whom.
func (d *day) declared(from *mesh.VirtualNode, s xdstest.Send) proxy.Ref {
	d.t.Helper()
	d.Sent++
	var got answer
	strange := slices.ContainsFunc(s.Asked, func(a xdstest.Asked) bool { return d.strange(from, d.graph.Node(a.At)) })
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if got = d.send(from, s); got.by != (proxy.Ref{}) || got.denied != "" || strange {
			break // else its callee's proxy is ready a moment before others know of it
		}
	}
	if strange && got.by == (proxy.Ref{}) {
		d.Unmade++
		return got.by
	}
	if !slices.ContainsFunc(s.Asked, func(a xdstest.Asked) bool { return a.At == got.by }) {
		d.t.Errorf("%s sends %s: %s, and not one of %v", from.Name, s.Request, got, s.Asked)
	}
	return got.by
}

// listed waits until the agents tell of a would-be denial.
func (d *day) listed(from string, asked xdstest.Asked) {
	d.t.Helper()
	began := time.Now()
	to := d.id(asked.At)
	host := asked.Host
	if asked.Port != 0 {
		host = fmt.Sprint("port ", asked.Port)
	}
	eventually(d.t, 15*time.Second, fmt.Sprintf("a would-be denial of %s at %s, %+v", from, to, asked.What), func() bool {
		list, err := d.w.Admin.Decisions(d.t.Context(), &api.DecisionsListRequest{Filter: &api.DecisionFilter{
			Source: from, Destination: to, Result: api.DecisionFilter_DENIED, Limit: 500, Since: timestamppb.New(began.Add(-time.Minute)),
		}})
		return err == nil && slices.ContainsFunc(list.GetDecisions(), func(a *api.Decision) bool {
			return a.GetObserved() && a.GetSource() == from && a.GetDestination() == to && a.GetPath() == asked.Path &&
				(asked.Port != 0 || a.GetMethod() == asked.Method) && (host == "" || a.GetHost() == host)
		})
	})
	d.Listed++
	d.Slowest = max(d.Slowest, time.Since(began))
}

// enforce has the policy that is written of the mesh deny, and asks all pairs.
func (d *day) enforce() {
	d.t.Helper()
	dir := d.t.TempDir()
	edges := slices.ContainsFunc(d.nodes, func(n *mesh.VirtualNode) bool { return len(d.sends[n.Ref].Callees) > 0 })
	if out, code := d.w.CLI("policy", "init", dir, "--from-mesh"); (code == 0) != edges {
		d.t.Fatalf("policy init, where there are edges %t: exit %d\n%s", edges, code, out)
	}
	if out, code := d.w.CLI("policy", "test", dir); code != 0 && len(filesOf(d.t, dir)) > 0 {
		d.t.Errorf("policy test: exit %d\n%s", code, out)
	}
	d.w.CommitPolicy(filesOf(d.t, dir))
	d.w.SyncPolicy()
	manifests := d.opened()
	for _, m := range d.report.Beginnings(true) {
		manifests = append(manifests, strings.Replace(string(m.Content), "authorization: "+mesh.AuthorizationObserve, "authorization: "+mesh.AuthorizationEnforce, 1))
	}
	d.w.Apply(meshtest.Join(manifests...))
	for _, to := range d.nodes { // all of them have it before any pair is asked
		for _, from := range d.nodes {
			if to.Gateway == nil && from.Gateway == nil && to.Listeners[0].Protocol != mesh.ProtocolTCP && !d.sends[from.Ref].Callees[to.Ref] && !d.strange(from, to) {
				eventually(d.t, 20*time.Second, fmt.Sprintf("%s denies %s", to.Name, from.Name), func() bool { return d.atPair(from, to, to.Listeners[0], nobodys).denied == "policy" })
				break
			}
		}
		if port, ok := plaintext(to); ok {
			eventually(d.t, 20*time.Second, to.Name+" denies nobody", func() bool { return d.get(d.places[to.Ref].at(port), nobodys).denied == "policy" })
		}
	}
	asked := map[proxy.Ref][]xdstest.What{}
	for _, n := range d.nodes {
		for _, s := range d.sends[n.Ref].List {
			d.declared(n, s)
			for _, a := range s.Asked {
				if !slices.Contains(asked[a.At], a.What) {
					asked[a.At] = append(asked[a.At], a.What)
				}
			}
		}
	}
	for _, from := range d.nodes {
		for _, to := range d.nodes {
			if to.Gateway == nil {
				d.pair(from, to, asked[to.Ref])
			}
		}
	}
}

// pair calls one node as another one, by the way that is open to it now.
func (d *day) pair(from, to *mesh.VirtualNode, asked []xdstest.What) {
	d.Pairs++
	declared := d.sends[from.Ref].Callees[to.Ref]
	may := func(w xdstest.What) bool {
		return slices.ContainsFunc(d.sends[from.Ref].List, func(s xdstest.Send) bool { return slices.Contains(s.Asked, xdstest.Asked{At: to.Ref, What: w}) })
	}
	for _, l := range to.Listeners {
		if l.Protocol == mesh.ProtocolTCP {
			d.connection(from, to, l.Port, declared)
			continue
		}
		for _, w := range slices.Concat([]xdstest.What{{Method: http.MethodGet, Path: "/"}, {Method: http.MethodPost, Path: "/other"}}, asked) {
			if w.Port != 0 || w.Listener != 0 && w.Listener != l.Port || from.Gateway != nil && !d.throughGateway(from, l) || l.Probe != nil && w.Method == http.MethodGet && w.Path == l.Probe.Path {
				continue // or what whoever has it as a backend asks to know whether it is well
			}
			a := d.atPair(from, to, l, w)
			switch {
			case declared && (from.Gateway != nil || !may(w)): // its own routes are asked above, and rules have tests of their own
			case declared && a.by == to.Ref:
				d.Allowed++
			case !declared && a.denied == "policy":
				d.Denied++
			case a.by == (proxy.Ref{}) && d.strange(from, to):
				d.Unmade++
			default:
				d.t.Errorf("%s calls %s, %+v; declared is %t: %s", from.Name, to.Name, w, declared, a)
			}
		}
	}
}

func (d *day) atPair(from, to *mesh.VirtualNode, l mesh.Listener, w xdstest.What) answer {
	d.t.Helper()
	return d.send(from, xdstest.Send{Listener: firstPort(from), Request: predict.Request{
		Method: w.Method, Authority: fmt.Sprintf("%s:%d", pairHost(to), l.Port), Path: w.Path, Headers: headersOf(l),
	}})
}

// serve starts the agent with a proxy for each node, and applications behind them.
func (d *day) serve(dir string) {
	d.t.Helper()
	ports := []int{meshtest.EgressPort}
	for _, n := range d.nodes {
		for _, l := range n.Listeners {
			if p := int(l.Port); !slices.Contains(ports, p) {
				ports = append(ports, p)
			}
		}
	}
	d.reserve(ports)
	files := d.certificates(dir)
	var bindings []string
	var proxies strings.Builder
	fmt.Fprintf(&proxies, "proxy_user: \"%d\"\nproxies:\n", os.Getuid())
	for i, n := range d.nodes {
		name, at := fmt.Sprint("p", i), d.places[n.Ref]
		bindings = append(bindings, fmt.Sprintf("apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: %s}\nspec: {group: hosts, mesh: %s, %s: %s, selectors: [\"signet:proxy:%s\"]}\n", name, n.Mesh, n.Kind, n.Name, name))
		if n.Gateway != nil {
			fmt.Fprintf(&proxies, "- {name: %s, mesh: %s, virtual_gateway: %s, bind: %s, concurrency: 1, tls_dirs: [%s]}\n", name, n.Mesh, n.Name, at.bind, files)
		} else {
			fmt.Fprintf(&proxies, "- {name: %s, mesh: %s, virtual_node: %s, bind: %s, app: %s, concurrency: 1, tls_dirs: [%s]}\n", name, n.Mesh, n.Name, at.bind, at.app, files)
		}
	}
	if len(d.nodes) == 0 {
		return
	}
	d.w.Apply(meshtest.Join(bindings...))
	d.w.ExtendAgent(proxies.String())
	d.w.StartAgent()
	d.w.Await("proxies", 60*time.Second, func() error {
		states := d.w.ProxyStates()
		for i, n := range d.nodes {
			if s := states[fmt.Sprint("p", i)]; s != api.ProxyStatus_READY {
				return fmt.Errorf("that of %s is %s", n.Name, api.Word(s))
			}
		}
		return nil
	})
}

func (d *day) id(r proxy.Ref) string {
	return fmt.Sprintf("spiffe://%s/%s/%s", d.w.TD, r.Mesh, r.Name)
}
