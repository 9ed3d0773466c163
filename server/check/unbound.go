package check

import (
	"fmt"
	"slices"
	"strings"

	"signet.example/identity"
	"signet.example/internal/plain"
	"signet.example/proxy"
	"signet.example/server/fleet"
	"signet.example/server/groups"
	"signet.example/server/kinds"
	"signet.example/store"
)

// mostUnbound is how many proxies are named that a change leaves without a Binding; more
// are counted.
const mostUnbound = 20

// unbound warns of the connected proxies that a change leaves without a Binding for what
// they are, and of the services that then have nobody behind a target.
func unbound(before, after Model, hosts Hosts, known *fleet.Registered) []string {
	u := &unbinding{before: before, after: after, known: known, found: hosts.Found, lost: map[*fleet.Endpoint]bool{}}
	moved := map[string]bool{}
	if was, will := before.Groups().Placing, after.Groups().Placing; !was.Same(will) {
		for _, host := range hosts.BySelectors() {
			group, _, err := placed(will, host)
			if group == host.Group && err == nil {
				continue
			}
			moved[host.ID] = true
			for _, e := range known.OfAgent(host.ID) {
				u.look(e, host, group, err != nil)
			}
		}
	}
	for _, node := range rebound(before, after) {
		for _, e := range known.Of(node) {
			if host, ok := hosts.Of(e.Agent); ok && !moved[e.Agent] && !host.Banned {
				u.look(e, host, host.Group, false)
			}
		}
	}
	if more := len(u.list) - mostUnbound; more > 0 {
		u.list = append(u.list[:mostUnbound], fmt.Sprintf("%d more proxies would have no Binding, or perhaps none", more))
	}
	return append(u.list, u.services()...)
}

// rebound are the virtual nodes of the Bindings that a change makes, changes or deletes.
func rebound(before, after Model) []proxy.Ref {
	var nodes []proxy.Ref
	for k := range after.Objects().Differ(before.Objects()) {
		for _, m := range []Model{before, after} {
			if o := m.Objects().Get(k); k.Kind == kinds.Binding && o != nil {
				if b, ok := o.Value.(identity.Binding); ok {
					nodes = append(nodes, groups.RefOf(b))
				}
			}
		}
	}
	slices.SortFunc(nodes, proxy.Ref.Compare)
	return slices.Compact(nodes)
}

// unbinding is one look for who loses its Binding.
type unbinding struct {
	before, after Model
	known         *fleet.Registered
	found         func(proxy.Ref) bool
	list          []string
	lost          map[*fleet.Endpoint]bool
}

// look looks at a proxy whose host is in group after the change, or in none, which
// is warned of elsewhere.
func (u *unbinding) look(e *fleet.Endpoint, host store.Agent, group string, none bool) {
	was := fitting(u.before, host.Group, e)
	if !e.Gone.IsZero() || len(was) == 0 { // not there; or by what it runs is not known
		return
	}
	if none {
		u.lost[e] = true
		return
	}
	who := fmt.Sprintf("proxy %s of agent %s (%s), in group %s,", plain.Text(e.Proxy), host.ID, plain.Text(host.Hostname), group)
	will := fitting(u.after, group, e)
	if len(will) == 0 {
		u.lost[e] = true
		u.list = append(u.list, fmt.Sprintf("%s would have no Binding for %s %s/%s: it would get no identity, and no calls", who, e.Ref().Kind.Words(), e.Mesh, e.Node))
		return
	}
	own := identity.Selector{Type: "signet", Value: proxyKey + e.Proxy}
	for _, b := range was { // it has what one of them asks for, and which is not known
		has := append(slices.Clone(b.Selectors), own)
		if !slices.ContainsFunc(will, func(b identity.Binding) bool { return has.Contains(b.Selectors) }) {
			var asks []string
			for _, b := range will {
				asks = append(asks, fmt.Sprintf("%s (%s)", b.Name, strings.Join(b.Selectors.Strings(), ", ")))
			}
			u.list = append(u.list, fmt.Sprintf("%s would be %s %s/%s only if it has what a Binding then asks for: %s", who, e.Ref().Kind.Words(), e.Mesh, e.Node, strings.Join(asks, "; ")))
			return
		}
	}
}

const proxyKey = "proxy:"

// fitting are the Bindings of a group for a proxy's virtual node that ask for no other
// proxy's name. Whether it has the rest of what they ask for is its host's to see.
func fitting(m Model, group string, e *fleet.Endpoint) []identity.Binding {
	var list []identity.Binding
	for name, of := range m.Groups().Hosts.Bindings(e.Ref()) {
		o := m.Objects().Get(kinds.Key{Kind: kinds.Binding, Name: name})
		if of != group || o == nil {
			continue
		}
		b, ok := o.Value.(identity.Binding)
		if ok && !slices.ContainsFunc(b.Selectors, func(s identity.Selector) bool {
			return s.Type == "signet" && strings.HasPrefix(s.Value, proxyKey) && s.Value != proxyKey+e.Proxy
		}) {
			list = append(list, b)
		}
	}
	return list
}

// services are warnings of those that lead to a virtual node which only those serve who
// lose their Binding.
func (u *unbinding) services() []string {
	if len(u.lost) == 0 {
		return nil
	}
	graph := u.after.Graph()
	with := routing{graph: graph, known: u.known, found: u.found}
	without := routing{graph: graph, known: u.known, found: u.found, lost: u.lost}
	var list []string
	for _, name := range graph.Meshes() {
		for _, s := range graph.Services(name) {
			was := with.targets(s)
			for i, t := range without.targets(s) {
				if t.unserved != "" && was[i].unserved == "" {
					list = append(list, fmt.Sprintf("virtual service %s/%s: %s", s.Mesh, s.Name, t))
				}
			}
		}
	}
	if more := len(list) - mostUnserved; more > 0 {
		list = append(list[:mostUnserved], fmt.Sprintf("%d more targets of virtual services would have no endpoint", more))
	}
	return list
}
