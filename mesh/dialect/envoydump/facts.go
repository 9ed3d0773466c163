package envoydump

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"signet.example/internal/manifest"
	"signet.example/mesh"
	"signet.example/mesh/dialect"
)

// node is what dumps have of a virtual node.
type node struct {
	mesh, name string
	file       string
	line       int
	listeners  map[int]map[string]any // by port
	discovery  map[string]any
	backends   []string
	own        bool // a dump of its own proxy is among them
	named      bool // its endpoints came by EDS
	tls        bool
	unclear    bool
}

// service is a virtual service, and the routes that lead from it.
type service struct {
	mesh, name string
	file       string
	line       int
	ports      []int
	protocol   string
	routes     []made
	unclear    bool
	text       []byte // all of it, to compare
}

// made is a route in the API's structure.
type made struct {
	name string
	spec map[string]any
}

// egress is the cluster of a virtual node that is called. What Signet calls in another way
// has the service behind.
var egress = regexp.MustCompile(`^(.+?)_(http|http2|grpc|tcp)_(\d{1,5})(?:_via_.*)?$`)

// target is what a cluster leads to.
type target struct {
	node, protocol string
	port           int
}

func (d *dump) target(name string) (target, bool) {
	rest, ok := strings.CutPrefix(name, "cds_egress_"+d.mesh+"_")
	if !ok {
		return target{}, false
	}
	m := egress.FindStringSubmatch(rest)
	if m == nil {
		return target{}, false
	}
	port, err := strconv.Atoi(m[3])
	return target{m[1], m[2], port}, err == nil
}

func (d *dump) node(name string, line int) *node {
	key := "node " + d.mesh + "/" + name
	n := d.all.nodes[key]
	if n == nil {
		n = &node{mesh: d.mesh, name: name, file: d.file, line: line, listeners: map[int]map[string]any{}}
		d.all.nodes[key] = n
		d.all.order = append(d.all.order, key)
	}
	return n
}

// facts notes what a dump has.
func (d *dump) facts() {
	if d.own != "" {
		d.node(d.own, 1).own = true
	}
	for _, c := range d.latest() {
		if m := ingress.FindStringSubmatch(c.is.Name); m != nil {
			if name, ok := strings.CutPrefix(m[1], d.mesh+"_"); ok {
				port, _ := strconv.Atoi(m[3]) // digits, few of them
				d.listener(d.node(name, c.line), target{name, m[2], port}, map[string]any{})
			}
			continue
		}
		if t, ok := d.target(c.is.Name); ok {
			d.cluster(c.is, t, c.line)
		}
	}
	for _, r := range d.routes {
		if !strings.HasPrefix(r.is.Name, "rds_egress_") {
			continue
		}
		for _, h := range hostsOf(r.is.Hosts) {
			d.service(h, r.line)
		}
	}
}

// cluster is what a caller has of a node.
func (d *dump) cluster(c cluster, t target, line int) {
	n := d.node(t.node, line)
	n.tls = n.tls || c.Transport != nil
	more := map[string]any{}
	if len(c.HealthChecks) > 0 {
		more["healthCheck"] = c.HealthChecks[0].spec(t.port)
	}
	if o := c.Outliers; o != nil && o.Errors != nil && o.Percent != nil {
		more["outlierDetection"] = map[string]any{
			"maxServerErrors": *o.Errors, "interval": o.Interval.spec(), "baseEjectionDuration": o.Base.spec(), "maxEjectionPercent": *o.Percent,
		}
	}
	d.listener(n, t, more)
	var discovery map[string]any
	switch c.Type {
	case "LOGICAL_DNS", "STRICT_DNS":
		for _, l := range c.Endpoints.Endpoints {
			for _, h := range l.Hosts {
				if host := h.Endpoint.Address.Socket.Address; host != "" && discovery == nil {
					how := map[string]string{"LOGICAL_DNS": "LOADBALANCER", "STRICT_DNS": "ENDPOINTS"}[c.Type]
					discovery = map[string]any{"dns": map[string]any{"hostname": strings.TrimSuffix(host, "."), "responseType": how}}
				}
			}
		}
	default:
		n.named = true
	}
	if discovery != nil {
		if n.discovery != nil && !same(n.discovery, discovery) {
			d.contradicts(&n.unclear, "VirtualNode "+n.name, line, "its DNS name")
		}
		n.discovery = discovery
	}
}

