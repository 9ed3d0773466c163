package relay

import (
	"errors"

	"signet.example/agent/resources"
	"signet.example/agent/svids"
	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/proxy"
)

// This file is what the others who answer a proxy have to know of it (authz.sock,
// wayout.sock).

// NodeOf is what a process was given on its streams; the zero Ref where that is
// nothing, or several.
func (r *Relay) NodeOf(p *attestation.Peer) proxy.Ref {
	var ref proxy.Ref
	r.mu.Lock()
	defer r.mu.Unlock()
	for g := range r.streams {
		if g.peer.PID() != p.PID() || g.peer.Alive() != nil { // a pid is another's once its process is gone
			continue
		}
		given := g.given()
		if given == (proxy.Ref{}) || given == ref {
			continue
		}
		if ref != (proxy.Ref{}) {
			return proxy.Ref{}
		}
		ref = given
	}
	return ref
}

// ShapeOf is the shape of the proxy that a process is. For one that the agent did not
// start it is what its stream was given: without a stream it has none.
func (r *Relay) ShapeOf(pid int, has identity.Selectors, w svids.Name) (proxy.Shape, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.proxies[resources.ProxyName(has)]; ok {
		return p.sub.shape, nil
	}
	for g := range r.streams {
		if g.peer.PID() != pid || g.peer.Alive() != nil {
			continue
		}
		if bound, sh, ok := g.boundAs(); ok && bound == w {
			return sh, nil
		}
	}
	return proxy.Shape{}, errors.New("the proxy has no stream to the agent")
}

// PortsOf are the ports of the inbound listeners of what the proxies of one shape and
// binding were sent, in order. Nobody changes them.
func (r *Relay) PortsOf(ref proxy.Ref, sh proxy.Shape, w svids.Name) ([]uint32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := viewKey{sub: subscriptionKey{ref, sh}, as: w}
	for name, p := range r.proxies {
		if p.sub == key.sub && r.views[viewKey{key.sub, w, name}] != nil {
			key.own = name
		}
	}
	v := r.views[key]
	if v == nil || v.published.Load() == nil {
		return nil, errors.New("the proxy has no configuration yet")
	}
	return v.rememberedPorts(), nil
}
