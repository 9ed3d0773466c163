package agent

import (
	"encoding/json"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
)

// nativeDenial is a line that Envoy writes where it denied by itself: authz was
// not there, its answer broke the rules, or the request could be read in two
// ways. xds names the fields, and takes no query, header or body into them.
type nativeDenial struct {
	Message  string    `json:"msg"`
	Time     time.Time `json:"time"`
	ID       string    `json:"decision_id"`
	Details  string    `json:"details"`
	Method   string    `json:"method"`
	Path     string    `json:"path"`
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
		Method: d.Method, Path: d.Path,
	}
	switch d.Details {
	case "ext_authz_error":
		out.Cause, out.Message = api.Cause_CAUSE_UNAVAILABLE, "the proxy got no answer from authz"
	case "ext_authz_invalid":
		out.Cause, out.Message = api.Cause_CAUSE_ERROR, "authz answered with headers that the proxy must not set"
	default:
		out.Cause, out.Message = api.Cause_CAUSE_POLICY, "the proxy refused the request: its path or host can be read in two ways"
		out.Rules = []*api.Rule{{Name: "signet: ambiguous request"}}
	}
	return out
}
