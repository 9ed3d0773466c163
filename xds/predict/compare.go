package predict

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
)

// Difference is a request with which two configurations do not do the same.
type Difference struct {
	Request       Request
	Before, After Outcome
	Why           string
}

// Compare predicts a request by two configurations, of which either may be nil: there is
// none. The same, false.
func Compare(before, after *routev3.RouteConfiguration, r Request) (Difference, bool, error) {
	d := Difference{Request: r}
	var err error
	if d.Before, err = Of(before, r); err != nil {
		return d, false, err
	}
	if d.After, err = Of(after, r); err != nil {
		return d, false, err
	}
	if d.Before.same(d.After) {
		return d, false, nil
	}
	d.Why = d.why(before, after)
	return d, true, nil
}

// same reports whether a request is answered in the same way, by whichever route.
func (o Outcome) same(other Outcome) bool {
	if o.Route == nil || other.Route == nil {
		return o.refused() && other.refused()
	}
	return proto.Equal(does(o.Route), does(other.Route))
}

// refused reports whether nothing is found for a request.
func (o Outcome) refused() bool {
	return o.Route == nil || o.Route.GetDirectResponse().GetStatus() == 404
}

// does is what a route does with what it takes.
func does(r *routev3.Route) *routev3.Route {
	out := &routev3.Route{Action: r.GetAction(), TypedPerFilterConfig: r.GetTypedPerFilterConfig(), RequestHeadersToAdd: r.GetRequestHeadersToAdd(), Metadata: r.GetMetadata()}
	if a := r.GetRoute(); a.GetPrefixRewrite() != "" { // in the place of what the match has
		out.Match = r.GetMatch()
	}
	return out
}

// why is the reason in words: what of the routes is another.
func (d Difference) why(before, after *routev3.RouteConfiguration) string {
	was, is := d.Before.Route.GetName(), d.After.Route.GetName()
	switch {
	case d.Before.VirtualHost == "":
		return "its host is new"
	case d.After.VirtualHost == "":
		return "its host is gone"
	case was == is && was != "":
		return "route " + is + " does another thing: " + strings.Join(differ(d.Before.Route, d.After.Route), ", ")
	}
	var reasons []string
	if was != "" {
		if !has(after, d.After.VirtualHost, was) {
			reasons = append(reasons, "route "+was+" is gone")
		} else if why := d.After.WhyNot(was); why != "" {
			reasons = append(reasons, fmt.Sprintf("route %s does not take it any more: %s", was, why))
		}
	}
	if is != "" {
		if !has(before, d.Before.VirtualHost, is) {
			reasons = append(reasons, "route "+is+" is new")
		} else if why := d.Before.WhyNot(is); why != "" {
			reasons = append(reasons, fmt.Sprintf("route %s takes it, which did not: %s", is, why))
		}
	}
	if len(reasons) == 0 {
		return fmt.Sprintf("route %s stands before %s", is, was)
	}
	return strings.Join(reasons, "; ")
}

func has(rc *routev3.RouteConfiguration, host, route string) bool {
	for _, h := range rc.GetVirtualHosts() {
		if h.GetName() == host {
			return slices.ContainsFunc(h.GetRoutes(), func(r *routev3.Route) bool { return r.GetName() == route })
		}
	}
	return false
}

// differ names what of two routes of one name is another.
func differ(was, is *routev3.Route) []string {
	a, b := was.GetRoute(), is.GetRoute()
	if a == nil || b == nil {
		return []string{"whether it leads anywhere"}
	}
	var list []string
	for _, part := range []struct {
		what string
		of   func(*routev3.RouteAction) proto.Message
	}{
		{"where it leads", func(a *routev3.RouteAction) proto.Message {
			out := &routev3.RouteAction{}
			switch c := a.GetClusterSpecifier().(type) {
			case *routev3.RouteAction_Cluster:
				out.ClusterSpecifier = c
			case *routev3.RouteAction_WeightedClusters:
				out.ClusterSpecifier = c
			}
			return out
		}},
		{"its time-outs", func(a *routev3.RouteAction) proto.Message {
			return &routev3.RouteAction{Timeout: a.GetTimeout(), IdleTimeout: a.GetIdleTimeout(), MaxStreamDuration: a.GetMaxStreamDuration()}
		}},
		{"its retries", func(a *routev3.RouteAction) proto.Message {
			return &routev3.RouteAction{RetryPolicy: a.GetRetryPolicy()}
		}},
		{"the path it sends", func(a *routev3.RouteAction) proto.Message {
			return &routev3.RouteAction{PrefixRewrite: a.GetPrefixRewrite(), RegexRewrite: a.GetRegexRewrite()}
		}},
		{"the host it sends", func(a *routev3.RouteAction) proto.Message {
			out := &routev3.RouteAction{}
			if h, ok := a.GetHostRewriteSpecifier().(*routev3.RouteAction_HostRewriteLiteral); ok {
				out.HostRewriteSpecifier = h
			}
			return out
		}},
	} {
		if !proto.Equal(part.of(a), part.of(b)) {
			list = append(list, part.what)
		}
	}
	if len(list) == 0 {
		list = []string{"its other fields"}
	}
	return list
}

// Pair is a virtual host before and after; one of the two may be nil.
type Pair struct{ Before, After *routev3.VirtualHost }

// Changed are the virtual hosts of two configurations that are not the same.
func Changed(before, after *routev3.RouteConfiguration) []Pair {
	was := map[string]*routev3.VirtualHost{}
	for _, h := range before.GetVirtualHosts() {
		was[h.GetName()] = h
	}
	var list []Pair
	for _, h := range after.GetVirtualHosts() {
		if old := was[h.GetName()]; old == nil || !proto.Equal(old, h) {
			list = append(list, Pair{old, h})
		}
		delete(was, h.GetName())
	}
	for _, h := range before.GetVirtualHosts() {
		if was[h.GetName()] != nil {
			list = append(list, Pair{Before: h})
		}
	}
	return list
}

// Key is the same for pairs of the same hosts, of whichever configuration.
func (p Pair) Key() string {
	var b bytes.Buffer
	for _, h := range []*routev3.VirtualHost{p.Before, p.After} {
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(h)
		if err != nil { // no message of Envoy's has what cannot be written
			panic(fmt.Sprintf("internal error: a virtual host that cannot be encoded: %v", err))
		}
		fmt.Fprintf(&b, "%d:", len(raw))
		b.Write(raw)
	}
	return b.String()
}

// Requests are those that stand for what either host tells apart.
func (p Pair) Requests() []Request {
	list := RequestsOf(p.Before)
	seen := map[string]bool{}
	for _, r := range list {
		seen[r.String()] = true
	}
	for _, r := range RequestsOf(p.After) {
		if !seen[r.String()] {
			list = append(list, r)
		}
	}
	return list
}