func (h healthCheck) spec(port int) map[string]any {
	out := map[string]any{
		"port": port, "healthyThreshold": h.Healthy, "unhealthyThreshold": h.Unhealthy,
		"intervalMillis": h.Interval.spec()["value"], "timeoutMillis": h.Timeout.spec()["value"],
	}
	switch {
	case h.HTTP != nil:
		out["protocol"], out["path"] = "http", h.HTTP.Path
		if h.HTTP.Codec == "HTTP2" {
			out["protocol"] = "http2"
		}
	case h.GRPC != nil:
		out["protocol"] = "grpc"
	default:
		out["protocol"] = "tcp"
	}
	return out
}

// listener joins what is known of a port of a node.
func (d *dump) listener(n *node, t target, more map[string]any) {
	more["portMapping"] = map[string]any{"port": t.port, "protocol": t.protocol}
	was := n.listeners[t.port]
	if was == nil {
		n.listeners[t.port] = more
		return
	}
	for k, v := range more {
		if old, ok := was[k]; ok && !same(old, v) {
			d.contradicts(&n.unclear, "VirtualNode "+n.name, n.line, fmt.Sprintf("%s of port %d", k, t.port))
			continue
		}
		was[k] = v
	}
}

func (d *dump) contradicts(unclear *bool, what string, line int, of string) {
	if *unclear {
		return
	}
	*unclear = true
	d.all.note(d.file, line, what, dialect.Missing, of+" is another one in a dump that was read before: one of the two is of an older time; give dumps of one moment")
}

// hostsOf joins the virtual hosts of a service's ports: the first has its name, others the
// name and the port.
func hostsOf(list []virtualHost) [][]virtualHost {
	var all [][]virtualHost
	at := map[string]int{}
	for _, h := range list {
		name, _, _ := strings.Cut(h.Name, ":")
		if name == "" || name == "*" {
			continue
		}
		i, ok := at[name]
		if !ok {
			i = len(all)
			at[name] = i
			all = append(all, nil)
		}
		all[i] = append(all[i], h)
	}
	return all
}

// service notes a backend of the proxy, with its routes.
func (d *dump) service(hosts []virtualHost, line int) {
	name, _, _ := strings.Cut(hosts[0].Name, ":")
	if d.own != "" {
		if n := d.node(d.own, 1); !slices.Contains(n.backends, name) {
			n.backends = append(n.backends, name)
		}
	}
	s := &service{mesh: d.mesh, name: name, file: d.file, line: line}
	lost := map[string]bool{}
	lists := make([][]made, len(hosts))
	for i, h := range hosts {
		port := portOf(h)
		if port > 0 && !slices.Contains(s.ports, port) {
			s.ports = append(s.ports, port)
		}
		for _, r := range forAll(h.Routes) {
			if one, ok := d.route(s, r, len(lists[i])+1, lost); ok {
				lists[i] = append(lists[i], one)
			}
		}
	}
	s.routes = ofAllPorts(lists, hosts)
	s.text, _ = json.Marshal([]any{s.ports, specsOf(s.routes)}) // maps of texts and numbers
	key := "service " + d.mesh + "/" + name
	first := d.all.calls[key]
	if first == nil {
		d.all.calls[key] = s
		d.all.order = append(d.all.order, key)
		for what := range lost {
			s.unclear = true
			d.all.note(d.file, line, "VirtualService "+name, dialect.Missing, what)
		}
		return
	}
	if !bytes.Equal(first.text, s.text) {
		d.contradicts(&first.unclear, "VirtualService "+name, line, "what it leads to")
	}
}

func specsOf(routes []made) []any {
	var all []any
	for _, r := range routes {
		all = append(all, r.name, r.spec)
	}
	return all
}

// portOf is the port that a virtual host is for.
func portOf(h virtualHost) int {
	for _, domain := range h.Domains {
		if _, port, ok := strings.Cut(domain, ":"); ok {
			if n, err := strconv.Atoi(port); err == nil && n > 0 && n < 1<<16 {
				return n
			}
		}
	}
	return 0
}

