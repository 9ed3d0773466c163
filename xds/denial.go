package xds

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// A native denial is one that Envoy makes by itself, since the agent was not
// asked or gave no answer. It gets what the agent's denials have (DESIGN
// decision 21): an id that is random, a class, and a record by that id.
type nativeDenial struct {
	class  string
	when   string // CEL over response.code_details, the only trace of who answered
	status uint32 // 0 keeps Envoy's
}

var nativeDenials = []nativeDenial{
	{class: "unavailable", when: "response.code_details == 'ext_authz_error'"},
	// The agent's answer broke the rules for mutations: an error of its policy.
	{class: "error", when: "response.code_details == 'ext_authz_invalid'"},
	// Envoy would say 403, but the request is at fault, not who sent it.
	{class: ambiguous, when: "response.code_details == '" + ambiguousDetails + "'", status: 400},
}

// decisionID is the request id, made afresh for each request: 122 random bits.
const decisionID = "%STREAM_ID%"

// localReplies gives native denials their headers and a body of id and class.
func (b *builder) localReplies() *hcmv3.LocalReplyConfig {
	var c hcmv3.LocalReplyConfig
	for _, d := range nativeDenials {
		m := &hcmv3.ResponseMapper{
			Filter:       b.celFilter(d.when),
			HeadersToAdd: []*corev3.HeaderValueOption{header(decisionHeader, decisionID), header(deniedHeader, d.class)},
			BodyFormatOverride: &corev3.SubstitutionFormatString{
				Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
					Specifier: &corev3.DataSource_InlineString{InlineString: "denied: " + d.class + ", decision " + decisionID + "\n"},
				}},
			},
		}
		if d.status != 0 {
			m.StatusCode = wrapperspb.UInt32(d.status)
		}
		c.Mappers = append(c.Mappers, m)
	}
	return &c
}

// accessLogs are the one that the node declares, and the record of native
// denials on the proxy's standard error, which its supervisor keeps.
func (b *builder) accessLogs() []*accesslogv3.AccessLog {
	var logs []*accesslogv3.AccessLog
	if b.node.AccessLog != "" {
		logs = append(logs, &accesslogv3.AccessLog{
			Name:       "envoy.access_loggers.file",
			ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: b.any(&filev3.FileAccessLog{Path: b.node.AccessLog})},
		})
	}
	return append(logs, &accesslogv3.AccessLog{
		Name:   "envoy.access_loggers.stderr",
		Filter: b.celFilter(anyNativeDenial()),
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: b.any(&streamv3.StderrAccessLog{
			AccessLogFormat: &streamv3.StderrAccessLog_LogFormat{LogFormat: denialFormat()},
		})},
	})
}

// denialFormat has no query, header or body: they may carry secrets (DESIGN
// decision 21). It is JSON, so that a path cannot forge a line (SECURITY A21).
func denialFormat() *corev3.SubstitutionFormatString {
	fields := map[string]string{
		"msg":         "native denial",
		"time":        "%START_TIME%",
		"decision_id": decisionID,
		"details":     "%RESPONSE_CODE_DETAILS%",
		"status":      "%RESPONSE_CODE%",
		"method":      "%REQ(:METHOD):16%",
		"path":        "%PATH(NQ):256%",
		"source":      "%DOWNSTREAM_PEER_URI_SAN%",
		"peer":        "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
	}
	st := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for k, v := range fields {
		st.Fields[k] = structpb.NewStringValue(v)
	}
	return &corev3.SubstitutionFormatString{
		Format:          &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: st},
		OmitEmptyValues: true,
	}
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
			ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: b.any(&celv3.ExpressionFilter{Expression: expression})},
		},
	}}
}
