package answers_test

import (
	"strings"
	"testing"

	"signet.example/proxy"
	"signet.example/proxy/answers"
)

func TestAKindIsKnownByEnvoysWords(t *testing.T) {
	const began, after = "upstream_reset_before_response_started{", "upstream_reset_after_response_started{"
	for want, list := range map[string][]answers.Line{
		"tunnel":                     {{Method: "CONNECT", Status: 400, Details: "rbac_access_denied_matched_policy[ambiguous]"}, {Way: answers.Out, Method: "GET", Status: 403, Details: "http1.https_url_on_plaintext_connection"}},
		"ambiguous":                  {{Details: "path_normalization_failed", Method: "GET"}, {Details: "http2.unexpected_underscore"}},
		"malformed":                  {{Details: "http1.codec_error"}, {Details: "http2.violation.of.messaging.rule"}, {Details: "codec_error:The_user_callback_function_failed"}},
		"large-headers":              {{Details: "request_headers_too_large"}, {Details: "http2.header_list_size_too_large"}},
		"undeclared":                 {{Way: answers.Out, Details: "route_not_found"}, {Way: answers.Out, Details: "route_not_found", Service: "-"}},
		"no-route":                   {{Way: answers.Out, Details: "route_not_found", Service: "orders"}},
		"no-gateway-route":           {{Way: answers.In, Details: "direct_response", Status: 404}},
		"no-target":                  {{Way: answers.Out, Details: "direct_response", Status: 503}, {Way: answers.Out, Details: "cluster_not_found"}},
		"no-endpoint":                {{Way: answers.Out, Details: "no_healthy_upstream"}, {Way: answers.Out, Method: "tcp", Flags: "UH"}},
		"application-down":           {{Way: answers.In, Details: began + "remote_connection_failure|delayed_connect_error:_Connection_refused}"}, {Way: answers.In, Method: "tcp", Flags: "UF,URX", CalleeTLS: "delayed_connect_error:_Connection_refused"}, {Way: answers.In, Method: "tcp", Status: 503, Flags: "UF", Details: began + "remote_connection_failure|delayed_connect_error:_Connection_refused}"}}, // the method of a request
		"unreachable":                {{Way: answers.Out, Details: began + "remote_connection_failure|delayed_connect_error:_Connection_refused}"}},
		"callee-name":                {{Way: answers.Out, Details: began + "remote_connection_failure}", CalleeTLS: "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_verify_SAN_list:_verify_SAN_matcher:TLS_error_end"}},
		"callee-expired":             {{Way: answers.Out, CalleeTLS: "CERTIFICATE_VERIFY_FAILED:_certificate_has_expired"}},
		"callee-unknown-authority":   {{Way: answers.Out, CalleeTLS: "CERTIFICATE_VERIFY_FAILED:_unable_to_get_local_issuer_certificate"}},
		"callee-tls":                 {{Way: answers.Out, CalleeTLS: "TLS_error:|268436526:SSL_routines:OPENSSL_internal:TLSV1_ALERT_CERTIFICATE_REQUIRED:TLS_error_end"}, {Way: answers.Out, CalleeTLS: "TLS_error:|268436526:SSL_routines:OPENSSL_internal:TLSV1_ALERT_PROTOCOL_VERSION:TLS_error_end"}},
		"slow-handshake":             {{Way: answers.In, Method: "tcp", Closed: "transport socket timeout was reached"}},
		"connect-timeout":            {{Way: answers.Out, Method: "tcp", Flags: "UF"}},
		"callee-without-tls":         {{Way: answers.Out, CalleeTLS: "TLS_error:|268435703:SSL_routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end"}},
		"plaintext-refused":          {{Way: answers.In, Details: "filter_chain_not_found", CallerTLS: "TLS_error|error:1000009c:SSL_routines:OPENSSL_internal:HTTP_REQUEST:TLS_error_end"}},
		"caller-without-certificate": {{Way: answers.In, CallerTLS: "PEER_DID_NOT_RETURN_A_CERTIFICATE"}},
		"refused-by-caller":          {{Way: answers.In, CallerTLS: "TLS_error:|268436504:SSL_routines:OPENSSL_internal:TLSV1_ALERT_UNKNOWN_CA:TLS_error_end"}},
		"not-an-svid":                {{Way: answers.In, Closed: "rbac_access_denied_matched_policy[one SVID]"}},
		"pool-full":                  {{Details: began + "overflow}"}},
		"application-reset":          {{Way: answers.In, Details: began + "connection_termination}"}},
		"callee-reset":               {{Way: answers.Out, Details: began + "connection_termination}"}},
		"not-http":                   {{Way: answers.In, Details: began + "protocol_error}"}},
		"cut-off":                    {{Details: after + "connection_termination}"}},
		"try-timeout":                {{Details: "upstream_per_try_timeout"}},
		"undecided":                  {{Way: answers.In, Details: "ext_authz_error"}},
		"not-the-application":        {{Way: answers.Out, Details: "ext_authz_denied"}},
		"large-body":                 {{Way: answers.Out, Details: "request_payload_exceeded_retry_buffer_limit", Status: 507, CalleeTLS: "delayed_connect_error:_Connection_refused"}},
		"drained":                    {{Way: answers.In, Details: "downstream_local_disconnect(filter_chain_is_being_removed)", Flags: "DC"}},
		"application-tls":            {{Way: answers.In, Details: began + "remote_connection_failure|TLS_error:|268435703:x}", CalleeTLS: "TLS_error:|268435703:x"}, {Way: answers.In, Method: "tcp", Flags: "UF", CalleeTLS: "TLS_error:|268435703:x"}},
		"other":                      {{Details: "something_new"}, {}},
	} {
		for _, l := range list {
			if got := answers.Of(l); got.Name != want {
				t.Errorf("%+v is %s, want %s", l, got.Name, want)
			}
		}
	}
	for rule, want := range map[string]string{"signet: token refused": "token-refused", "signet: token key not here": "token-key", "signet: ambiguous path": "ambiguous", "signet: no policy": "no-policy", "": "denied"} {
		if got := answers.OfDecision("policy", rule); got.Name != want {
			t.Errorf("%q is %s, want %s", rule, got.Name, want)
		}
	}
	for cause, want := range map[string]string{"error": "policy-error", "unavailable": "undecided"} {
		if got := answers.OfDecision(cause, ""); got.Name != want {
			t.Errorf("%q is %s, want %s", cause, got.Name, want)
		}
	}
}