// route is one in the API's structure, the n-th of its port; false for one of which too
// much is lost.
func (d *dump) route(s *service, r route, n int, lost map[string]bool) (made, bool) {
	if r.Route == nil {
		lost["a route answers by itself: none of its targets can be called, and the dump does not name them"] = true
		return made{}, false
	}
	type weighted struct {
		name   string
		weight uint32
	}
	var to []weighted
	if r.Route.Cluster != "" {
		to = append(to, weighted{r.Route.Cluster, 1})
	}
	if w := r.Route.Weighted; w != nil {
		for _, c := range w.Clusters {
			to = append(to, weighted{c.Name, c.Weight})
		}
	}
	var targets []map[string]any
	for _, w := range to {
		t, ok := d.target(w.name)
		if !ok {
			lost["a route leads to the cluster "+w.name+", which is no virtual node's of mesh "+d.mesh] = true
			return made{}, false
		}
		s.protocol = t.protocol
		targets = append(targets, map[string]any{"virtualNode": t.node, "weight": w.weight, "port": t.port})
	}
	form, spec, more := r.spec(s.protocol, targets)
	for _, l := range more {
		lost["it has "+l] = true
	}
	if r.Name == "" {
		r.Name = fmt.Sprintf("route-%d", n)
	}
	return made{r.Name, map[string]any{form: spec}}, true
}

// ofAllPorts are the routes of a service: one that each of its ports has is for all of them,
// the others are for theirs.
func ofAllPorts(lists [][]made, hosts []virtualHost) []made {
	everywhere := func(r made) bool {
		for _, list := range lists {
			if !slices.ContainsFunc(list, func(o made) bool { return o.name == r.name && same(o.spec, r.spec) }) {
				return false
			}
		}
		return true
	}
	var all []made
	for i, list := range lists {
		for _, r := range list {
			switch {
			case len(lists) == 1:
				all = append(all, r)
			case !everywhere(r):
				for _, of := range r.spec {
					of.(map[string]any)["match"].(map[string]any)["port"] = portOf(hosts[i]) //nolint:forcetypeassert // as action.spec makes it
				}
				all = append(all, r)
			case i == 0:
				all = append(all, r)
			}
		}
	}
	return all
}

func same(a, b any) bool {
	one, err1 := json.Marshal(a)
	other, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(one, other)
}

// note adds a finding of an object.
func (a *Dumps) note(file string, line int, what string, o dialect.Outcome, text string) {
	if n, ok := a.at(file, line, map[string]any{}); ok {
		a.drafts.Note(what, o, n, "", text)
	}
}

// at is a value that stands at a line of a dump.
func (a *Dumps) at(file string, line int, value any) (manifest.Node, bool) {
	raw, err := json.Marshal(value)
	if err != nil {
		a.drafts.Wrong(manifest.Errors{{File: file, Line: line, Column: 1, Msg: "cannot be said in App Mesh's form: " + err.Error()}})
		return manifest.Node{}, false
	}
	nodes, errs := manifest.Form{Line: line, Column: 1}.Read(file, raw)
	a.drafts.Wrong(errs)
	if len(nodes) != 1 {
		return manifest.Node{}, false
	}
	return nodes[0], true
}

// Add gives the drafts what came of all dumps.
func (a *Dumps) Add() {
	meshes := map[string]bool{}
	for _, key := range a.order {
		if n := a.nodes[key]; n != nil {
			if !meshes[n.mesh] {
				meshes[n.mesh] = true
				a.draft(mesh.KindMesh, n.mesh, n.mesh, "", n.file, 1, map[string]any{}, false)
				a.note(n.file, 1, "Mesh "+n.mesh, dialect.Opaque, "whether its egress filter allows all is not read from dumps: it is taken to drop all")
			}
			a.node(n)
		}
		if s := a.calls[key]; s != nil {
			a.service(s)
		}
	}
}

func (a *Dumps) draft(kind mesh.Kind, of, name, parent, file string, line int, spec map[string]any, unclear bool) {
	n, ok := a.at(file, line, spec)
	if !ok {
		return
	}
	if unclear {
		o := dialect.ObjectAt(n, "", string(kind), name)
		o.Mesh = of
		a.drafts.AddIncomplete(o)
		return
	}
	x := dialect.Draft{
		Kind: kind, Spelling: dialect.AWS, At: n, Spec: manifest.Member{Written: "spec", Value: n},
		Name: manifest.Member{Written: "name", Value: n.String(name)}, Mesh: manifest.Member{Written: "mesh", Value: n.String(of)},
	}
	if parent != "" {
		x.Parent = manifest.Member{Written: "router", Value: n.String(parent)}
	}
	a.drafts.Add(x)
}

