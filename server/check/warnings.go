package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"signet.example/identity"
	"signet.example/internal/plain"
	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/server/fleet"
	"signet.example/server/groups"
	"signet.example/server/kinds"
	"signet.example/store"
)

// Warnings are all that is said of a change before it is made: of what it brings, of what
// it names, of those whom it leaves without, and of those whom it leaves where they are.
func Warnings(before, after Model, hosts Hosts, known *fleet.Registered, named ...kinds.Key) []string {
	list := brought(before, after, named...)
	if was, will := before.Groups().Placing, after.Groups().Placing; !was.Same(will) {
		list = slices.Concat(list, cutOff(was, will, hosts.BySelectors()), stay(was, will, hosts.ByToken()))
	}
	return slices.Concat(list, loosened(before.Graph(), after.Graph()), tightened(before.Graph(), after.Graph()), hidden(before.Graph(), after.Graph()), unaddressed(before, after), unbound(before, after, hosts, known), unserved(before.Graph(), after.Graph(), known, hosts.Found))
}

// Hosts are those whose selectors place them, and those whose token did. Each is asked
// only where a change moves groups.
type Hosts struct {
	BySelectors, ByToken func() []store.Agent
	// Of is one, with the group that it is in before the change.
	Of func(agent string) (store.Agent, bool)
	// Found reports whether instances of a virtual node are known that nobody registered.
	Found func(proxy.Ref) bool
}

// warning is about what is allowed and probably not meant.
type warning struct {
	text string
	of   []kinds.Key // whose it is
}

// brought are the warnings of a change: what was so before is not news, unless the
// change names it again. Only what the change leads to is looked at.
func brought(before, after Model, named ...kinds.Key) []string {
	changed := map[kinds.Key]bool{}
	for _, k := range named {
		changed[k] = true
	}
	for k := range after.Objects().Differ(before.Objects()) {
		changed[k] = true
	}
	led := map[string]bool{}
	for k := range changed {
		for _, m := range []Model{before, after} {
			if name, ok := hangsOn(m.Objects().Get(k)); ok {
				led[name] = true
			}
		}
	}
	keys := slices.SortedFunc(maps.Keys(changed), kinds.Key.Compare)
	known := map[string]bool{}
	for _, w := range warnings(before, before.Groups().Granted.Named(led), keys) {
		known[w.text] = true
	}
	var list []string
	for _, w := range warnings(after, after.Groups().Granted.Named(led), keys) {
		if !known[w.text] || slices.ContainsFunc(w.of, func(k kinds.Key) bool { return slices.Contains(named, k) }) {
			list = append(list, w.text)
		}
	}
	return list
}

// hangsOn is the group of an Entry or a Binding.
func hangsOn(o *kinds.Object) (group string, ok bool) {
	if o == nil {
		return "", false
	}
	switch v := o.Value.(type) {
	case identity.Entry:
		return v.Group, true
	case identity.Binding:
		return v.Group, true
	}
	return "", false
}

// warnings are those of some groups and objects, and of the whole.
func warnings(m Model, in groups.Some, keys []kinds.Key) []warning {
	var list []warning
	binding := func(b identity.Binding) kinds.Key { return kinds.Key{Kind: kinds.Binding, Name: b.Name} }
	for _, o := range groups.Overlaps(in) {
		list = append(list, warning{o.String(), []kinds.Key{binding(o.First), binding(o.Second)}})
	}
	for _, t := range groups.SameHints(in) {
		list = append(list, warning{t.String(), []kinds.Key{{Kind: kinds.Entry, Name: t.First.Name}, {Kind: kinds.Entry, Name: t.Second.Name}}})
	}
	for _, name := range groups.Unlisted(in) {
		list = append(list, warning{fmt.Sprintf("group %s has more bindings that overlap, or entries of one hint that one process can fit, than the %d pairs that are listed", name, groups.MostPairs), nil})
	}
	for _, k := range keys {
		o := m.Objects().Get(k)
		if o == nil {
			continue
		}
		if b, ok := o.Value.(identity.Binding); ok && b.Applications.Anyone {
			list = append(list, warning{
				fmt.Sprintf("binding %s lets every process of its proxy's host call out as %s (applications: anyone)", b.Name, b.VirtualNode),
				[]kinds.Key{binding(b)},
			})
		}
	}
	list = append(list, untrusting(m, keys)...)
	if meshes := m.Graph().Meshes(); m.Graph().Enforces() && !hasSource(m) {
		var keys []kinds.Key
		for _, name := range meshes {
			keys = append(keys, kinds.Mesh(name))
		}
		list = append(list, warning{"there is no PolicySource: every call between services is denied until one is applied", keys})
	}
	return list
}

