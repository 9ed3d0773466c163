package relay

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"signet.example/agent/resources"
	"signet.example/agent/svids"
	"signet.example/identity"
	"signet.example/proxy"
)

// Front is what stands behind one proxy: the application, as the proxy's own
// configuration has it.
type Front struct {
	Node  string // as an xDS node id
	App   proxy.Place
	Ports string // as text, so that a Front can be a key; see List
}

// FrontOfPeer finds the configuration of the proxy that a process is. For one that the
// agent did not start it is what its stream was given: without a stream it has
// no configuration, and nobody may speak through it.
func (r *Relay) FrontOfPeer(pid int, has identity.Selectors, w svids.Name, b identity.Binding) (Front, error) {
	sh, err := r.ShapeOfPeer(pid, has, w)
	if err != nil {
		return Front{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.frontOf(viewKey{sub: subscriptionKey{resources.RefOf(b), sh}, as: w})
}

// ShapeOfPeer is the shape of the proxy that a process is.
func (r *Relay) ShapeOfPeer(pid int, has identity.Selectors, w svids.Name) (proxy.Shape, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.proxies[resources.ProxyName(has)]; ok {
		return p.sub.shape, nil
	}
	if sh, ok := r.shapeOfStream(pid, w); ok {
		return sh, nil
	}
	return proxy.Shape{}, errors.New("the proxy has no stream to the agent")
}

// frontOf needs mu.
func (r *Relay) frontOf(key viewKey) (Front, error) {
	v := r.views[key]
	if v == nil || v.published.Load() == nil {
		return Front{}, errors.New("the proxy has no configuration yet")
	}
	app, err := proxy.ParsePlace(key.sub.shape.App)
	if err != nil {
		return Front{}, fmt.Errorf("the application: %w", err)
	}
	return Front{Node: key.sub.ref.String(), App: app, Ports: v.portsText()}, nil
}

// shapeOfStream needs mu.
func (r *Relay) shapeOfStream(pid int, w svids.Name) (proxy.Shape, bool) {
	for g := range r.streams {
		if g.peer.PID() != pid || g.peer.Alive() != nil {
			continue
		}
		if bound, sh, ok := g.boundAs(); ok && bound == w {
			return sh, true
		}
	}
	return proxy.Shape{}, false
}

// FrontOf is that of a supervised proxy, for reports.
func (r *Relay) FrontOf(ref proxy.Ref, shape proxy.Shape, w svids.Name) (Front, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.frontOf(viewKey{subscriptionKey{ref, shape}, w})
}

// List is the ports as numbers.
func (f Front) List() []uint16 {
	var out []uint16
	for text := range strings.SplitSeq(f.Ports, ", ") {
		if n, err := strconv.ParseUint(text, 10, 16); err == nil {
			out = append(out, uint16(n))
		}
	}
	return out
}
