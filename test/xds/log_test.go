package xdstest_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"signet.example/mesh"
)

// logWords are operators of some Envoy, and forms that look like some.
var logWords = append(strings.Fields(`BYTES_RECEIVED BYTES_SENT BYTES_RETRANSMITTED PACKETS_RETRANSMITTED PROTOCOL UPSTREAM_PROTOCOL RESPONSE_CODE RESPONSE_CODE:3
	RESPONSE_CODE_DETAILS CONNECTION_TERMINATION_DETAILS DURATION REQUEST_DURATION REQUEST_TX_DURATION RESPONSE_DURATION RESPONSE_TX_DURATION DOWNSTREAM_HANDSHAKE_DURATION
	ROUNDTRIP_DURATION RESPONSE_FLAGS RESPONSE_FLAGS_LONG UPSTREAM_HOST UPSTREAM_HOST_NAME UPSTREAM_CLUSTER UPSTREAM_CLUSTER_RAW UPSTREAM_LOCAL_ADDRESS
	UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT UPSTREAM_LOCAL_PORT UPSTREAM_REMOTE_ADDRESS UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT UPSTREAM_REMOTE_PORT UPSTREAM_REQUEST_ATTEMPT_COUNT
	UPSTREAM_TLS_CIPHER UPSTREAM_TLS_VERSION UPSTREAM_TLS_SESSION_ID UPSTREAM_PEER_ISSUER UPSTREAM_PEER_CERT UPSTREAM_PEER_SUBJECT UPSTREAM_PEER_URI_SAN UPSTREAM_LOCAL_SUBJECT
	UPSTREAM_TRANSPORT_FAILURE_REASON UPSTREAM_WIRE_BYTES_SENT UPSTREAM_WIRE_BYTES_RECEIVED UPSTREAM_HEADER_BYTES_SENT UPSTREAM_HEADER_BYTES_RECEIVED UPSTREAM_CONNECTION_ID
	DOWNSTREAM_WIRE_BYTES_SENT DOWNSTREAM_WIRE_BYTES_RECEIVED DOWNSTREAM_HEADER_BYTES_SENT DOWNSTREAM_HEADER_BYTES_RECEIVED DOWNSTREAM_REMOTE_ADDRESS
	DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_REMOTE_PORT DOWNSTREAM_DIRECT_REMOTE_ADDRESS DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_DIRECT_REMOTE_PORT
	DOWNSTREAM_LOCAL_ADDRESS DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_PORT DOWNSTREAM_LOCAL_URI_SAN DOWNSTREAM_PEER_URI_SAN DOWNSTREAM_LOCAL_SUBJECT
	DOWNSTREAM_PEER_SUBJECT DOWNSTREAM_PEER_ISSUER DOWNSTREAM_LOCAL_DNS_SAN DOWNSTREAM_PEER_DNS_SAN DOWNSTREAM_TLS_SESSION_ID DOWNSTREAM_TLS_CIPHER DOWNSTREAM_TLS_VERSION
	DOWNSTREAM_PEER_FINGERPRINT_256 DOWNSTREAM_PEER_FINGERPRINT_1 DOWNSTREAM_PEER_SERIAL DOWNSTREAM_PEER_CERT DOWNSTREAM_PEER_CERT_V_START DOWNSTREAM_PEER_CERT_V_END
	DOWNSTREAM_TRANSPORT_FAILURE_REASON REQUESTED_SERVER_NAME ROUTE_NAME VIRTUAL_CLUSTER_NAME FILTER_CHAIN_NAME HOSTNAME CONNECTION_ID STREAM_ID ACCESS_LOG_TYPE UNIQUE_ID
	START_TIME EMIT_TIME GRPC_STATUS GRPC_STATUS_NUMBER LOCAL_REPLY_BODY REQUEST_HEADERS_BYTES RESPONSE_HEADERS_BYTES RESPONSE_TRAILERS_BYTES TRACE_ID PATH PATH:9 PATH(NQ) PATH(WQ):9
	PATH(X) REQ REQ() REQ(:METHOD) REQ(X-A?X-B):5 REQ(a?b?c) REQ(X_A) REQ(:PATH?X) RESP(A) TRAILER(A) QUERY_PARAM(x):9 QUERY_PARAM(a&b) GRPC_STATUS(SNAKE_STRING) GRPC_STATUS(x)
	START_TIME(%s) START_TIME(%s.%9f) START_TIME(%Q) EMIT_TIME(%Y) ENVIRONMENT(HOME) FILE_CONTENT(/etc/hosts) FILTER_STATE(a) DYNAMIC_METADATA(a) NOTHING req(a) VIRTUAL_HOST_NAME`),
	"START_TIME(%Y-%m-%dT%H:%M:%S.%3f%z)", "START_TIME(%e %a %A %b %B %j %p %I %y %F %T)", "REQ(a b)", "", "RESPONSE_CODE% %")

func TestEnvoyTakesEveryFormatOfALogThatAMeshTakes(t *testing.T) {
	var taken []string
	for _, word := range logWords {
		node := "apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: n}\nspec: {logging: {accessLog: {file: {path: /dev/stdout, format: {text: '%" + word + "%'}}}}}"
		docs, err := mesh.Split("n.yaml", []byte(node))
		if err != nil {
			t.Fatal(err)
		}
		r, err := mesh.Parse(docs[0])
		if err != nil {
			t.Fatal(err)
		}
		if len(mesh.Unsupported(r)) == 0 {
			taken = append(taken, "%"+word+"%")
		}
	}
	if len(taken) < 100 {
		t.Errorf("%d of %d are taken: %v", len(taken), len(logWords), taken)
	}
	fields := new(strings.Builder)
	for i, operator := range append(taken, strings.Repeat("%DURATION%", 9)+"%%") {
		fmt.Fprintf(fields, ", {key: 'k%d', value: '%s'}", i, operator)
	}
	const asked = "{key: caller, value: '%DOWNSTREAM_PEER_URI_SAN%'}, {key: decision, value: '%RESP(X-SIGNET-DECISION-ID)%'}, {key: flags, value: '%RESPONSE_FLAGS%'}, {key: path, value: 'of %REQ(:PATH)%'}"
	in := startInbound(t, strings.Replace(orders, "spec:\n  listeners:", "spec:\n  logging: {accessLog: {file: {path: /dev/stdout, format: {json: ["+asked+strings.ReplaceAll(fields.String(), "PORT", "P_ORT")+"]}}}}\n  listeners:", 1), "P_ORT", "PORT") // PORT is the listener's
	sendHTTP1(t, in.addr, "/a?b")
	raw(t, in.addr, "GET /admin HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n")
	for path, want := range map[string]map[string]string{
		"of /a?b":   {"caller": "-", "decision": "-", "flags": "-"},
		"of /admin": {"caller": "-", "decision": "00000000000000000000000000000001", "flags": "UAEX"},
	} {
		var line map[string]any
		eventually(t, "the line of "+path, func() bool {
			for text := range strings.Lines(in.proxy.envoy.Log()) {
				if json.Unmarshal([]byte(text), &line) == nil && line["path"] == path {
					return true
				}
			}
			return false
		})
		for key, value := range want {
			got := fmt.Sprint(line[key])
			if line[key] == nil {
				got = "-"
			}
			if got != value {
				t.Errorf("%s: %s is %q, want %q", path, key, got, value)
			}
		}
	}
}
