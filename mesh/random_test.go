package mesh_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"

	"signet.example/mesh"
)

// awkward strings mean something else to one YAML reader or another.
var awkward = []string{
	"yes", "No", "null", "~", "true", "1", "1e3", "0x1f", "010", "1_0", ".inf", "2020-01-01", "12:30", "=", "<<",
	" lead", "trail ", "a: b", "a #b", "- a", "? a", "*a", "&a", "!a", "%a", "@a", "`a", "|", ">", "'", `"`, `\`, "{a}", "[a", "a,b",
	"two\nlines", "tab\there", "bell\x07", "del\x7f", "nel\u0085", "ls\u2028", "bom\ufeff", "é", "日本", "😀", "---", "...", "x", strings.Repeat("long ", 40),
}

// generator fills any spec with random values that obey its check tags.
type generator struct{ *rand.Rand }

func (g generator) spec(k mesh.Kind) any {
	s := mesh.NewSpec(k)
	g.fill(reflect.ValueOf(s).Elem(), nil, "")
	g.settle(s)
	return s
}

func (g generator) fill(v reflect.Value, check map[string]string, name string) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		g.fill(v.Elem(), check, name)
	case reflect.Struct:
		g.structure(v)
	case reflect.Slice:
		low, high := span(check["items"], 0, 3)
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		for range g.between(max(low, 1), min(high, low+2, 4)) {
			item := reflect.New(v.Type().Elem()).Elem()
			g.fill(item, each(check), name)
			v.Set(reflect.Append(v, item))
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{g.pick(awkward): g.pick(awkward), "app": "x"}))
	case reflect.String:
		v.SetString(g.text(check, name))
	case reflect.Bool:
		v.SetBool(g.IntN(2) == 0)
	case reflect.Int64:
		v.SetInt(g.number(check))
	case reflect.Uint32:
		v.SetUint(uint64(g.number(check))) //nolint:gosec // its check begins at 0
	default:
		panic("internal error: no generator for " + v.Type().String())
	}
}

func (g generator) structure(v reflect.Value) {
	var union []int
	for i := range v.NumField() {
		f := v.Type().Field(i)
		check := wordsOf(f.Tag.Get("check"))
		switch {
		case check["one"] != "":
			union = append(union, i)
		case check["required"] != "" || g.IntN(3) > 0:
			g.fill(v.Field(i), check, f.Name)
		}
	}
	if union != nil {
		i := union[g.IntN(len(union))]
		f := v.Type().Field(i)
		g.fill(v.Field(i), wordsOf(f.Tag.Get("check")), f.Name)
	}
}

func each(check map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range check {
		if rest, ok := strings.CutPrefix(k, "each."); ok {
			out[rest] = v
		}
	}
	return out
}

func span(s string, low, high int) (int, int) {
	a, b, ok := strings.Cut(s, "..")
	if !ok {
		return low, high
	}
	low = int(atoi(a))
	if high = low + 1000; b != "" {
		high = int(atoi(b))
	}
	return low, high
}

func (g generator) between(low, high int) int { return low + g.IntN(max(high-low, 0)+1) }

func (g generator) pick(from []string) string { return from[g.IntN(len(from))] }

func (g generator) number(check map[string]string) int64 {
	low, high := atoi(check["min"]), int64(1)<<40
	if m := check["max"]; m != "" {
		high = atoi(m)
	}
	return low + g.Int64N(high-low+1)
}

func (g generator) text(check map[string]string, name string) string {
	if e := check["enum"]; e != "" {
		return g.pick(strings.Split(e, ","))
	}
	if kind, ok := strings.CutSuffix(name, "ARN"); ok && strings.HasPrefix(kind, "Virtual") {
		return "arn:aws:appmesh:r:1:mesh/m/v" + kind[1:] + "/x"
	}
	low, high := span(check["len"], 0, 1000)
	s := ""
	switch {
	case name == "Regex":
		return g.pick([]string{"a", "/[0-9]+", `\.x?`, "yes", "~"})
	case name == "AWSName" || check["pattern"] == "host":
		return fmt.Sprintf("n%d", g.IntN(1000))
	case check["pattern"] == "path":
		return g.pick([]string{"/", "/a", "/a/", "/a/b.c", "/%20", "/yes"})
	case check["pattern"] == "token":
		return g.pick([]string{"x-a", "null", "123", "~", "a_b"})
	case check["pattern"] != "":
		return g.pick([]string{"k", "a!b", "~", "1"})
	}
	for s = g.pick(awkward); len([]rune(s)) < low; {
		s += g.pick(awkward)
	}
	return string([]rune(s)[:min(len([]rune(s)), high)])
}

// settle makes fields agree with each other, as the rules want.
func (g generator) settle(spec any) {
	switch s := spec.(type) {
	case *mesh.VirtualNodeSpec:
		for i := range s.Listeners {
			settleListener(&s.Listeners[i], uint32(1000+i))
		}
	case *mesh.VirtualGatewaySpec:
		for i := range s.Listeners {
			l := &s.Listeners[i]
			l.PortMapping.Port = uint32(1000 + i)
			if l.HealthCheck != nil {
				l.HealthCheck.Port = l.PortMapping.Port
			}
			if p := l.ConnectionPool; p != nil {
				l.PortMapping.Protocol = map[bool]string{p.GRPC != nil: "grpc", p.HTTP != nil: "http", p.HTTP2 != nil: "http2"}[true]
			}
		}
	case *mesh.VirtualRouterSpec:
		settleRouter(s)
	case *mesh.GatewayRouteSpec:
		settleGatewayRoute(s)
	}
}

func settleListener(l *mesh.VirtualNodeListener, port uint32) {
	l.PortMapping.Port = port
	if l.HealthCheck != nil && l.HealthCheck.Port != 0 {
		l.HealthCheck.Port = port
	}
	if p := l.ConnectionPool; p != nil {
		l.Timeout = nil
		l.PortMapping.Protocol = map[bool]string{p.GRPC != nil: "grpc", p.HTTP != nil: "http", p.HTTP2 != nil: "http2", p.TCP != nil: "tcp"}[true]
	}
	if p := l.Timeout; p != nil {
		l.PortMapping.Protocol = map[bool]string{p.GRPC != nil: "grpc", p.HTTP != nil: "http", p.HTTP2 != nil: "http2", p.TCP != nil: "tcp"}[true]
	}
}

func settleRouter(s *mesh.VirtualRouterSpec) {
	s.Listeners = []mesh.VirtualRouterListener{{PortMapping: mesh.PortMapping{Port: 80, Protocol: "http"}}}
	for i := range s.Routes {
		r := &s.Routes[i]
		r.Name = fmt.Sprintf("%s%d", r.Name[:min(len(r.Name), 3)], i)
		r.Name = strings.ToValidUTF8(r.Name, "")
		for _, h := range []*mesh.HTTPRoute{r.HTTPRoute, r.HTTP2Route} {
			if h == nil {
				continue
			}
			settlePath(&h.Match.Path, &h.Match.Prefix)
			h.Match.Port = min(h.Match.Port, 1) * 80
			settleHeaders(h.Match.Headers)
			settleWeights(&h.Action)
			if p := h.RetryPolicy; p != nil && len(p.HTTPRetryEvents)+len(p.TCPRetryEvents) == 0 {
				p.TCPRetryEvents = []string{"connection-error"}
			}
		}
		if h := r.GRPCRoute; h != nil {
			h.Match.Port = 0
			if h.Match.ServiceName != "" {
				h.Match.ServiceName = "pkg.Service"
			}
			if h.Match.MethodName != "" {
				h.Match.ServiceName, h.Match.MethodName = "pkg.Service", "Method"
			}
			settleHeaders(h.Match.Metadata)
			settleWeights(&h.Action)
			if p := h.RetryPolicy; p != nil && len(p.HTTPRetryEvents)+len(p.TCPRetryEvents)+len(p.GRPCRetryEvents) == 0 {
				p.GRPCRetryEvents = []string{"cancelled"}
			}
		}
		if h := r.TCPRoute; h != nil {
			h.Match = nil
			settleWeights(&h.Action)
		}
	}
}

func settlePath(path **mesh.HTTPPathMatch, prefix *string) {
	switch {
	case *path != nil:
		*prefix = ""
	case *prefix == "":
		*prefix = "/"
	}
}

func settleHeaders(headers []mesh.HTTPRouteHeader) {
	for _, h := range headers {
		if h.Match != nil && h.Match.Range != nil {
			h.Match.Range.End = h.Match.Range.Start + 1
		}
	}
}

func settleWeights(a *mesh.RouteAction) {
	for i := range a.WeightedTargets {
		a.WeightedTargets[i].Weight = int64(i + 1)
	}
}

func settleRewrite(h *mesh.HTTPGatewayRoute) {
	w := h.Action.Rewrite
	if w == nil {
		return
	}
	if h.Match.Path == nil {
		w.Path = nil
	}
	if h.Match.Prefix == "" {
		w.Prefix = nil
	}
	if w.Prefix != nil && w.Prefix.Value != "" {
		w.Prefix.Value = "/to/"
	}
}

func settleGatewayRoute(s *mesh.GatewayRouteSpec) {
	for _, h := range []*mesh.HTTPGatewayRoute{s.HTTPRoute, s.HTTP2Route} {
		if h != nil {
			settlePath(&h.Match.Path, &h.Match.Prefix)
			settleHeaders(h.Match.Headers)
			settleRewrite(h)
		}
	}
	if h := s.GRPCRoute; h != nil {
		h.Match.ServiceName = "s"
		settleHeaders(h.Match.Metadata)
	}
}
