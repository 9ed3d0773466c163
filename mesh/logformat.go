package mesh

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"signet.example/internal/manifest"
	"signet.example/proxy"
)

// Formats of access logs are Envoy's, which refuses a listener, and with it all that is
// served, for one word that it does not know. So they are read here first. Not among the
// operators is what reads of a proxy's host (ENVIRONMENT) or of its own state.

// logOperators take nothing: they stand between two percent signs.
var logOperators = strings.Fields(`
	ACCESS_LOG_TYPE BYTES_RECEIVED BYTES_RETRANSMITTED BYTES_SENT CONNECTION_ID CONNECTION_TERMINATION_DETAILS
	DOWNSTREAM_DIRECT_REMOTE_ADDRESS DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_DIRECT_REMOTE_PORT
	DOWNSTREAM_HANDSHAKE_DURATION DOWNSTREAM_HEADER_BYTES_RECEIVED DOWNSTREAM_HEADER_BYTES_SENT
	DOWNSTREAM_LOCAL_ADDRESS DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_DNS_SAN DOWNSTREAM_LOCAL_PORT
	DOWNSTREAM_LOCAL_SUBJECT DOWNSTREAM_LOCAL_URI_SAN DOWNSTREAM_PEER_CERT DOWNSTREAM_PEER_CERT_V_END
	DOWNSTREAM_PEER_CERT_V_START DOWNSTREAM_PEER_DNS_SAN DOWNSTREAM_PEER_FINGERPRINT_1 DOWNSTREAM_PEER_FINGERPRINT_256
	DOWNSTREAM_PEER_ISSUER DOWNSTREAM_PEER_SERIAL DOWNSTREAM_PEER_SUBJECT DOWNSTREAM_PEER_URI_SAN
	DOWNSTREAM_REMOTE_ADDRESS DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_REMOTE_PORT DOWNSTREAM_TLS_CIPHER
	DOWNSTREAM_TLS_SESSION_ID DOWNSTREAM_TLS_VERSION DOWNSTREAM_TRANSPORT_FAILURE_REASON DOWNSTREAM_WIRE_BYTES_RECEIVED
	DOWNSTREAM_WIRE_BYTES_SENT DURATION EMIT_TIME FILTER_CHAIN_NAME GRPC_STATUS GRPC_STATUS_NUMBER HOSTNAME
	LOCAL_REPLY_BODY PATH PROTOCOL REQUESTED_SERVER_NAME REQUEST_DURATION REQUEST_HEADERS_BYTES REQUEST_TX_DURATION
	RESPONSE_CODE RESPONSE_CODE_DETAILS RESPONSE_DURATION RESPONSE_FLAGS RESPONSE_FLAGS_LONG RESPONSE_HEADERS_BYTES
	RESPONSE_TRAILERS_BYTES RESPONSE_TX_DURATION ROUNDTRIP_DURATION ROUTE_NAME START_TIME STREAM_ID TRACE_ID UNIQUE_ID
	UPSTREAM_CLUSTER UPSTREAM_CLUSTER_RAW UPSTREAM_CONNECTION_ID UPSTREAM_HEADER_BYTES_RECEIVED UPSTREAM_HEADER_BYTES_SENT
	UPSTREAM_HOST UPSTREAM_LOCAL_ADDRESS UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT UPSTREAM_LOCAL_PORT UPSTREAM_PEER_CERT
	UPSTREAM_PEER_ISSUER UPSTREAM_PEER_SUBJECT UPSTREAM_PEER_URI_SAN UPSTREAM_PROTOCOL UPSTREAM_REMOTE_ADDRESS
	UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT UPSTREAM_REMOTE_PORT UPSTREAM_REQUEST_ATTEMPT_COUNT UPSTREAM_TLS_CIPHER
	UPSTREAM_TLS_SESSION_ID UPSTREAM_TLS_VERSION UPSTREAM_TRANSPORT_FAILURE_REASON UPSTREAM_WIRE_BYTES_RECEIVED
	UPSTREAM_WIRE_BYTES_SENT VIRTUAL_CLUSTER_NAME`)

