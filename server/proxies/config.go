package proxies

import (
	"slices"
	"strings"

	"signet.example/api"
	"signet.example/internal/plain"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/fault"
	"signet.example/server/fleet"
)

// Configs lists what proxies are to have, and what each has acknowledged.
func (p Proxies) Configs(g *mesh.Graph, req *api.ProxyConfigRequest) (*api.ProxyConfigResponse, error) {
	typeWord, err := typeOf(req.GetType())
	if err != nil {
		return nil, err
	}
	ref, isRef := refOf(g, req.GetId())
	resp := &api.ProxyConfigResponse{}
	for _, a := range p.Agents() {
		for _, reported := range a.Report.GetProxies() {
			of := fleet.RefOf(reported)
			if reported.GetName() != req.GetId() && (!isRef || of != ref) || g.Node(of) == nil {
				continue
			}
			one, err := p.configOf(of, reported.GetAddress(), req, typeWord)
			if err != nil {
				return nil, err
			}
			one.Agent, one.Proxy, one.Connected = a.Agent.ID, reported, a.State == api.AgentInfo_CONNECTED
			joinStatus(one)
			resp.Proxies = append(resp.Proxies, one)
		}
	}
	if len(resp.GetProxies()) == 0 && isRef {
		one, err := p.configOf(ref, "", req, typeWord)
		if err != nil {
			return nil, err
		}
		joinStatus(one)
		resp.Proxies = append(resp.Proxies, one)
	}
	if len(resp.GetProxies()) == 0 {
		return nil, fault.New(fault.NotFound, "there is no proxy, virtual node or gateway %q%s; MESH/NODE is what a proxy of it would have", plain.Text(req.GetId()), namesOf(p.Agents()))
	}
	if (req.GetName() != "" || typeWord != "") && !slices.ContainsFunc(resp.GetProxies(), func(of *api.ProxyConfig) bool { return len(of.GetResources()) > 0 }) {
		return nil, fault.New(fault.NotFound, "%s has no resource of that type or name; without --type and --name all are listed", plain.Text(req.GetId()))
	}
	return resp, nil
}

func (p Proxies) configOf(of proxy.Ref, bind string, req *api.ProxyConfigRequest, typeWord string) (*api.ProxyConfig, error) {
	return p.Config(of, bind, req.GetFull(), func(typeURL, name string) bool {
		return strings.HasSuffix(typeURL, typeWord) && (req.GetName() == "" || name == req.GetName())
	})
}

// typeOf is the end of a type's URL, by the words that operators use for it.
func typeOf(word string) (string, error) {
	if word == "" {
		return "", nil
	}
	for end, words := range map[string][]string{
		".Cluster": {"cluster", "clusters", "cds"}, ".ClusterLoadAssignment": {"clusterloadassignment", "endpoint", "endpoints", "eds"},
		".Listener": {"listener", "listeners", "lds"}, ".RouteConfiguration": {"routeconfiguration", "route", "routes", "rds"},
	} {
		if slices.Contains(words, strings.ToLower(word)) {
			return end, nil
		}
	}
	return "", fault.New(fault.Invalid, "there is no type %q: cluster, endpoint, listener and route are what the server gives; secrets come from the agent and are on its host alone", plain.Text(word))
}

// refOf is the virtual node or gateway that is meant, by its node id, MESH/NAME, or a name
// that only one has.
func refOf(g *mesh.Graph, id string) (proxy.Ref, bool) {
	if ref, err := proxy.ParseRef(id); err == nil {
		return ref, g.Node(ref) != nil
	}
	mesh, name, ok := strings.Cut(id, "/")
	if !ok {
		mesh, name = "", id
	}
	var found []proxy.Ref
	for _, in := range g.Meshes() {
		for _, n := range g.Nodes(in) {
			if n.Name == name && (mesh == "" || n.Mesh == mesh) {
				found = append(found, n.Ref)
			}
		}
	}
	if len(found) != 1 {
		return proxy.Ref{}, false
	}
	return found[0], true
}

// namesOf lists the proxies that there are, for who looks for another one.
func namesOf(agents []fleet.Status) string {
	var names []string
	for _, a := range agents {
		for _, p := range a.Report.GetProxies() {
			names = append(names, p.GetName())
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	const few = 5
	switch {
	case len(names) == 0:
		return ": no agent reports a proxy"
	case len(names) > few:
		return ": agents report " + strings.Join(names[:few], ", ") + " and others (`signet proxies`)"
	}
	return ": agents report " + strings.Join(names, ", ")
}

// joinStatus notes for each resource whether the proxy has it, by what its agent reports.
func joinStatus(c *api.ProxyConfig) {
	has := map[string]string{}
	for _, t := range c.GetProxy().GetTypes() {
		has[t.GetTypeUrl()] = t.GetAcknowledged()
	}
	whole := map[string]bool{}
	for _, t := range c.GetTypes() {
		t.Acknowledged = has[t.GetTypeUrl()]
		whole[t.GetTypeUrl()] = t.GetAcknowledged() == t.GetVersion()
	}
	for _, r := range c.GetResources() {
		switch {
		case len(has) == 0: // nobody reports, or an agent of the release before
			r.State = "unknown"
		case whole[r.GetTypeUrl()]:
			r.State = "acknowledged"
		default:
			r.State = "pending"
		}
		for _, l := range c.GetProxy().GetLeftOut() {
			if l.GetTypeUrl() == r.GetTypeUrl() && l.GetName() == r.GetName() {
				r.State, r.Message = "left out", l.GetMessage()
			}
		}
		for _, j := range c.GetProxy().GetRejected() {
			if j.GetTypeUrl() == r.GetTypeUrl() && j.GetName() == r.GetName() && j.GetVersion() == r.GetVersion() {
				r.State, r.Message = "rejected", j.GetMessage()
			}
		}
	}
}
