// Package effect compares what a proxy is sent before a change and after it: which resources
// are others, which requests do not end as before, and who may connect to its listeners
// of protocol tcp that could not, or may no more. Pure.
//
// It must not know how the resources were made, or whose change it is. Where it cannot
// foretell something it says so, and does not guess.
package effect

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/proxy"
	"signet.example/xds/predict"
)

// What names begin with (xds).
const (
	// IngressRoutes begins those of the routes of requests that come to a proxy.
	IngressRoutes   = "rds_ingress_"
	ingressListener = "lds_ingress_"
)

// Effect is what a change does to the configuration of the proxies of one virtual node or
// gateway.
type Effect struct {
	Of                      proxy.Ref
	Added, Changed, Removed []Named
	// Requests are those of its application, or that come to the gateway, that do not
	// end as before.
	Requests []Requested
	// Connections are its listeners of protocol tcp to which not the same may connect.
	Connections []Connections
	// Authorization is what becomes of requests that its policy denies, where that was not so before; else
	// "". It is in no resource.
	Authorization string
}

// Some reports whether there is any.
func (e Effect) Some() bool {
	return len(e.Added)+len(e.Changed)+len(e.Removed) > 0 || e.Authorization != ""
}

// Named is a resource, by the URL of its type.
type Named struct{ Type, Name string }

// Requested are requests by the routes of one name, that do not end as before. What many
// proxies do alike is one value, shared by all.
type Requested struct {
	Routes      string
	Differences []predict.Difference
}

// Connections is who may connect to a port, by what the handshake takes; both in order. The
// policy decides about each connection besides.
type Connections struct {
	Port          uint32
	Before, After []string
}

// mostLookedAt bounds the routes that are compared with requests for one question, all
// together: a request costs as many as there are before the one that takes it.
const mostLookedAt = 2_000_000

// types are those of which a proxy is sent resources by the server, in the order of what
// rests on what.
var types = []string{ads.ClusterType, ads.EndpointType, ads.ListenerType, ads.RouteType}

// Comparison compares what the proxies of many virtual nodes are sent.
type Comparison struct {
	bind     string
	requests bool
	known    map[string][]predict.Difference // of a pair of virtual hosts
	left     int                             // of mostLookedAt
	leftOut  int
}

// New begins a comparison of sets that were made for proxies at one address, which is left open
// in names. Without requests neither these nor connections are looked at.
func New(bind string, requests bool) *Comparison {
	return &Comparison{bind: bind, requests: requests, known: map[string][]predict.Difference{}, left: mostLookedAt}
}

// LeftOut counts the virtual hosts of which not every request was looked at: there were too
// many, or what cannot be foretold.
func (c *Comparison) LeftOut() int { return c.leftOut }

// named leaves a listener's address open: it is each proxy's own.
func (c *Comparison) named(typeURL, name string) Named {
	if typeURL == ads.ListenerType {
		name = strings.Replace(name, "_"+c.bind+"_", "_ADDRESS_", 1)
	}
	return Named{typeURL, name}
}

// Of compares two sets of one virtual node, of which either may be nil.
func (c *Comparison) Of(at proxy.Ref, before, after *ads.Set) (Effect, error) {
	out := Effect{Of: at}
	for _, typeURL := range types {
		for _, r := range after.Type(typeURL) {
			switch old := before.Get(typeURL, r.Name); {
			case old == nil:
				out.Added = append(out.Added, c.named(typeURL, r.Name))
			case old.Version != r.Version:
				out.Changed = append(out.Changed, c.named(typeURL, r.Name))
			default:
				continue
			}
			if err := c.does(&out, r.Name, before.Get(typeURL, r.Name), r); err != nil {
				return out, err
			}
		}
		for _, old := range before.Type(typeURL) {
			if after.Get(typeURL, old.Name) != nil {
				continue
			}
			out.Removed = append(out.Removed, c.named(typeURL, old.Name))
			if err := c.does(&out, old.Name, old, nil); err != nil {
				return out, err
			}
		}
	}
	return out, nil
}

// does adds what becomes of requests and connections where a resource of a name is another.
func (c *Comparison) does(out *Effect, name string, before, after *ads.Resource) error {
	switch typeURL := cmp.Or(before, after).Type; {
	case !c.requests:
		return nil
	case typeURL == ads.ListenerType && strings.HasPrefix(name, ingressListener):
		return out.connections(before, after)
	case typeURL == ads.RouteType && strings.HasPrefix(name, IngressRoutes) == out.Of.Gateway():
		return c.routes(out, name, before, after)
	}
	return nil // a route to the application, whatever it is, among others
}

// routes are the requests that two route configurations do not treat alike.
func (c *Comparison) routes(out *Effect, name string, before, after *ads.Resource) error {
	was, err := Routes(before)
	if err != nil {
		return err
	}
	is, err := Routes(after)
	if err != nil {
		return err
	}
	of := Requested{Routes: name}
	for _, pair := range predict.Changed(was, is) {
		key := pair.Key()
		list, known := c.known[key]
		if !known {
			if list, err = c.compare(pair, was, is); err != nil {
				return fmt.Errorf("predict what %s does: %w", out.Of, err)
			}
			c.known[key] = list
		}
		of.Differences = append(of.Differences, list...)
	}
	if len(of.Differences) > 0 {
		out.Requests = append(out.Requests, of)
	}
	return nil
}

func (c *Comparison) compare(pair predict.Pair, was, is *routev3.RouteConfiguration) ([]predict.Difference, error) {
	var list []predict.Difference
	each := len(pair.Before.GetRoutes()) + len(pair.After.GetRoutes())
	for _, r := range pair.Requests() {
		if c.left -= each; c.left < 0 {
			c.leftOut++
			return list, nil
		}
		d, differs, err := predict.Compare(was, is, r)
		switch {
		case errors.Is(err, predict.ErrUnknown):
			c.leftOut++
			return list, nil
		case err != nil:
			return nil, err
		case differs:
			list = append(list, d)
		}
	}
	return list, nil
}

// Routes is the content of a resource, nil of nil.
func Routes(r *ads.Resource) (*routev3.RouteConfiguration, error) {
	if r == nil {
		return nil, nil
	}
	rc := &routev3.RouteConfiguration{}
	if err := proto.Unmarshal(r.Body, rc); err != nil {
		return nil, fmt.Errorf("internal error: %s: %w", r.Name, err)
	}
	return rc, nil
}
