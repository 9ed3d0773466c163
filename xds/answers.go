package xds

import (
	"maps"
	"net/http"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"

	"signet.example/mesh"
	"signet.example/proxy"
	"signet.example/proxy/answers"
)

// What a proxy answers by itself it writes to its standard error, a line each, which its
// supervisor keeps (docs/decisions/079): what applications answered costs a comparison at
// most. An agent of the release before is sent the lines of native denials alone.

var (
	// ownAnswer leaves out what came from behind the proxy, what authz denied, of which it has
	// the record, and callers that went away.
	ownAnswer = "!(response.code_details in ['via_upstream', 'ext_authz_denied', 'downstream_remote_disconnect', 'http2.remote_reset'])"
	// ownEnd is of a connection: what ends before there is a request. Who asks authz about
	// connections that come in has the record of those that are denied.
	ownEnd = map[answers.Way]string{
		answers.In:  endOf + " || response.code_details in ['filter_chain_not_found', 'ext_authz_error']",
		answers.Out: endOf + " || response.code_details in ['ext_authz_error', 'ext_authz_denied']",
	}
	// connectionFlags are those of connections that were carried nowhere, or for as long as one may be.
	connectionFlags = []string{"UH", "UF", "UO", "DT"}
)

// endOf is of both ways: of a handshake that did not end in time Envoy gives no reason when it
// writes the line, only how it ended. What the inspector says of a connection that is no TLS is not a failure.
const endOf = "(connection.transport_failure_reason != '' && !connection.transport_failure_reason.startsWith('TLS_error|')) || connection.termination_details.startsWith('rbac_access_denied') || connection.termination_details.startsWith('transport socket timeout')"

// requestLogs are the one that the node declares, and that of the proxy's own answers.
func (b *builder) requestLogs(way answers.Way) []*accesslogv3.AccessLog {
	// Nearly all requests are answered below 400, and whole: they need no expression, unless
	// they are calls of gRPC, of which failures have status 200.
	seldom := either(statusAtLeast(http.StatusBadRequest), requestOfGRPC())
	filter := both(seldom, b.celFilter(anyNativeDenial()))
	if b.shape.Answers {
		filter = both(either(seldom, flagged()), b.celFilter(ownAnswer))
	}
	return append(b.declaredLogs(), b.answerLog(filter, way, map[string]string{
		"decision_id": thisDecisionID,
		"class":       "%RESP(" + proxy.HeaderDenied + ")%",
		"status":      "%RESPONSE_CODE%",
		"method":      "%REQ(:METHOD):16%",
		"path":        "%PATH(NQ):256%",
		"host":        "%REQ(:AUTHORITY):256%",
		"service":     "%CEL(xds.virtual_host_name)%", // also of a request that no route takes
	}))
}

// connectionLogs are of a listener: what became of a connection that has no request.
func (b *builder) connectionLogs(way answers.Way, port string) []*accesslogv3.AccessLog {
	if !b.shape.Answers {
		return nil
	}
	filter := either(flagged(connectionFlags...), b.celFilter(ownEnd[way]))
	return []*accesslogv3.AccessLog{b.answerLog(filter, way, connectionFields(port))}
}

// undecided is the record, for an agent of the release before, of a connection that was closed
// since the agent gave no answer.
func (b *builder) undecided(port string) []*accesslogv3.AccessLog {
	if b.shape.Answers {
		return nil
	}
	fields := connectionFields(port)
	fields["class"] = string(proxy.ClassUnavailable)
	return []*accesslogv3.AccessLog{b.answerLog(b.celFilter(detailsAre("ext_authz_error")), answers.In, fields)}
}

// localPort is that of the connection's own end, where no sender can say another one.
const localPort = "%DOWNSTREAM_LOCAL_PORT%"

func connectionFields(port string) map[string]string {
	return map[string]string{
		"decision_id": decisionID,
		"method":      mesh.ProtocolTCP,
		"host":        "port " + port,
		"caller_tls":  "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
		"closed":      "%CONNECTION_TERMINATION_DETAILS%",
	}
}

// answerLog has no query, header or body: they may carry secrets (D21). It is JSON, so that
// a path cannot forge a line (A21).
func (b *builder) answerLog(filter *accesslogv3.AccessLogFilter, way answers.Way, fields map[string]string) *accesslogv3.AccessLog {
	maps.Copy(fields, map[string]string{
		"msg":        answers.Message,
		"time":       "%START_TIME%",
		"id":         decisionID,
		"way":        string(way),
		"details":    "%RESPONSE_CODE_DETAILS%",
		"flags":      "%RESPONSE_FLAGS%",
		"source":     "%DOWNSTREAM_PEER_URI_SAN%",
		"peer":       "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
		"cluster":    "%UPSTREAM_CLUSTER_RAW%",
		"callee":     "%UPSTREAM_HOST%",
		"callee_tls": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
	})
	return &accesslogv3.AccessLog{
		Name:   "envoy.access_loggers.stderr",
		Filter: filter,
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: b.any(&streamv3.StderrAccessLog{
			AccessLogFormat: &streamv3.StderrAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
				Format:          &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: texts(fields)},
				OmitEmptyValues: true,
			}},
		})},
	}
}

// flagged has one of Envoy's response flags, or any.
func flagged(flags ...string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
		ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: flags},
	}}
}