// What Envoy's core can say of an answer of its own (ResponseCodeDetailValues of its 1.40) has a kind, but for what no
// configuration of ours has it say: it would be "other".
func TestWhatEnvoySaysOfAnAnswerHasAKindUnlessNothingMakesItSaySo(t *testing.T) {
	never := map[string]string{
		"response_payload_too_large":               "no filter of ours keeps an answer",
		"request_overall_timeout":                  "no manager of ours has a request_timeout",
		"request_headers_failed_strict_check":      "no router of ours checks x-envoy-* headers, which callers' are taken away before",
		"missing_path_rejected":                    "a request without a path is refused by the codec",
		"invalid_path":                             "what is no path is refused by the codec, or cannot be normalised",
		"websocket_handshake_unsuccessful":         "the answer that refuses a handshake is the application's",
		"route_configuration_not_found":            "a listener waits for its routes, which name every host",
		"maintenance_mode":                         "no runtime key of ours says so",
		"drop_overload":                            "no endpoints of ours have a share that is dropped",
		"unconditional_drop_overload":              "no endpoints of ours have a share that is dropped",
		"duration_timeout":                         "is said of connections, whose flag DT is known",
		"downstream_header_timeout":                "is another name of what request_header_timeout is",
		"admin_filter_response":                    "is of the admin interface",
		"internal_redirect":                        "no route of ours follows redirects",
		"filter_removed_required_request_headers":  "no filter of ours takes method, host or path away",
		"filter_removed_required_response_headers": "no filter of ours takes the status away",
		"rejecting_because_detection_failed":       "no manager of ours looks for addresses by an extension",
		"filter_added_invalid_request_data":        "no filter of ours adds data",
		"filter_added_invalid_response_data":       "no filter of ours adds data",
		"early_connect_data":                       "no CONNECT is carried",
	}
	for _, details := range []string{
		"request_payload_too_large", "response_payload_too_large", "request_payload_exceeded_retry_buffer_limit", "stream_idle_timeout", "max_duration_timeout", "request_overall_timeout",
		"request_header_timeout", "overload", "low_version", "missing_host_header", "request_headers_failed_strict_check", "missing_path_rejected", "invalid_path", "absolute_path_rejected",
		"path_normalization_failed", "upgrade_failed", "websocket_handshake_unsuccessful", "route_configuration_not_found", "route_not_found", "direct_response", "cluster_not_found", "maintenance_mode",
		"drop_overload", "unconditional_drop_overload", "no_healthy_upstream", "response_timeout", "upstream_per_try_timeout", "upstream_per_try_idle_timeout", "upstream_max_stream_duration_reached",
		"upstream_reset_before_response_started{connection_failure}", "upstream_reset_after_response_started{connection_termination}", "filter_chain_not_found", "downstream_local_disconnect(x)", "duration_timeout",
		"downstream_header_timeout", "admin_filter_response", "internal_redirect", "filter_removed_required_request_headers", "filter_removed_required_response_headers", "rejecting_because_detection_failed",
		"filter_added_invalid_request_data", "filter_added_invalid_response_data", "early_connect_data",
	} {
		unknown := false
		for _, way := range []answers.Way{answers.In, answers.Out} {
			unknown = unknown || answers.Of(answers.Line{Way: way, Details: details}).Name == "other"
		}
		// Some are of one way alone.
		if one := details == "filter_chain_not_found" || details == "request_payload_exceeded_retry_buffer_limit"; unknown && !one && never[details] == "" || !unknown && never[details] != "" {
			t.Errorf("%s: is unknown: %t; is never said, since: %q", details, unknown, never[details])
		}
	}
}

