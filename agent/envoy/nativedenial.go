package envoy

import (
	"net/http"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/proxy"
)

// deniedByProxy is the record of a denial that Envoy made by itself, like those
// that authz makes.
func deniedByProxy(d proxy.Denial, destination, name string) *api.Decision {
	out := &api.Decision{
		Id: d.ID, Time: timestamppb.New(d.Time), Source: d.Source, Destination: destination, Proxy: name,
		Method: d.Method, Host: plainDetails(d.Host), Path: d.Path,
	}
	switch d.Class {
	case proxy.ClassUnavailable:
		out.Cause, out.Message = api.Cause_CAUSE_UNAVAILABLE, "the proxy got no answer from authz"
		return out
	case proxy.ClassError:
		out.Cause, out.Message = api.Cause_CAUSE_ERROR, "authz answered with headers that the proxy must not set"
		return out
	case proxy.ClassUpgrade:
		refused(d, out, "upgrade", "it asks for an upgrade to a protocol that is not carried; only websocket is")
	case proxy.ClassUndeclared:
		// The way out: the application beside the proxy asked.
		out.Source, out.Destination = destination, ""
		refused(d, out, "undeclared host", "the virtual node has no backend of this host and port: name the VirtualService in its spec.backends, or correct the host")
	case proxy.ClassMalformed:
		refused(d, out, "malformed request", "it breaks the rules of HTTP or the bounds on a request")
	default:
		if d.Method == http.MethodConnect { // as clients ask for https:// by a proxy
			refused(d, out, "CONNECT", "it asks for a tunnel, and none is carried: call http:// by the proxy, which makes the mTLS, or for gRPC connect to its address")
			break
		}
		refused(d, out, "ambiguous request", "its path, host or headers can be read in two ways")
	}
	return out
}

// refused is a denial by a rule that stands in no policy. Details are Envoy's
// own word for what it found.
func refused(d proxy.Denial, out *api.Decision, rule, why string) {
	out.Cause, out.Message = api.Cause_CAUSE_POLICY, "the proxy refused the request: "+why+" ("+plainDetails(d.Details)+")"
	out.Rules = []*api.Rule{{Name: "signet: " + rule}}
}

const maxDetails = 128

// plainDetails bounds what goes into a message.
func plainDetails(s string) string {
	if len(s) > maxDetails {
		s = s[:maxDetails]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return -1
		}
		return r
	}, s)
}