// untrusting are the calls that objects lead to, and that fail since the called node shows a
// certificate of a file of which the caller was told nothing.
func untrusting(m Model, keys []kinds.Key) []warning {
	var list []warning
	seen := map[*mesh.VirtualNode]bool{}
	for _, k := range keys {
		if k.Mesh == "" || k.Kind == string(mesh.KindMesh) {
			continue
		}
		for n := range m.Graph().Reaching(mesh.NameOf(mesh.Kind(k.Kind), k.Mesh, k.Name)) {
			if seen[n] {
				continue
			}
			seen[n] = true
			for _, at := range m.Graph().Untrusting(n) {
				list = append(list, warning{
					fmt.Sprintf("%s %s calls %s, which shows a certificate of a file, and believes none of a file's authorities: its calls are answered 503; give it a client policy with tls.validation.trust.file for that backend",
						n.Kind.Words(), n.Name, at),
					[]kinds.Key{kinds.Node(n.Ref)},
				})
			}
		}
	}
	return list
}

// mostCutOff is how many hosts are named that a change leaves in no group; more are counted.
const mostCutOff = 5

// cutOff warns of the hosts that are in a group before a change of NodeGroups, and in
// none after it. hosts are those whose selectors decide.
func cutOff(before, after groups.Placing, hosts []store.Agent) []string {
	var list []string
	more := 0
	for _, g := range hosts {
		group, _, was := placed(before, g)
		_, _, err := placed(after, g)
		switch {
		case g.Banned || was != nil || err == nil:
		case len(list) == mostCutOff:
			more++
		default:
			list = append(list, fmt.Sprintf("agent %s (%s), in group %s now, would be in no group: %v; its workloads and proxies would get no certificates, and its proxies no calls", g.ID, plain.Text(g.Hostname), group, err))
		}
	}
	if more > 0 {
		list = append(list, fmt.Sprintf("%d more agents would be in no group", more))
	}
	return list
}

// stay warns of the hosts that are in a group by their tokens, and stay there although a
// change gives the group selectors: they are not asked for any.
func stay(before, after groups.Placing, hosts []store.Agent) []string {
	var list []string
	for _, g := range after {
		if len(g.Selectors) == 0 || slices.ContainsFunc(before, func(b identity.NodeGroup) bool { return b.Name == g.Name && len(b.Selectors) > 0 }) {
			continue
		}
		var names []string
		more := 0
		for _, h := range hosts {
			switch {
			case h.Group != g.Name || h.Banned:
			case len(names) == mostCutOff:
				more++
			default:
				names = append(names, fmt.Sprintf("%s (%s)", h.ID, plain.Text(h.Hostname)))
			}
		}
		if len(names) == 0 {
			continue
		}
		who := strings.Join(names, ", ")
		if more > 0 {
			who += fmt.Sprintf(" and %d more", more)
		}
		list = append(list, fmt.Sprintf("group %s gets selectors, and these hosts, which joined it by tokens, stay in it whether they have them or not: %s; `signet ban` shuts one out", g.Name, who))
	}
	return list
}

// mostUnserved is how many targets are named that a change leads to and that nobody
// answers for; more are counted.
const mostUnserved = 20

// unserved warns of services that somebody answers before a change, and after it not,
// or not all of their calls. What is new, or is not answered before, waits for its proxies.
func unserved(before, after *mesh.Graph, known *fleet.Registered, found func(proxy.Ref) bool) []string {
	was, will := routing{graph: before, known: known, found: found}, routing{graph: after, known: known, found: found}
	var list []string
	for _, name := range after.Meshes() {
		for _, s := range after.Services(name) {
			old := before.Service(s.GraphName())
			if old == nil || old == s && before.Router(old.Router) == after.Router(s.Router) {
				continue
			}
			said, answered := map[proxy.Ref]bool{}, false
			for _, t := range was.targets(old) {
				said[t.node] = t.unserved != ""
				answered = answered || t.unserved == ""
			}
			if !answered {
				continue
			}
			service := fmt.Sprintf("virtual service %s/%s: ", s.Mesh, s.Name)
			if what := will.nobody(s); what != "" {
				list = append(list, service+what+": every call of it fails")
			}
			for _, t := range will.targets(s) {
				if t.unserved != "" && !said[t.node] {
					list = append(list, service+t.String()+`; start a proxy of it first (docs/APPMESH.md, "Renaming a virtual node")`)
				}
			}
		}
	}
	if more := len(list) - mostUnserved; more > 0 {
		list = append(list[:mostUnserved], fmt.Sprintf("%d more targets of virtual services have no endpoint", more))
	}
	return list
}
