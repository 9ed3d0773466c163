package agent

import (
	"encoding/json"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
)

// nativeDenial is a line that Envoy writes where it denied by itself. xds names
// the fields and the classes, and takes no query, header or body into them.
type nativeDenial struct {
	Message  string    `json:"msg"`
	Time     time.Time `json:"time"`
	ID       string    `json:"decision_id"`
	Class    string    `json:"class"`
	Details  string    `json:"details"`
	Method   string    `json:"method"`
	Path     string    `json:"path"`
	Host     string    `json:"host"`
	Source   string    `json:"source"`
	Response any       `json:"status"`
}

// nativeDenialLine reads one line of a proxy's standard error. ok is false for
// every other line.
func nativeDenialLine(line string) (d nativeDenial, ok bool) {
	if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &d) != nil {
		return nativeDenial{}, false
	}
	return d, d.Message == "native denial" && decisionIDOf(d.ID) != ""
}

// decisionIDOf drops the dashes of Envoy's stream id, as whoever asks does.
func decisionIDOf(id string) string {
	id = strings.ReplaceAll(strings.ToLower(id), "-", "")
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return ""
	}
	return id
}

// record of the denial, like those that authz makes.
func (d nativeDenial) record(destination, proxy string) *api.Decision {
	out := &api.Decision{
		Id: decisionIDOf(d.ID), Time: timestamppb.New(d.Time), Source: d.Source, Destination: destination, Proxy: proxy,
		Method: d.Method, Host: plainDetails(d.Host), Path: d.Path,
	}
	switch d.Class {
	case "unavailable":
		out.Cause, out.Message = api.Cause_CAUSE_UNAVAILABLE, "the proxy got no answer from authz"
		return out
	case "error":
		out.Cause, out.Message = api.Cause_CAUSE_ERROR, "authz answered with headers that the proxy must not set"
		return out
	case "upgrade":
		d.refused(out, "upgrade", "it asks for an upgrade to a protocol that is not carried; only websocket is")
	case "undeclared":
		// The way out: the application beside the proxy asked.
		out.Source, out.Destination = destination, ""
		d.refused(out, "undeclared host", "the virtual node has no backend of this host and port: name the VirtualService in its spec.backends, or correct the host")
	case "malformed":
		d.refused(out, "malformed request", "it breaks the rules of HTTP or the bounds on a request")
	default:
		d.refused(out, "ambiguous request", "its path, host or headers can be read in two ways")
	}
	return out
}

// refused is a denial by a rule that stands in no policy. Details are Envoy's
// own word for what it found.
func (d nativeDenial) refused(out *api.Decision, rule, why string) {
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