func (a *Dumps) node(n *node) {
	spec := map[string]any{}
	var ports []int
	for p := range n.listeners {
		ports = append(ports, p)
	}
	slices.Sort(ports)
	var listeners []any
	for _, p := range ports {
		listeners = append(listeners, n.listeners[p])
	}
	if listeners != nil {
		spec["listeners"] = listeners
	}
	var backends []any
	for _, b := range n.backends {
		backends = append(backends, map[string]any{"virtualService": map[string]any{"virtualServiceName": b}})
	}
	if backends != nil {
		spec["backends"] = backends
	}
	if n.discovery != nil {
		spec["serviceDiscovery"] = n.discovery
	}
	what := "VirtualNode " + n.name
	describe := "; what `aws appmesh describe-virtual-node` answered while App Mesh was there has it, or add it to the manifest"
	if !n.own {
		a.note(n.file, n.line, what, dialect.Opaque, "its backends, and listeners that nobody here calls, are in a dump of its own proxy"+describe+": it is taken to have none")
	}
	if n.discovery == nil && (n.named || !n.own) {
		a.note(n.file, n.line, what, dialect.Opaque, "how its endpoints were found (Cloud Map) is not in a dump"+describe+": they are those that agents register")
	}
	if n.discovery == nil && n.own && !n.named && len(ports) > 0 {
		a.note(n.file, n.line, what, dialect.Opaque, "how its endpoints were found is in a dump of a proxy that calls it"+describe+": they are those that agents register")
	}
	if n.tls {
		a.note(n.file, n.line, what, dialect.Opaque, "it is called by TLS: which mode its listener has, and which certificates, is not read from dumps"+describe+"; calls to it are mTLS here where an agent hosts it")
	}
	a.note(n.file, n.line, what, dialect.Opaque, "connection pools, listener time-outs and access logs are not read from dumps"+describe)
	a.draft(mesh.KindVirtualNode, n.mesh, n.name, "", n.file, n.line, spec, n.unclear)
}

func (a *Dumps) service(s *service) {
	provider := map[string]any{}
	switch {
	case len(s.routes) == 0:
		a.note(s.file, s.line, "VirtualService "+s.name, dialect.Opaque, "it has no routes: it is taken to have no provider")
	case s.direct() != "":
		provider["virtualNode"] = map[string]any{"virtualNodeName": s.direct()}
	default:
		provider["virtualRouter"] = map[string]any{"virtualRouterName": s.name}
		a.router(s)
	}
	spec := map[string]any{}
	if len(provider) > 0 {
		spec["provider"] = provider
	}
	a.draft(mesh.KindVirtualService, s.mesh, s.name, "", s.file, s.line, spec, s.unclear)
}

// direct is the virtual node that is the provider: its one route has the node's name, and
// takes everything.
func (s *service) direct() string {
	if len(s.routes) == 0 {
		return ""
	}
	name := s.routes[0].name
	for _, r := range s.routes {
		for _, of := range r.spec {
			spec := of.(map[string]any)
			targets := spec["action"].(map[string]any)["weightedTargets"].([]map[string]any)
			m := spec["match"].(map[string]any)
			prefix, _ := m["prefix"].(string)
			if r.name != name || len(targets) != 1 || targets[0]["virtualNode"] != name || prefix != "/" && m["serviceName"] != nil || len(m) > 2 {
				return ""
			}
		}
	}
	return name
}

func (a *Dumps) router(s *service) {
	what := "VirtualRouter " + s.name
	a.note(s.file, s.line, what, dialect.Opaque, "the name of a router is not in a dump: it has that of its service")
	var listeners []any
	for _, p := range s.ports {
		protocol := s.protocol
		listeners = append(listeners, map[string]any{"portMapping": map[string]any{"port": p, "protocol": protocol}})
	}
	a.draft(mesh.KindVirtualRouter, s.mesh, s.name, "", s.file, s.line, map[string]any{"listeners": listeners}, s.unclear)
	if s.unclear {
		return
	}
	if len(s.routes) > 1 {
		a.note(s.file, s.line, what, dialect.Opaque, priorityUnknown)
	}
	for i, r := range s.routes {
		if len(s.routes) > 1 {
			r.spec["priority"] = min(i, mostPriority)
		}
		a.draft(dialect.KindRoute, s.mesh, r.name, s.name, s.file, s.line, r.spec, false)
	}
}
