package xds

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/proxy/answers"
)

// A native denial is one that Envoy makes by itself, since the agent was not
// asked or gave no answer. It gets what the agent's denials have
// (D21): an id that is random, a class, and a record by that id.
type nativeDenial struct {
	class  proxy.Class
	status uint32 // 0 keeps Envoy's
	when   string // CEL over response.code_details, the only trace of who answered
}

var nativeDenials = []nativeDenial{
	newDenial(proxy.ClassUnavailable, 0),
	newDenial(proxy.ClassError, 0),
	// Envoy's RBAC would say 403, but the request is at fault, not who sent it.
	newDenial(proxy.ClassAmbiguous, http.StatusBadRequest),
	newDenial(proxy.ClassUpgrade, 0),
	newDenial(proxy.ClassUndeclared, 0),
	newDenial(proxy.ClassMalformed, 0), // after those of which some details begin as its own do
}

// newDenial is a denial by the details that proxy/answers has of its class.
func newDenial(c proxy.Class, status uint32) nativeDenial {
	var whole, begin []string
	for _, details := range answers.Denials(c) {
		if b, ok := strings.CutSuffix(details, "*"); ok {
			begin = append(begin, b)
		} else {
			whole = append(whole, details)
		}
	}
	whole = slices.DeleteFunc(whole, func(details string) bool {
		return slices.ContainsFunc(begin, func(b string) bool { return strings.HasPrefix(details, b) })
	})
	d := nativeDenial{class: c, status: status, when: detailsAre(whole...)}
	if begin != nil {
		d.when += " || " + detailsBegin(begin...)
	}
	return d
}

// A proxy tells its callers what must not be sent again (decision 024): 502 where
// the application may have got the request, 503 and a header where it did not.
// Envoy says 503 to both.
const resetDetails = "upstream_reset_before_response_started{"

var (
	notSent = detailsAre("no_healthy_upstream", "cluster_not_found") + " || " + detailsBegin(
		resetDetails+"local_connection_failure", resetDetails+"remote_connection_failure", resetDetails+"connection_timeout",
		resetDetails+"overflow", resetDetails+"remote_refused_stream_reset")
	mayBeSent = detailsBegin(resetDetails)
)

// To callers of gRPC Envoy says "unavailable" to all of these, which is what they send
// again: it is left for calls that were not sent.
var timedOut = detailsAre("response_timeout", "upstream_per_try_idle_timeout", "upstream_per_try_timeout", "upstream_max_stream_duration_reached", "stream_idle_timeout", "max_duration_timeout")

func ofGRPC(when string) string {
	return "request.headers['content-type'].startsWith('application/grpc') && (" + when + ")"
}

func grpcStatus(c codes.Code) *corev3.HeaderValueOption {
	return header("grpc-status", strconv.Itoa(int(c)))
}

// withID are headers, and the one by which the answer is found.
func withID(headers ...*corev3.HeaderValueOption) []*corev3.HeaderValueOption {
	return append(headers, header(proxy.HeaderDecisionID, decisionID))
}

// decisionID is made afresh at each use: 122 random bits. Envoy's stream id
// would be the same everywhere, but a request that the codec refuses has none;
// so body and log quote the header.
const (
	decisionID     = "%UNIQUE_ID%"
	thisDecisionID = "%RESP(" + proxy.HeaderDecisionID + ")%"
)

func detailsAre(list ...string) string {
	return "response.code_details in ['" + strings.Join(list, "', '") + "']"
}

func detailsBegin(list ...string) string {
	return "response.code_details.startsWith('" + strings.Join(list, "') || response.code_details.startsWith('") + "')"
}

// localReplies gives native denials their headers and a body of id and class, and
// reports of other failures whether the request was sent on. The first mapper that
// fits is the only one.
func (b *builder) localReplies() *hcmv3.LocalReplyConfig {
	var c hcmv3.LocalReplyConfig
	for _, d := range nativeDenials {
		m := &hcmv3.ResponseMapper{
			Filter:             b.celFilter(d.when),
			HeadersToAdd:       withID(header(proxy.HeaderDenied, string(d.class))),
			BodyFormatOverride: textFormat("denied: " + string(d.class) + ", decision " + thisDecisionID + "\n"),
		}
		if d.status != 0 {
			m.StatusCode = wrapperspb.UInt32(d.status)
		}
		c.Mappers = append(c.Mappers, m)
	}
	c.Mappers = append(c.Mappers,
		&hcmv3.ResponseMapper{Filter: b.celFilter(ofGRPC(timedOut)), HeadersToAdd: withID(grpcStatus(codes.DeadlineExceeded))},
		&hcmv3.ResponseMapper{Filter: b.celFilter(notSent), HeadersToAdd: withID(header(proxy.HeaderNotServed, "true"))},
		&hcmv3.ResponseMapper{Filter: b.celFilter(ofGRPC(mayBeSent)), HeadersToAdd: withID(grpcStatus(codes.Unknown))},
		&hcmv3.ResponseMapper{Filter: b.celFilter(mayBeSent), StatusCode: wrapperspb.UInt32(http.StatusBadGateway), HeadersToAdd: withID()},
		&hcmv3.ResponseMapper{Filter: b.celFilter(ownAnswer), HeadersToAdd: withID()},
	)
	return &c
}

