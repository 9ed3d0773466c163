package authz

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/metadata"

	"signet.example/policy"
	"signet.example/proxy"
)

const (
	maxHeaders     = 512
	maxHeaderBytes = 256 << 10
)

// refusedRequest is a denial by a rule of Signet's own.
type refusedRequest struct{ rule, why string }

// Error implements error.
func (r *refusedRequest) Error() string { return r.rule + ": " + r.why }

// newInput makes policy's document of Envoy's question. Destination is who the
// asking proxy was attested to be; source is the peer certificate that Envoy
// verified. No header of the caller and no field of the request says who anybody is.
func (p *peers) newInput(ctx context.Context, req *authv3.CheckRequest, caller Caller, now time.Time) (policy.Input, error) {
	in := policy.Input{
		Destination: policy.Peer{ID: caller.Destination},
		Time:        now,
	}
	h := req.GetAttributes().GetRequest().GetHttp()
	if h == nil {
		return p.connectionInput(ctx, req, caller, now)
	}
	in.Request = policy.Request{
		Method: h.GetMethod(), Protocol: h.GetProtocol(),
		RawTarget: h.GetPath(), Authority: h.GetHost(), Scheme: h.GetScheme(), Port: listenerPort(ctx, req),
	}
	if at := req.GetAttributes().GetRequest().GetTime(); at.IsValid() {
		in.Request.Received = at.AsTime()
	}
	// What can be told is filled in even of a refused request: for its record.
	t, pathErr := parseTarget(h.GetPath())
	in.Request.Path, in.Request.Segments, in.Request.Query, in.Request.RawQuery = t.path, t.segments, t.query, t.rawQuery
	host, hostErr := canonicalHost(h.GetHost())
	in.Request.Host = host
	headers, headerErr := readHeaders(h, passed(ctx))
	in.Request.Headers = headers
	id, peerErr := spiffeid.ID{}, error(nil)
	if chain := takeChain(headers); !foreign(ctx) {
		id, peerErr = p.verified(req, chain)
	}
	if in.Source.ID = id; id.IsZero() && peerErr == nil {
		in.Source.Ingress = ingress(ctx)
	}
	switch {
	case !isToken(h.GetMethod()):
		return in, &refusedRequest{"signet: ambiguous method", "not a method (RFC 9110 9.1)"}
	case pathErr != nil:
		return in, &refusedRequest{"signet: ambiguous path", pathErr.Error()}
	case hostErr != nil:
		return in, &refusedRequest{"signet: ambiguous host", hostErr.Error()}
	case headerErr != nil:
		return in, &refusedRequest{"signet: ambiguous header", headerErr.Error()}
	}
	// Last, since a request whose headers were not all read has no chain either.
	return in, peerErr
}

// readHeaders returns every value of each header by its lower-case name.
// With encode_raw_headers, as generated, they come as a list of raw values in
// header_map; otherwise as a map in which Envoy joined repeated ones. Those with underscores must
// be among some, unless Envoy refuses them itself, where there are none.
func readHeaders(h *authv3.AttributeContext_HttpRequest, underscored []string) (map[string][]string, error) {
	out := make(map[string][]string, len(h.GetHeaderMap().GetHeaders())+len(h.GetHeaders()))
	var bytes, n int
	add := func(name, value string) error {
		if strings.HasPrefix(name, ":") {
			return nil // pseudo-headers are the request line's
		}
		n++
		if bytes += len(name) + len(value); bytes > maxHeaderBytes || n > maxHeaders {
			return errors.New("too many or too large")
		}
		if !isToken(name) {
			return errors.New("not a header name (RFC 9110 5.1)")
		}
		if !utf8.ValidString(value) || strings.ContainsAny(value, "\x00\r\n") {
			return fmt.Errorf("%.64s: value with invalid UTF-8, NUL or line ends", name)
		}
		name = strings.ToLower(name)
		if underscored != nil && strings.Contains(name, "_") && !slices.Contains(underscored, name) {
			return fmt.Errorf("%.64s: a header with an underscore, which applications may read as another one; its mesh passes on %s alone", name, strings.Join(underscored, ", "))
		}
		out[name] = append(out[name], value)
		return nil
	}
	if raw := h.GetHeaderMap().GetHeaders(); len(raw) > 0 {
		for _, hv := range raw {
			if err := add(hv.GetKey(), rawValue(hv)); err != nil {
				return out, err
			}
		}
		return out, nil
	}
	for name, value := range h.GetHeaders() {
		if err := add(name, value); err != nil {
			return out, err
		}
	}
	return out, nil
}

// passed are the headers with underscores that the proxy's mesh passes on; nil where Envoy
// refuses them all.
func passed(ctx context.Context) []string {
	list := metadata.ValueFromIncomingContext(ctx, proxy.UnderscoresKey)
	if len(list) == 0 {
		return nil
	}
	return strings.Split(list[0], ",")
}

func rawValue(hv *corev3.HeaderValue) string {
	if raw := hv.GetRawValue(); len(raw) > 0 {
		return string(raw)
	}
	return hv.GetValue()
}

// isToken: RFC 9110 5.6.2.
func isToken(s string) bool {
	if s == "" || len(s) > 256 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !isUnreserved(c) && !strings.ContainsRune("!#$%&'*+.^`|", rune(c)) {
			return false
		}
	}
	return true
}
