package envoydump

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// idempotent is the expression of methods for which Signet had a route of its own before the
// one of the same name for all, up to 0.7.
const idempotent = "GET|HEAD|OPTIONS|TRACE|PUT|DELETE"

// forAll makes one route of two that Signet made of one: the match of the second, and what the
// one for idempotent methods did.
func forAll(list []route) []route {
	var out []route
	for i := 0; i < len(list); i++ {
		r := list[i]
		if i+1 < len(list) && list[i+1].Name == r.Name && r.Match.onlyIdempotent() {
			i++
			r.Match = list[i].Match
		}
		out = append(out, r)
	}
	return out
}

func (m match) onlyIdempotent() bool {
	n := len(m.Headers)
	if n == 0 {
		return false
	}
	last := m.Headers[n-1]
	return last.Name == ":method" && last.String != nil && last.String.Regex != nil && last.String.Regex.Regex == idempotent
}

// Defaults of App Mesh, which its API does not show.
const (
	defaultRetryOn   = "unavailable,connect-failure,refused-stream,retriable-status-codes"
	defaultRetries   = 2
	unservedOn       = "connect-failure,refused-stream,retriable-headers" // what Signet leaves of it, and of gateway-error, for calls of gRPC
	unservedHeaders  = "retriable-headers"
	defaultTimeout   = 15 * time.Second
	defaultIdle      = 5 * time.Minute
	priorityUnknown  = "the dump has the order of the routes and not their priorities: they are numbered in that order"
	mostPriority     = 1000
	retryServer      = 500
	retryGateway     = 502
	retryClient      = 409
	streamError      = "refused-stream"
	connectionError  = "connect-failure"
	httpRoute        = "httpRoute"
	grpcRoute        = "grpcRoute"
	retriableByCodes = "retriable-status-codes"
)

// spec is a route in the API's structure; lost is what of it has no place there.
func (r route) spec(protocol string, targets []map[string]any) (form string, spec map[string]any, lost []string) {
	form = map[string]string{"http2": "http2Route", "grpc": grpcRoute}[protocol]
	if form == "" {
		form = httpRoute
	}
	if r.Match.GRPC != nil {
		form = grpcRoute
	}
	m, lost := r.Match.spec(form)
	spec = map[string]any{"match": m, "action": map[string]any{"weightedTargets": targets}}
	timeout := map[string]any{}
	if t := r.Route.Timeout; t != nil && time.Duration(*t) != defaultTimeout {
		timeout["perRequest"] = t.spec()
	}
	if t := r.Route.Idle; t != nil && time.Duration(*t) != defaultIdle {
		timeout["idle"] = t.spec()
	}
	if len(timeout) > 0 {
		spec["timeout"] = timeout
	}
	if retry, more := r.Route.retries(form); retry != nil {
		spec["retryPolicy"] = retry
		lost = append(lost, more...)
	}
	return form, spec, lost
}

func (m match) spec(form string) (out map[string]any, lost []string) {
	out = map[string]any{}
	lose := func(format string, args ...any) { lost = append(lost, fmt.Sprintf(format, args...)) }
	headers, metadata := "headers", false
	if form == grpcRoute {
		headers, metadata = "metadata", true
		m.ofGRPC(out, lose)
	} else {
		switch {
		case m.Path != nil:
			out["path"] = map[string]any{"exact": *m.Path}
		case m.Regex != nil:
			out["path"] = map[string]any{"regex": m.Regex.Regex}
		case m.Prefix != nil:
			out["prefix"] = *m.Prefix
		default:
			lose("a match of the path that App Mesh did not have")
		}
	}
	var list []any
	for _, h := range m.Headers {
		how, ok := h.spec()
		switch {
		case !ok:
			lose("a match of header %s in a form that App Mesh did not have", h.Name)
		case h.Name == ":method" && !metadata && how["exact"] != nil && !h.Invert:
			out["method"] = how["exact"]
		case h.Name == ":scheme" && !metadata && how["exact"] != nil && !h.Invert:
			out["scheme"] = how["exact"]
		default:
			item := map[string]any{"name": h.Name}
			if h.Invert {
				item["invert"] = true
			}
			if len(how) > 0 {
				item["match"] = how
			}
			list = append(list, item)
		}
	}
	if list != nil {
		out[headers] = list
	}
	list = nil
	for _, q := range m.Query {
		item := map[string]any{"name": q.Name}
		if q.String != nil {
			if q.String.Exact == nil {
				lose("a match of query parameter %s that is not exact", q.Name)
				continue
			}
			item["match"] = map[string]any{"exact": *q.String.Exact}
		}
		list = append(list, item)
	}
	if list != nil && metadata {
		lose("query parameters of a gRPC route")
	} else if list != nil {
		out["queryParameters"] = list
	}
	return out, lost
}