// declaredLogs are the one that the node declares, if it does. One that the host does not
// take is left out, and found by check.
func (b *builder) declaredLogs() []*accesslogv3.AccessLog {
	if !b.shape.Logs(b.node.AccessLog) {
		return nil
	}
	return []*accesslogv3.AccessLog{b.declaredLog()}
}

// declaredLog has a format of the node's own, or Envoy's. The proxy's own output is a descriptor
// that it has: by its name, /dev/stdout, only the user who made it could open it once more. What
// is for /dev/stderr goes to standard output as well: on standard error are records of denials,
// and a mesh, or a caller by a header that is logged, could write what looks like one.
func (b *builder) declaredLog() *accesslogv3.AccessLog {
	f := logFormat(b.node.LogFormat)
	if !proxy.StandardLog(b.node.AccessLog) {
		out := &filev3.FileAccessLog{Path: b.node.AccessLog}
		if f != nil {
			out.AccessLogFormat = &filev3.FileAccessLog_LogFormat{LogFormat: f}
		}
		return &accesslogv3.AccessLog{Name: "envoy.access_loggers.file", ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: b.any(out)}}
	}
	out := &streamv3.StdoutAccessLog{}
	if f != nil {
		out.AccessLogFormat = &streamv3.StdoutAccessLog_LogFormat{LogFormat: f}
	}
	return &accesslogv3.AccessLog{Name: "envoy.access_loggers.stdout", ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: b.any(out)}}
}

// logFormat is nil for Envoy's own.
func logFormat(f *mesh.LoggingFormat) *corev3.SubstitutionFormatString {
	switch {
	case f == nil:
		return nil
	case f.Text != "":
		return textFormat(f.Text)
	}
	fields := map[string]string{}
	for _, field := range f.JSON {
		fields[field.Key] = field.Value
	}
	return &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: texts(fields)}}
}

func textFormat(text string) *corev3.SubstitutionFormatString {
	return &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{
		TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: text}},
	}}
}

func texts(fields map[string]string) *structpb.Struct {
	st := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for k, v := range fields {
		st.Fields[k] = structpb.NewStringValue(v)
	}
	return st
}

func anyNativeDenial() string {
	var s string
	for i, d := range nativeDenials {
		if i > 0 {
			s += " || "
		}
		s += d.when
	}
	return s
}

func (b *builder) celFilter(expression string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{
		ExtensionFilter: &accesslogv3.ExtensionFilter{
			Name:       "envoy.access_loggers.extension_filters.cel",
			ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: b.part(cel{expression})},
		},
	}}
}

type cel struct{ expression string }

func (c cel) message(*builder) proto.Message {
	return &celv3.ExpressionFilter{Expression: c.expression}
}

func statusAtLeast(code uint32) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{
		StatusCodeFilter: &accesslogv3.StatusCodeFilter{Comparison: &accesslogv3.ComparisonFilter{
			Op: accesslogv3.ComparisonFilter_GE, Value: &corev3.RuntimeUInt32{DefaultValue: code, RuntimeKey: "signet.denials_from_status"},
		}},
	}}
}

func requestOfGRPC() *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_HeaderFilter{
		HeaderFilter: &accesslogv3.HeaderFilter{Header: headerMatch(mesh.HeaderMatch{Name: "content-type", Prefix: "application/grpc"})},
	}}
}

func either(a, b *accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_OrFilter{
		OrFilter: &accesslogv3.OrFilter{Filters: []*accesslogv3.AccessLogFilter{a, b}},
	}}
}

func both(a, b *accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{
		AndFilter: &accesslogv3.AndFilter{Filters: []*accesslogv3.AccessLogFilter{a, b}},
	}}
}
