package draft

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"signet.example/mesh"
	"signet.example/proxy"
)

var declared = form{"declared", `Who may call %s, and how, as its mesh declares it: by callers'
backends, and by the methods and paths of the routes behind them.
Written by signet policy init --from-mesh. Change it as you like: with --dry-run the same
command tells where it and the mesh differ.
`}

// FromMesh writes rules for exactly what meshes declare.
func FromMesh(m Mesh) Draft {
	d := &drafting{mesh: m, rules: map[proxy.Ref][]rule{}}
	for _, name := range m.names() {
		d.declare(name)
	}
	return d.draft(declared)
}

func (d *drafting) declare(name string) {
	narrowed := map[string]bool{}
	for _, e := range d.mesh.Graph.Edges(name) {
		r, ok := d.ofEdge(e)
		if !ok {
			continue // said below, once for each name
		}
		if d.rules[e.Callee.Ref] = append(d.rules[e.Callee.Ref], r); e.Narrowed {
			narrowed[r.why[0]] = true
		}
	}
	var idle []string
	for _, n := range d.mesh.Graph.Nodes(name) {
		switch of := called(n.Ref); {
		case d.mesh.unwritten(n.Ref) != "":
			d.notes = append(d.notes, of+": "+d.mesh.unwritten(n.Ref))
		case len(d.rules[n.Ref]) == 0:
			idle = append(idle, of)
		case n.Gateway != nil:
			d.notes = append(d.notes, fmt.Sprintf("%s: anybody may send it what its routes take, since its callers are outside of the mesh; who all have identities can be named in its rules", of))
		}
	}
	if f := d.mesh.Graph.Mesh(name); f != nil && f.EgressFilter != nil && f.EgressFilter.Type == mesh.EgressAllowAll {
		d.notes = append(d.notes, fmt.Sprintf("mesh %s lets its nodes call whom they like (ALLOW_ALL): what they call beside their backends is not declared, and gets no rule", name))
	}
	if len(idle) > 0 {
		d.notes = append(d.notes, "nobody may call "+few(idle)+": no backend and no route leads there")
	}
	if len(narrowed) > 0 {
		d.notes = append(d.notes, "rules ask for methods and paths only; by headers, query or scheme fewer requests are taken by "+few(slices.Sorted(maps.Keys(narrowed))))
	}
}

// ofEdge is the rule of an edge, if its names allow for one.
func (d *drafting) ofEdge(e mesh.Edge) (rule, bool) {
	r := rule{by: "anybody", port: e.Port, host: e.Host, why: []string{because(e)}}
	if len(mesh.PortsOf(e.Callee, nil)) > 1 { // else there is no other one
		r.listener = e.Listener
	}
	if e.Caller != nil {
		r.by, r.caller = called(e.Caller.Ref), d.mesh.id(e.Caller.Ref)
	}
	if e.Method != "" {
		r.methods = []string{e.Method}
	}
	for _, p := range e.Paths {
		if p != (mesh.PathMatch{}) {
			r.paths = append(r.paths, path{PathMatch: p})
		}
	}
	return r, (e.Caller == nil || r.caller != "") && d.mesh.unwritten(e.Callee.Ref) == ""
}

// because returns the service or route that declares an edge.
func because(e mesh.Edge) string {
	switch {
	case e.Caller == nil:
		return "gateway route " + e.Route
	case e.Route == "":
		return e.Service
	}
	return e.Service + ", route " + e.Route
}

// called returns the name of a virtual node or gateway for people.
func called(r proxy.Ref) string { return r.Mesh + "/" + r.Name }

// mostFew are named in a note.
const mostFew = 10

func few(names []string) string {
	if more := len(names) - mostFew; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:mostFew], ", "), more)
	}
	return strings.Join(names, ", ")
}
