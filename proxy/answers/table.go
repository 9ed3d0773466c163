package answers

import (
	"net/http"

	"signet.example/proxy"
)

// What a line says of a connection that was redirected, or made to the port for those, and has
// no way on: out, or to a listener.
const (
	NotLetOut      = "not_let_out"
	UndeclaredPort = "undeclared_port"
)

// tcp is the method of a line of a connection.
const tcp = "tcp"

// refusals are the alerts of TLS by which the other side refuses a certificate; by others it
// has no version or cipher in common, or broke down.
var refusals = []string{
	"ALERT_BAD_CERTIFICATE", "ALERT_NO_CERTIFICATE", "ALERT_UNSUPPORTED_CERTIFICATE", "ALERT_CERTIFICATE_", "ALERT_UNKNOWN_CA", "ALERT_ACCESS_DENIED", "ALERT_DECRYPT_ERROR",
}

// kinds is the one home of what there is: docs/ANSWERS.md is this table for people, and
// test/docs holds it to that. Envoy's words are those of 1.38 to 1.40.
var kinds = []Kind{
	// What a caller got wrong.
	{
		Name: "tunnel", Gets: "400, or 403 of an https:// URL",
		signs: []sign{{method: http.MethodConnect, status: http.StatusBadRequest}, {way: Out, details: []string{"http1.https_url_on_plaintext_connection"}}},
		Cause: "it asks for a tunnel, or for an https:// URL, and neither is carried: as clients do for https:// by a proxy",
		Cure:  "call http:// by the proxy, which makes the mTLS; for gRPC, and for what is not HTTP, connect to the address that `signet routes {host} --from {from}` tells",
	},
	{
		Name: "ambiguous", Gets: "400, by authz 403", Class: proxy.ClassAmbiguous,
		signs: []sign{{details: []string{"rbac_access_denied_matched_policy[" + string(proxy.ClassAmbiguous) + "]", "path_normalization_failed", "http1.unexpected_underscore", "http2.unexpected_underscore", "http1.content_length_and_chunked_not_allowed"}}, {rule: "signet: ambiguous *"}},
		Cause: "its path, host or headers can be read in two ways",
		Cure:  "have the caller send one form: no %2F, %5C or `;` in the path, no `_` in a header's name that headersWithUnderscores of the MeshOptions do not list, one host, one length; `;` in a query passes with the annotation signet.example/unsafe: query-semicolons of the Mesh",
	},
	{
		Name: "old-http", Gets: "426", Class: proxy.ClassMalformed,
		signs: []sign{{details: []string{"low_version"}}},
		Cause: "it speaks HTTP/1.0",
		Cure:  "have the caller speak HTTP/1.1 (`proxy_http_version 1.1;` in nginx)",
	},
	{
		Name: "large-headers", Gets: "431", Class: proxy.ClassMalformed,
		signs: []sign{{details: []string{"request_headers_too_large", "http1.headers_too_large", "http1.too_many_headers", "http2.too_many_headers", "http2.header_list_size_too_large", "http2.cookies_total_bytes_too_large"}}},
		Cause: "its headers are more than 60 KiB, or more than 100",
		Cure:  "have the caller send less: cookies and tokens are what grows",
	},
	{
		Name: "large-body", Gets: "507",
		signs: []sign{{way: Out, details: []string{"request_payload_exceeded_retry_buffer_limit"}}},
		Cause: "the callee was not reached at once, and of its body more than the 256 KiB came that are kept for another try",
		Cure:  "have the caller try again; `signet proxies --node {to}` says who is there to be called, and `signet explain --from {from} --to {to}` why the first try failed, where others did",
	},
	{
		Name: "slow-headers", Gets: "408", Class: proxy.ClassMalformed,
		signs: []sign{{details: []string{"request_header_timeout"}}},
		Cause: "its headers were not there within 10 s",
		Cure:  "look at the caller's host: it is overloaded, or loses packets",
	},
	{
		Name: "malformed", Gets: "400, 404 where its path is none, or 501 of an unknown transfer-encoding", Class: proxy.ClassMalformed,
		// codec_error is how HTTP/2 ends a whole connection; one header beyond the decoder's own bound does, too.
		// No listener of ours bounds a body.
		signs: []sign{{details: []string{"missing_host_header", "absolute_path_rejected", "http1.*", "http2.*", "codec_error*", "request_payload_too_large"}}},
		Cause: "it breaks the rules of HTTP, or has in HTTP/2 one header that no decoder takes",
		Cure:  "mend the caller; where it does not speak HTTP at all, have the listener's portMapping say `protocol: tcp`, and `signet apply -f FILE`",
	},
	{
		Name: "upgrade", Gets: "403", Class: proxy.ClassUpgrade,
		signs: []sign{{details: []string{"upgrade_failed"}}},
		Cause: "it asks for an upgrade to a protocol that is not carried; only websocket is, and not to HTTP/2",
		Cure:  "have the caller not ask, or let the listener's portMapping say `protocol: http` for websocket and `protocol: tcp` for others, and `signet apply -f FILE`",
	},

	// Where the caller's own proxy has no way for it.
	{
		Name: "no-route", Gets: "404", Class: proxy.ClassUndeclared,
		signs: []sign{{way: Out, details: []string{"route_not_found"}, routed: true}},
		Cause: "no route of the service takes it",
		Cure:  "`signet routes {host}/PATH --from {from}` says why each does not; add one to the VirtualRouter, and `signet apply -f FILE`",
	},
	{
		Name: "undeclared", Gets: "404", Class: proxy.ClassUndeclared,
		signs: []sign{{details: []string{"route_not_found"}}},
		Cause: "the virtual node has no backend of this host and port",
		Cure:  "name the VirtualService in spec.backends of {from} and `signet apply -f FILE`, or correct the host; `signet routes {host} --from {from}` tells what the proxy knows",
	},
	{
		Name: "not-let-out", Gets: "connection closed",
		signs: []sign{{way: Out, closed: NotLetOut}},
		Cause: "the application called a port of tcp that several of its backends have, or whose service has no target now; or, where the mesh lets nothing else out, a port that is none of its backends', or by TLS one that is",
		Cure:  "name the VirtualService in spec.backends of {from}, or `egressFilter: {type: ALLOW_ALL}` in the Mesh, and `signet apply -f FILE`; or leave the port or address out of what is redirected (docs/TASKS.md)",
	},
	{
		Name: "undeclared-port", Gets: "connection closed",
		signs: []sign{{way: In, closed: UndeclaredPort}},
		Cause: "a connection was redirected to the proxy whose port is no listener's, or somebody called the port of redirected connections itself",
		Cure:  "give {to} a listener of that port and `signet apply -f FILE`, or leave the port out of the application's ports that are redirected (docs/TASKS.md)",
	},
	{
		Name: "no-gateway-route", Gets: "404",
		signs: []sign{{way: In, details: []string{"direct_response"}, status: http.StatusNotFound}},
		Cause: "no route of the gateway, or of the service behind it, takes it",
		Cure:  "`signet routes {host}/PATH --from {to} --gateway` says why each does not; add one to the GatewayRoute or VirtualRouter, and `signet apply -f FILE`",
	},
	{
		Name: "no-target", Gets: "503",
		signs: []sign{{details: []string{"direct_response", "cluster_not_found"}}},
		Cause: "its route leads to virtual nodes none of which has a share, or a listener",
		Cure:  "`signet routes {host}/PATH --from {from}` names the route: give one of its weightedTargets a weight, or its node a listener, and `signet apply -f FILE`",
	},

	// What nobody decided: policies' own answers are below.
	{
		Name: "token-key", Gets: "503",
		signs: []sign{{rule: "signet: token key not here"}},
		Cause: "the key by which a load balancer signed its user's token is not here yet",
		Cure:  "have the caller try again; where it stays so, `signet check` (SIG014) says why the server cannot fetch the ALBIssuer's keys",
	},
	{
		Name: "undecided", Gets: "503", Class: proxy.ClassUnavailable,
		signs: []sign{{details: []string{"ext_authz_error"}}, {closed: "ext_authz_error"}, {cause: "unavailable"}},
		Cause: "the proxy got no answer from the agent about it",
		Cure:  "`signet check` and the agent's log say why authz is not there, or slow; it is started again by itself",
	},
	{
		Name: "invalid-decision", Gets: "500", Class: proxy.ClassError,
		signs: []sign{{details: []string{"ext_authz_invalid"}}},
		Cause: "with the headers that its policy sets it has more than 60 KiB of headers, or more than 100",
		Cure:  "have the policy set less, commit, `signet policy sync`; or have the caller send less: cookies and tokens are what grows",
	},
	{
		Name: "not-the-application", Gets: "connection closed",
		signs: []sign{{way: Out, details: []string{"ext_authz_denied"}}},
		Cause: "whoever called out is not the application of the virtual node",
		Cure:  "the agent's log and `signet check` have who it was; name it in the Binding's applications, and `signet apply -f FILE`",
	},

	// TLS with who calls.
	{
		Name: "plaintext-refused", Gets: "connection closed",
		signs: []sign{{way: In, details: []string{"filter_chain_not_found"}}},
		Cause: "the caller speaks plaintext, and the listener is STRICT",
		Cure:  "give the caller a proxy of its own (a Binding), or take plaintext meanwhile: `tls.mode: PERMISSIVE` of {to}, and `signet apply -f FILE`",
	},
	{
		Name: "caller-without-certificate", Gets: "connection closed",
		signs: []sign{{way: In, caller: []string{"PEER_DID_NOT_RETURN_A_CERTIFICATE"}}},
		Cause: "the caller shows no certificate, and the listener takes members of the mesh only",
		Cure:  "give the caller a proxy of its own (a Binding), or take it in plaintext meanwhile: `tls.mode: PERMISSIVE` of {to}, and `signet apply -f FILE`",
	},
	{
		Name: "caller-expired", Gets: "connection closed",
		signs: []sign{{way: In, caller: []string{"certificate_has_expired", "certificate has expired", "certificate_is_not_yet_valid", "certificate is not yet valid"}}},
		Cause: "the caller's certificate has expired, or is not good yet",
		Cure:  "`signet certs` and `signet check` say why the caller's is not renewed; compare the clocks of the two hosts",
	},
	{
		Name: "caller-name", Gets: "connection closed",
		signs: []sign{{way: In, caller: []string{"SAN_matcher", "SAN matcher"}}},
		Cause: "the caller's certificate is good, and has none of the names that the listener takes",
		Cure:  "`signet get virtualnode/{to} -o yaml` has whom it takes: a listener of tcp those that have the service as backend, others tls.validation.subjectAlternativeNames; add the caller, and `signet apply -f FILE`",
	},
	{
		Name: "caller-unknown-authority", Gets: "connection closed",
		signs: []sign{{way: In, caller: []string{"CERTIFICATE_VERIFY_FAILED"}}},
		Cause: "the caller's certificate is of an authority that the listener does not trust",
		Cure:  "give the caller a proxy of this mesh (a Binding); `signet get virtualnode/{to} -o yaml` has the trust that its listener names",
	},
	{
		Name: "refused-by-caller", Gets: "connection closed",
		signs: []sign{{way: In, caller: refusals}},
		Cause: "the caller refused the certificate of this proxy, by the name or the authority that it expects",
		Cure:  "compare what the caller expects with `signet certs`: clients that are not of the mesh need a certificate of an authority that they know (tls.certificate.file)",
	},
	{
		Name: "tls-mismatch", Gets: "connection closed",
		signs: []sign{{way: In, caller: []string{"TLS_error", "TLS error"}}},
		Cause: "the caller and the listener have no version or cipher of TLS in common, or what the caller speaks is no TLS",
		Cure:  "have the caller speak TLS 1.3 (1.2 where tls.minVersion of the listener says so)",
	},
	{
		Name: "slow-handshake", Gets: "connection closed",
		signs: []sign{{way: In, closed: "transport socket timeout was reached"}, {way: In, caller: []string{"timeout", "timed out"}}},
		Cause: "the handshake did not end within 10 s",
		Cure:  "look at the caller's host: it is overloaded, or connects and says nothing",
	},
	{
		Name: "not-an-svid", Gets: "connection closed",
		signs: []sign{{way: In, closed: "rbac_access_denied"}},
		Cause: "the caller's certificate is not an SVID with one SPIFFE ID, or has one where callers have no identity",
		Cure:  "issue the caller's certificate as an SVID; `signet certs` has those of the mesh",
	},

	// TLS with who is called.
	{
		Name: "callee-name", Gets: "503",
		signs: []sign{{way: Out, callee: []string{"SAN_matcher", "SAN matcher"}}},
		Cause: "who answers at the address of the callee is not whom the caller expects",
		Cure:  "`signet proxies --node {to}` has who listens where; a client policy of {from} (tls.validation) may ask for another name: `signet get virtualnode/{from} -o yaml`",
	},
	{
		Name: "callee-expired", Gets: "503",
		signs: []sign{{way: Out, callee: []string{"certificate_has_expired", "certificate has expired", "certificate_is_not_yet_valid", "certificate is not yet valid"}}},
		Cause: "the callee's certificate has expired, or is not good yet",
		Cure:  "`signet certs` and `signet check` say why it is not renewed; compare the clocks of the two hosts",
	},
	{
		Name: "callee-unknown-authority", Gets: "503",
		signs: []sign{{way: Out, callee: []string{"CERTIFICATE_VERIFY_FAILED"}}},
		Cause: "the callee's certificate is of an authority that the caller does not trust",
		Cure:  "`signet proxies --node {to}` has who listens where; a client policy of {from} (tls.validation.trust) says whom it trusts",
	},
	{
		Name: "callee-without-tls", Gets: "503",
		signs: []sign{{way: Out, callee: []string{"WRONG_VERSION_NUMBER"}}},
		Cause: "the callee answers in plaintext, and the caller asks for TLS",
		Cure:  "let the callee's listener have tls.mode PERMISSIVE or STRICT, or the client policy of {from} not enforce it, and `signet apply -f FILE`",
	},
	{
		Name: "callee-tls", Gets: "503",
		signs: []sign{{way: Out, callee: []string{"TLS_error", "TLS error"}}},
		Cause: "the handshake with the callee failed",
		Cure:  "`signet explain --to {to}` has the callee's reason, at the same time; `signet proxies --node {to}` who listens where",
	},

	// TLS with the application behind the proxy.
	{
		Name: "application-tls", Gets: "503",
		signs: []sign{{way: In, callee: []string{"TLS_error", "TLS error"}}},
		Cause: "the handshake with the application behind the proxy failed: it speaks no TLS 1.3, or its certificate is not what applicationTLS says",
		Cure:  "correct applicationTLS in the VirtualNodeOptions of {to}, and `signet apply -f FILE`; or the application's certificate",
	},

	// What became of it on its way.
	{
		Name: "no-endpoint", Gets: "503",
		signs: []sign{{details: []string{"no_healthy_upstream"}}, {method: tcp, flag: "UH"}},
		Cause: "no proxy of the callee is there to be called, or none is healthy",
		Cure:  "`signet proxies --node {to}` says which there are and what each waits for, `signet check` why one is not called",
	},
	{
		Name: "pool-full", Gets: "503",
		signs: []sign{{details: []string{"upstream_reset_before_response_started{overflow*"}}, {method: tcp, flag: "UO"}},
		Cause: "as many requests or connections are under way as connectionPool of the callee's listener lets",
		Cure:  "raise connectionPool of {to}, or of its VirtualNodeOptions, and `signet apply -f FILE`; or give it more proxies",
	},
	{
		Name: "connect-timeout", Gets: "503",
		// Of a connection that nobody answered Envoy gives no reason, and of one that failed it does.
		signs: []sign{{details: []string{"upstream_reset_before_response_started{connection_timeout*"}}, {method: tcp, flag: "UF", unexplained: true}},
		Cause: "nobody answered at the address within the time to connect",
		Cure:  "a firewall drops what is sent there, or the host is gone: `signet proxies --node {to}` has the address",
	},
	{
		Name: "application-down", Gets: "503",
		signs: []sign{{way: In, details: []string{"upstream_reset_before_response_started{remote_connection_failure*", "upstream_reset_before_response_started{local_connection_failure*"}}, {way: In, method: tcp, flag: "UF"}},
		Cause: "nothing listens at the application's address and port",
		Cure:  "start the application of {to}, or correct `app` of the proxy in the agent's file or the listener's portMapping",
	},
	{
		Name: "unreachable", Gets: "503",
		signs: []sign{{way: Out, details: []string{"upstream_reset_before_response_started{remote_connection_failure*", "upstream_reset_before_response_started{local_connection_failure*"}}, {way: Out, method: tcp, flag: "UF"}},
		Cause: "nothing listens at the callee's address",
		Cure:  "`signet proxies --node {to}` has the address and whether its proxy runs; where the node is found by DNS, see that the name leads there",
	},
	{
		Name: "refused-stream", Gets: "503",
		signs: []sign{{details: []string{"upstream_reset_before_response_started{remote_refused_stream_reset*"}}},
		Cause: "the other side takes no more requests on its connection",
		Cure:  "give {to} more proxies, or its application more streams",
	},
	{
		Name: "not-http", Gets: "502",
		signs: []sign{{details: []string{"upstream_reset_before_response_started{protocol_error*"}}},
		Cause: "what came back is not HTTP, or not the version that the listener declares",
		Cure:  "correct the listener's portMapping of {to} (http, http2, grpc, tcp), or its application, and `signet apply -f FILE`",
	},
	{
		Name: "application-reset", Gets: "502",
		signs: []sign{{way: In, details: []string{"upstream_reset_before_response_started{*"}}},
		Cause: "the application closed the connection before it answered",
		Cure:  "the log of the application of {to} has why: it crashed, or closes idle connections sooner than timeout.idle of its listener",
	},
	{
		Name: "callee-reset", Gets: "502",
		signs: []sign{{way: Out, details: []string{"upstream_reset_before_response_started{*"}}},
		Cause: "the connection to the callee was closed before it answered: its proxy or its host ended, or it refuses the caller's certificate, which TLS 1.3 says after the handshake",
		Cure:  "`signet explain --to {to}` has the callee's reason where it refused the caller, at the same time; `signet proxies --node {to} -o wide` has restarts; raise drain_requests of its agent where a deployment ended it",
	},
	{
		Name: "cut-off", Gets: "an answer without its end",
		signs: []sign{{details: []string{"upstream_reset_after_response_started{*"}}},
		Cause: "the answer ended before it was whole: who sent it crashed, or closed the connection",
		Cure:  "the log of the application of {to} has why; `signet proxies --node {to} -o wide` whether its proxy was restarted",
	},
	{
		Name: "drained", Gets: "connection closed",
		signs: []sign{{details: []string{"downstream_local_disconnect*"}}},
		Cause: "its answer had not ended when the time was over in which connections end whose listener was changed, or whose proxy was told to stop",
		Cure:  "raise drain_time of the agent of that proxy, or have streams end sooner and be opened again",
	},
	{
		Name: "try-timeout", Gets: "504",
		signs: []sign{{details: []string{"upstream_per_try_timeout", "upstream_per_try_idle_timeout"}}},
		Cause: "each try took longer than perRetryTimeout of the route",
		Cure:  "raise perRetryTimeout of the route's retryPolicy, and `signet apply -f FILE`; or have {to} answer sooner",
	},
	{
		Name: "timeout", Gets: "504",
		signs: []sign{{details: []string{"response_timeout"}}},
		Cause: "the answer took longer than timeout.perRequest of the route or listener",
		Cure:  "raise timeout.perRequest of the route and of the listener of {to}, and `signet apply -f FILE`; or have it answer sooner",
	},
	{
		Name: "idle-timeout", Gets: "504, or 408 where the request is not whole",
		signs: []sign{{details: []string{"stream_idle_timeout"}}},
		Cause: "nothing was sent in either direction for longer than timeout.idle",
		Cure:  "raise timeout.idle of the route and of the listener of {to}, and `signet apply -f FILE`; or have the stream send something sooner",
	},
	{
		Name: "too-long", Gets: "504, or 408 where the request is not whole",
		signs: []sign{{details: []string{"max_duration_timeout", "upstream_max_stream_duration_reached"}}, {method: tcp, flag: "DT"}},
		Cause: "the stream was open for as long as one may be, which the lifetime of certificates bounds",
		Cure:  "have the client open it again; docs/CONFIGURATION.md has the lifetimes",
	},
	{
		Name: "overloaded", Gets: "503",
		signs: []sign{{details: []string{"overload*"}}},
		Cause: "the proxy has no memory left for it",
		Cure:  "give the host more memory, or {to} more proxies",
	},

	// What a policy, or authz in its place, decided.
	{
		Name: "token-refused", Gets: "401",
		signs: []sign{{rule: "signet: token refused"}},
		Cause: "its bearer token is refused, or the load balancer's",
		Cure:  "have the caller get another token, or correct the JWTIssuer or ALBIssuer and `signet apply -f FILE`; `why` has what is wrong with it",
	},
	{
		Name: "banned", Gets: "403",
		signs: []sign{{rule: "signet: banned identity"}},
		Cause: "the caller or the callee is of an agent that is banned",
		Cure:  "`signet check` has the ban; a host that may come back joins anew, with a token of `signet token create`",
	},
	{
		Name: "no-policy", Gets: "403",
		signs: []sign{{rule: "signet: no policy"}},
		Cause: "there is no policy, so that everything is denied",
		Cure:  "apply a PolicySource, and `signet policy sync`; `signet check` has why one that is there is not used (SIG005, SIG006)",
	},
	{
		Name: "caller-certificate", Gets: "403",
		signs: []sign{{rule: "signet: peer certificate"}},
		Cause: "the caller's certificate is not what an SVID is",
		Cure:  "issue the caller's certificate as an SVID; `signet certs` has those of the mesh",
	},
	{
		Name: "denied", Gets: "403",
		signs: []sign{{cause: "policy"}},
		Cause: "a deny rule of its policy holds, or no allow rule does",
		Cure:  "`signet decisions --denied --from {from} --to {to} -o wide` has the rules by file and line; correct the policy, commit, `signet policy sync`",
	},
	{
		Name: "policy-error", Gets: "500",
		signs: []sign{{cause: "error"}},
		Cause: "its policy could not be evaluated",
		Cure:  "`why` has the error; correct the policy, `signet policy test DIR`, commit, `signet policy sync`",
	},
}

// other is what no sign fits.
var other = Kind{
	Name: "other", Gets: "4xx or 5xx, or connection closed",
	Cause: "the proxy answered by itself",
	Cure:  "look Envoy's words up in its documentation (response code details)",
}