// logArguments are what an operator takes in brackets, and whether a length may follow.
var logArguments = map[string]struct {
	form   *regexp.Regexp
	length bool
	says   string
}{
	"REQ":         {aHeader, true, "a header, as in %REQ(:METHOD)% or %REQ(X-A?X-B):32%"},
	"RESP":        {aHeader, true, "a header, as in %RESP(X-A)%"},
	"TRAILER":     {aHeader, true, "a trailer, as in %TRAILER(GRPC-STATUS)%"},
	"QUERY_PARAM": {regexp.MustCompile(`^[0-9A-Za-z._~-]+$`), true, "a parameter, as in %QUERY_PARAM(page)%"},
	"PATH":        {regexp.MustCompile(`^(?:WQ|NQ)$`), true, "WQ (with the query) or NQ (without)"},
	"GRPC_STATUS": {regexp.MustCompile(`^(?:CAMEL_STRING|SNAKE_STRING|NUMBER)$`), false, "CAMEL_STRING, SNAKE_STRING or NUMBER"},
	"START_TIME":  {aTime, false, "a time, as in %START_TIME(%Y-%m-%dT%H:%M:%S.%3f%z)%"},
	"EMIT_TIME":   {aTime, false, "a time, as in %EMIT_TIME(%s)%"},
	// Of what filters know it has the id of the decision about a connection, and nothing else.
	"DYNAMIC_METADATA": {
		regexp.MustCompile(`^envoy\.filters\.network\.ext_authz:` + proxy.DecisionIDField + `$`), false,
		"envoy.filters.network.ext_authz:" + proxy.DecisionIDField + ", the id of the decision about a connection",
	},
}

var (
	aHeader = regexp.MustCompile("^:?[0-9A-Za-z!#$&'*+.^_`|~-]+(?:\\?:?[0-9A-Za-z!#$&'*+.^_`|~-]+)?$")
	aTime   = regexp.MustCompile(`^(?:[0-9A-Za-z/:.,+_ -]|%(?:[YmdeHIMSpzZjabAB sfFT]|[1-9][sf]))+$`)
	// logCommand is one operator: its name, what is in brackets, and a length.
	logCommand = regexp.MustCompile(`^%([A-Z][0-9A-Z_]*)(?:\(([^()]*)\))?(?::([0-9]{1,5}))?%`)
)

// logProblem reports what Envoy would not take of a format, "" if nothing.
func logProblem(format string) string {
	for {
		i := strings.IndexByte(format, '%')
		if i < 0 {
			return ""
		}
		format = format[i:]
		if rest, ok := strings.CutPrefix(format, "%%"); ok {
			format = rest
			continue
		}
		m := logCommand.FindStringSubmatch(format)
		if m == nil {
			return fmt.Sprintf("%q does not begin with an operator such as %%RESPONSE_CODE%%; a percent sign itself is %%%%", manifest.Clip(format))
		}
		if why := commandProblem(m[0], m[1], m[2], m[3]); why != "" {
			return why
		}
		format = format[len(m[0]):]
	}
}

func commandProblem(text, name, argument, length string) string {
	takes, may := logArguments[name]
	alone := slices.Contains(logOperators, name)
	bracket := strings.Contains(text, "(")
	switch {
	case !may && !alone:
		return fmt.Sprintf("%q is not an operator that is let into a log%s", manifest.Clip(text), DidYouMean("", nearestOperator(name)...))
	case !may && bracket:
		return fmt.Sprintf("%q takes nothing in brackets", manifest.Clip(text))
	case may && (bracket || !alone) && !takes.form.MatchString(argument):
		return fmt.Sprintf("%q wants %s", manifest.Clip(text), takes.says)
	case length != "" && !takes.length:
		return fmt.Sprintf("%q takes no length", manifest.Clip(text))
	}
	return ""
}

func nearestOperator(name string) []string {
	if near := manifest.Nearest(name, logOperators); near != "" {
		return []string{near}
	}
	return nil
}

// logFormat refuses what Envoy would.
func (u *lacking) logFormat(path string, f *LoggingFormat) {
	if f == nil {
		return
	}
	refuse := func(at, format string) {
		why := logProblem(format)
		u.when(why != "", at, why)
	}
	refuse(path+".text", f.Text)
	seen := map[string]int{}
	for i, field := range f.JSON {
		at := fmt.Sprintf("%s.json[%d]", path, i)
		if first, dup := seen[field.Key]; dup {
			u.add(at+".key", fmt.Sprintf("%q a second time, after json[%d]", manifest.Clip(field.Key), first))
		}
		seen[field.Key] = i
		refuse(at+".value", field.Value)
	}
}

// secretHeaders carry what lets whoever reads a log speak for the caller.
var secretHeaders = regexp.MustCompile(`(?i)%(?:REQ|RESP|TRAILER)\([^)]*\b(?:authorization|cookie|x-amzn-oidc-(?:data|accesstoken))\b`)

// secrets names the fields of a log that would carry credentials.
func (f *LoggingFormat) secrets(path string) []string {
	if f == nil {
		return nil
	}
	var at []string
	if secretHeaders.MatchString(f.Text) {
		at = append(at, path+".text")
	}
	for i, field := range f.JSON {
		if secretHeaders.MatchString(field.Value) {
			at = append(at, fmt.Sprintf("%s.json[%d].value", path, i))
		}
	}
	return at
}
