package ecs

import (
	"slices"
	"strconv"
	"strings"
)

// This file has what becomes of the redirection of App Mesh (proxyConfiguration), by which the
// platform leads connections of a task to its proxy.

// redirection has the proxy's ports, as proxyConfiguration has them.
type redirection struct {
	egress  string
	ingress string // "" where nothing that comes in is redirected
}

// properties are those of proxyConfiguration.
var properties = []string{"IgnoredUID", "IgnoredGID", "AppPorts", "ProxyIngressPort", "ProxyEgressPort", "EgressIgnoredIPs", "EgressIgnoredPorts"}

// chooseWayOut takes redirection where the definition has it and nothing else is asked for.
func (t *task) chooseWayOut() {
	p := t.get("proxyConfiguration")
	t.way = t.options.WayOut
	switch {
	case t.gateway: // has nothing that could be redirected
	case p == nil && t.way == ByRedirection:
		t.refuse(nil, t.at("proxyConfiguration"), "is missing, by which the platform redirects: write it, or convert with --way-out %s", ByVariable)
	case p == nil && t.way == "":
		t.way = ByVariable
	case t.way == "" || t.way == ByRedirection:
		t.way = ByRedirection
		t.readRedirection(p)
	}
}

// readRedirection refuses what would lead the proxy to itself, or others to where nobody listens.
func (t *task) readRedirection(p *value) {
	t.checkLists(p, func(key string) string { return t.at("proxyConfiguration", key) }, "properties")
	for _, e := range t.of(p, "properties").items() {
		if name := t.literal(e, "name"); !slices.Contains(properties, name) {
			t.refuseProperty(e, name, "want one of %s, written out", strings.Join(properties, ", "))
		}
	}
	if uid := t.property("IgnoredUID"); !uid.is(userOfAgent) {
		t.refuseProperty(uid, "IgnoredUID", "want %s, as whom the agent's image runs: its calls are to be left alone. Write it here, and as the user of each container whose calls were", userOfAgent)
	}
	t.redirects.egress = t.portOf("ProxyEgressPort")
	ports := t.property("AppPorts")
	if ports == nil || ports.is("") {
		return
	}
	t.redirects.ingress = t.portOf("ProxyIngressPort")
	if t.redirects.ingress == t.redirects.egress {
		t.refuseProperty(t.property("ProxyIngressPort"), "ProxyIngressPort", "is that of ProxyEgressPort too")
	}
	for p := range strings.SplitSeq(ports.literal(), ",") {
		if p = strings.TrimSpace(p); p != "" && (p == t.redirects.ingress || p == t.redirects.egress) {
			t.refuseProperty(ports, "AppPorts", "%s is a port of the proxy's, which would be led to itself", p)
		}
	}
}

// property is the value of one of proxyConfiguration; nil where it is not there.
func (t *task) property(name string) *value {
	for _, e := range t.of(t.get("proxyConfiguration"), "properties").items() {
		if t.literal(e, "name") == name {
			return t.of(e, "value")
		}
	}
	return nil
}

// portOf is the port that a property says.
func (t *task) portOf(name string) string {
	v := t.property(name)
	if n, err := strconv.ParseUint(v.literal(), 10, 16); err != nil || n == 0 {
		t.refuseProperty(v, name, "want a port, written out: the agent is told to listen there")
	}
	return v.literal()
}

func (t *task) refuseProperty(at *value, name, format string, args ...any) {
	t.refuse(at, t.at("proxyConfiguration", "properties", "["+name+"]"), format+"; or convert with --way-out %s, by which nothing is redirected", append(args, ByVariable)...)
}

// convertRedirection leaves the redirection as it is where the proxy takes what is redirected,
// else takes it out.
func (t *task) convertRedirection() {
	p := t.get("proxyConfiguration")
	switch {
	case p == nil:
		return
	case t.gateway:
		t.drop(t.v, "proxyConfiguration", t.because(t.at("proxyConfiguration"), "a gateway has no application, whose connections could be redirected"))
		return
	case t.way == ByRedirection:
		t.note("connections are redirected to the proxy as before (proxyConfiguration): the application, its ports and the names it calls stay as they are. A server that speaks first (MySQL, SMTP, SSH) is reached by none of them: its port belongs into EgressIgnoredPorts, unless it is there")
	default:
		t.takeOutRedirection()
	}
	if t.redirects.ingress == "" && len(t.applications) > 0 {
		ports := t.property("AppPorts").literal()
		if ports == "" {
			ports = "of its virtual node"
		}
		t.note("the application listens on 127.0.0.1, not on 0.0.0.0, at its ports (%s): the proxy listens at the task's own address with the same ports, and one that listens on all addresses takes them from it", ports)
	}
}

func (t *task) takeOutRedirection() {
	if v := t.property("EgressIgnoredIPs"); v != nil && v.kind == opaque {
		t.note("%s: EgressIgnoredIPs is a function: add what it is to no_proxy of the application", t.at("proxyConfiguration", "properties"))
	}
	if ignored := t.property("EgressIgnoredPorts").literal(); ignored != "" {
		t.note("EgressIgnoredPorts %s has nothing to follow it: what does not go by %s goes out by itself", ignored, wayOut)
	}
	t.drop(t.v, "proxyConfiguration", t.because(t.at("proxyConfiguration"),
		"nothing is redirected: callers reach the proxy at the task's own address and the service's ports, and nobody listens at 15000; the way out is an HTTP proxy"))
}
