package views

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/proxy"
	"signet.example/xds/predict"
)

// Effect is what a change does to the configuration of the proxies of one virtual node or
// gateway.
type Effect struct {
	Of                      proxy.Ref
	Added, Changed, Removed []Named
	// Requests are those of its application, or that come to the gateway, that do not
	// end as before.
	Requests []Requested
}

// Named is a resource.
type Named struct{ Type, Name string }

// named leaves a listener's address open: it is each proxy's own, and here that of [anyShape].
func named(typeURL, name string) Named {
	if typeURL == ads.ListenerType {
		name = strings.Replace(name, "_"+anyShape.Bind+"_", "_ADDRESS_", 1)
	}
	return Named{typeURL, name}
}

// Requested are requests by the routes of one name, that do not end as before. What many
// proxies do alike is one value, shared by all.
type Requested struct {
	Routes      string
	Differences []predict.Difference
}

// mostLookedAt bounds the routes that are compared with requests for one question, all
// together: a request costs as many as there are before the one that takes it.
const mostLookedAt = 2_000_000

// Effects are what a change from now to next does. What is not foretold of requests, since
// it would take too long or has what cannot be predicted, is counted by the virtual hosts
// that were left out.
func (v *Views) Effects(now, next Model) (list []Effect, leftOut int, err error) {
	before := v.source.Look().nodeInputs()
	after := before
	before.model, after.model = now, next
	changed := after.affected(before)
	refs := changed.in(next.Graph())
	for _, at := range changed.in(now.Graph()) {
		if next.Graph().Node(at) == nil {
			refs = append(refs, at)
		}
	}
	slices.SortFunc(refs, proxy.Ref.Compare)
	e := effects{known: map[string][]predict.Difference{}, left: mostLookedAt}
	was, is := v.translate(before), v.translate(after)
	for _, at := range refs {
		key := Key{at, anyShapeOf(at)}
		var old, made *ads.Set
		if now.Graph().Node(at) != nil {
			old, _ = was.set(key) // what cannot be translated is served to nobody: nothing
		}
		if next.Graph().Node(at) != nil {
			if made, err = is.set(key); err != nil {
				return nil, 0, fmt.Errorf("translate %s: %w", at, err)
			}
		}
		of, err := e.of(at, old, made)
		if err != nil {
			return nil, 0, err
		}
		if len(of.Added)+len(of.Changed)+len(of.Removed) > 0 {
			list = append(list, of)
		}
		delete(was.nodes, at) // a translation is asked for each once
		delete(is.nodes, at)
	}
	return list, e.leftOut, nil
}

// effects are being found, over all proxies.
type effects struct {
	known   map[string][]predict.Difference // of a pair of virtual hosts
	left    int                             // of mostLookedAt
	leftOut int
}

// of compares two sets of one virtual node.
func (e *effects) of(at proxy.Ref, before, after *ads.Set) (Effect, error) {
	out := Effect{Of: at}
	for _, typeURL := range nodeTypes {
		for _, r := range after.Type(typeURL) {
			switch old := before.Get(typeURL, r.Name); {
			case old == nil:
				out.Added = append(out.Added, named(typeURL, r.Name))
			case old.Version != r.Version:
				out.Changed = append(out.Changed, named(typeURL, r.Name))
			default:
				continue
			}
			if typeURL == ads.RouteType {
				if err := e.routes(&out, r.Name, before.Get(typeURL, r.Name), r); err != nil {
					return out, err
				}
			}
		}
		for _, old := range before.Type(typeURL) {
			if after.Get(typeURL, old.Name) != nil {
				continue
			}
			out.Removed = append(out.Removed, named(typeURL, old.Name))
			if typeURL == ads.RouteType {
				if err := e.routes(&out, old.Name, old, nil); err != nil {
					return out, err
				}
			}
		}
	}
	return out, nil
}

// routes are the requests that two route configurations do not treat alike.
func (e *effects) routes(out *Effect, name string, before, after *ads.Resource) error {
	if strings.HasPrefix(name, ingressRoutes) != out.Of.Gateway() {
		return nil // to the application, whatever it is
	}
	was, err := routeConfiguration(before)
	if err != nil {
		return err
	}
	is, err := routeConfiguration(after)
	if err != nil {
		return err
	}
	of := Requested{Routes: name}
	for _, pair := range predict.Changed(was, is) {
		key := pair.Key()
		list, known := e.known[key]
		if !known {
			if list, err = e.compare(pair, was, is); err != nil {
				return fmt.Errorf("predict what %s does: %w", out.Of, err)
			}
			e.known[key] = list
		}
		of.Differences = append(of.Differences, list...)
	}
	if len(of.Differences) > 0 {
		out.Requests = append(out.Requests, of)
	}
	return nil
}

func (e *effects) compare(pair predict.Pair, was, is *routev3.RouteConfiguration) ([]predict.Difference, error) {
	var list []predict.Difference
	each := len(pair.Before.GetRoutes()) + len(pair.After.GetRoutes())
	for _, r := range pair.Requests() {
		if e.left -= each; e.left < 0 {
			e.leftOut++
			return list, nil
		}
		d, differs, err := predict.Compare(was, is, r)
		switch {
		case errors.Is(err, predict.ErrUnknown):
			e.leftOut++
			return list, nil
		case err != nil:
			return nil, err
		case differs:
			list = append(list, d)
		}
	}
	return list, nil
}

// routeConfiguration is nil of nil.
func routeConfiguration(r *ads.Resource) (*routev3.RouteConfiguration, error) {
	if r == nil {
		return nil, nil
	}
	rc := &routev3.RouteConfiguration{}
	if err := proto.Unmarshal(r.Body, rc); err != nil {
		return nil, fmt.Errorf("internal error: %s: %w", r.Name, err)
	}
	return rc, nil
}