// A gateway's manager is a way in, behind which there is no application.
func TestWhatAGatewayCouldNotCarryIsOfItsCallee(t *testing.T) {
	line := func(way, cluster, details string) string {
		return `{"msg":"native denial","id":"0b6f5c2a-9a53-4c41-8e3f-0123456789ab","way":"` + way + `","cluster":"` + cluster + `","details":"` + details + `","status":503}`
	}
	const egress, application = "cds_egress_shop_orders_http_8080", "cds_ingress_shop_orders_http_8080"
	for text, want := range map[string]string{
		line("in", egress, "no_healthy_upstream"): "no-endpoint", line("in", egress, "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"): "unreachable",
		line("in", egress, "upstream_reset_before_response_started{connection_termination}"): "callee-reset", line("in", application, "upstream_reset_before_response_started{connection_termination}"): "application-reset",
		line("in", egress, "ext_authz_error"): "undecided", line("in", egress, "request_payload_exceeded_retry_buffer_limit"): "large-body",
	} {
		l, ok := answers.ParseLine(text)
		if k := answers.Of(l); !ok || k.Name != want {
			t.Errorf("%s is %s, want %s", text, k.Name, want)
		}
	}
	if l, _ := answers.ParseLine(line("in", egress, "ext_authz_error")); l.Way != answers.In {
		t.Error("what a gateway itself refuses is not its callee's")
	}
}

// By these details Envoy is told which answers of its own are denials, and of which class.
func TestADenialsDetailsAreThoseOfAKindOfItsClass(t *testing.T) {
	for _, c := range []proxy.Class{proxy.ClassUnavailable, proxy.ClassError, proxy.ClassAmbiguous, proxy.ClassUpgrade, proxy.ClassUndeclared, proxy.ClassMalformed} {
		list := answers.Denials(c)
		if len(list) == 0 {
			t.Errorf("%s: by no details", c)
		}
		for _, details := range list {
			if k := answers.Of(answers.Line{Way: answers.Out, Details: strings.Replace(details, "*", "x", 1)}); k.Class != c {
				t.Errorf("%s: %s is of kind %s, whose class is %q", c, details, k.Name, k.Class)
			}
		}
	}
}

// An operator pastes it into a shell.
func TestACureHasNoNameThatAShellReadsAsMore(t *testing.T) {
	k, _ := answers.Named("undeclared")
	for _, hostile := range []string{"$(rm -rf ~)", "a;b", "-x", "a b", "`id`", "a\x1b[2J", strings.Repeat("a", 300), "", "a'b", "a|b", "a&b", "a\nb"} {
		if cure := k.CureFor(answers.Names{From: hostile, To: hostile, Host: hostile}); !strings.Contains(cure, "`signet routes HOST --from MESH/CALLER`") {
			t.Errorf("%q: %s", hostile, cure)
		}
	}
	if cure := k.CureFor(answers.Names{From: "shop/web", Host: "orders.shop.internal:8080"}); !strings.Contains(cure, "`signet routes orders.shop.internal:8080 --from shop/web`") {
		t.Error(cure)
	}
}

func TestAClusterTellsWhomItLeadsTo(t *testing.T) {
	for cluster, want := range map[string]string{
		"cds_egress_shop_orders_http_8080":                         "orders",
		"cds_egress_shop_orders_v2_grpc_50051":                     "orders_v2",
		"cds_egress_shop_a_http_80_tcp_6379":                       "a_http_80",
		"cds_egress_shop_orders_http2_80_via_orders.shop.internal": "orders",
		"cds_ingress_shop_orders_http_8080":                        "",
		"cds_egress_other_orders_http_8080":                        "",
		"":                                                         "",
	} {
		got, ok := answers.CalleeOf("shop", cluster)
		if ok != (want != "") || ok && got != proxy.Node("shop", want) {
			t.Errorf("%q: %v, %v", cluster, got, ok)
		}
	}
}

// Of a caller without an identity there is no name that a command could be given.
func TestTheCureOfADenialOfNobodyIsACommandThatRuns(t *testing.T) {
	listed := false
	for _, k := range answers.All() {
		nobody, known := k.CureFor(answers.Names{To: "shop/web"}), k.CureFor(answers.Names{From: "shop/a", To: "shop/web"})
		if strings.Contains(nobody, "signet decisions --denied --from") {
			t.Errorf("%s: %s", k.Name, nobody)
		}
		listed = listed || strings.Contains(nobody, "`signet decisions --denied --to shop/web -o wide`") && strings.Contains(known, "`signet decisions --denied --from shop/a --to shop/web -o wide`")
	}
	if !listed {
		t.Error("no cure lists denials")
	}
}