// ofGRPC: /service/method is the path of a call.
func (m match) ofGRPC(out map[string]any, lose func(string, ...any)) {
	path := ""
	switch {
	case m.Path != nil:
		path = *m.Path
	case m.Prefix != nil:
		path = *m.Prefix
	default:
		lose("a match of the path of a gRPC route that App Mesh did not have")
		return
	}
	service, method, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if service != "" {
		out["serviceName"] = service
	}
	if method != "" {
		out["methodName"] = method
	}
}

// spec is how a value is matched, nothing where it only has to be there.
func (h header) spec() (map[string]any, bool) {
	t := h.String
	if t == nil {
		t = &text{Exact: h.Exact, Prefix: h.Prefix, Suffix: h.Suffix, Regex: h.Regex}
	}
	switch {
	case h.Present != nil:
		return nil, *h.Present
	case h.Range != nil:
		return map[string]any{"range": map[string]any{"start": orZero(h.Range.Start.String()), "end": orZero(h.Range.End.String())}}, true
	case t.Exact != nil:
		return map[string]any{"exact": *t.Exact}, true
	case t.Prefix != nil:
		return map[string]any{"prefix": *t.Prefix}, true
	case t.Suffix != nil:
		return map[string]any{"suffix": *t.Suffix}, true
	case t.Regex != nil:
		return map[string]any{"regex": t.Regex.Regex}, true
	}
	return nil, false
}

func orZero(number string) rawNumber {
	if number == "" {
		return "0"
	}
	return rawNumber(number)
}

// rawNumber is written as it stands.
type rawNumber string

// MarshalJSON implements json.Marshaler.
func (n rawNumber) MarshalJSON() ([]byte, error) { return []byte(n), nil }

// retries are a retry policy by App Mesh's events, nil for the one that it took where none
// was given.
func (a *action) retries(form string) (policy map[string]any, lost []string) {
	r := a.Retry
	if r == nil || r.On == "" && len(r.Codes) == 0 || r.On == defaultRetryOn || r.On == unservedOn && len(r.Codes) == 0 && r.PerTry == nil && r.Num != nil && *r.Num == defaultRetries {
		return nil, nil
	}
	var http, tcp, grpc []any
	gateway := strings.Contains(r.On, unservedHeaders) // of Signet: the conditions below are its own
	for on := range strings.SplitSeq(r.On, ",") {
		switch on {
		case streamError:
			if !gateway {
				http = append(http, "stream-error")
			}
		case connectionError:
			if !gateway {
				tcp = append(tcp, "connection-error")
			}
		case "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable":
			grpc = append(grpc, on)
		case unservedHeaders:
			if len(r.Codes) == 0 {
				http = append(http, "gateway-error")
			}
		case "reset", retriableByCodes, "":
		default:
			lost = append(lost, "the retry condition "+on)
		}
	}
	if slices.Contains(r.Codes, retryServer) {
		http = append(http, "server-error") // with which gateway-error is the same
	} else if slices.Contains(r.Codes, retryGateway) {
		http = append(http, "gateway-error")
	}
	if slices.Contains(r.Codes, retryClient) {
		http = append(http, "client-error")
	}
	policy = map[string]any{"maxRetries": uint32(1), "perRetryTimeout": duration(0).spec()} // 0: none of its own
	if r.Num != nil {
		policy["maxRetries"] = *r.Num
	}
	if r.PerTry != nil {
		policy["perRetryTimeout"] = r.PerTry.spec()
	}
	for name, events := range map[string][]any{"httpRetryEvents": http, "tcpRetryEvents": tcp, "grpcRetryEvents": grpc} {
		if events != nil && (name != "grpcRetryEvents" || form == grpcRoute) {
			policy[name] = events
		}
	}
	return policy, lost
}
