package views

import (
	"fmt"
	"strings"
	"testing"

	"signet.example/proxy"
	"signet.example/xds/predict"
)

func TestAGatewaysRoutesSeeAHostWithoutItsPort(t *testing.T) {
	for authority, want := range map[string]string{
		"shop.example": "shop.example", "shop.example:8443": "shop.example", "shop.example.:8443": "shop.example", "shop.example.": "shop.example",
		"[2001:db8::1]:8443": "[2001:db8::1]", "[2001:db8::1]": "[2001:db8::1]", "10.0.0.1:80": "10.0.0.1",
	} {
		if got := predict.WithoutPort(authority); got != want {
			t.Errorf("%s: %q, want %q", authority, got, want)
		}
	}
}

// What these say is what TestWhatMayHaveBeenServedIsNotSentAgain (test/xds) sees of Envoy.
func TestARequestsRetriesAreThoseOfItsMethod(t *testing.T) {
	const unserved = "connect-failure,refused-stream,retriable-headers"
	of := func(retry, method string) string {
		s := sourceOf(t)
		s.look.Model = storedOf(t, strings.Replace(manifests, "{virtualNode: {virtualNodeRef: {name: b}}}", "{virtualRouter: {virtualRouterRef: {name: r}}}", 1)+`---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualRouter
metadata: {name: r}
spec:
  listeners: [{portMapping: {port: 80, protocol: http}}]
  routes: [{name: x, httpRoute: {match: {prefix: /}, action: {weightedTargets: [{virtualNodeRef: {name: b}, weight: 1}]}`+retry+`}}]
`)
		out, err := viewsOf(s).Predict(proxy.Node("m", "a"), 0, predict.Request{
			Method: method, Scheme: "http", Authority: "b", Path: "/", Headers: map[string][]string{"x-envoy-retry-on": {"5xx"}},
		})
		if err != nil || out.Route.GetName() != "x" {
			t.Fatal(out.Route.GetName(), err)
		}
		if out.Retry == nil {
			return "once"
		}
		return fmt.Sprint(out.Retry.GetNumRetries().GetValue(), " ", out.Retry.GetRetryOn(), out.Retry.GetRetriableStatusCodes())
	}
	for _, row := range []struct{ events, get, post string }{
		{"", "2 " + unserved + ",retriable-status-codes[503]", "2 " + unserved + "[]"},
		{"httpRetryEvents: [gateway-error]", "3 " + unserved + ",reset,retriable-status-codes[502 503 504]", "3 " + unserved + "[]"},
		{"httpRetryEvents: [client-error]", "3 retriable-status-codes[409]", "once"},
		{"tcpRetryEvents: [connection-error]", "3 connect-failure[]", "3 connect-failure[]"},
	} {
		retry := ""
		if row.events != "" {
			retry = ", retryPolicy: {" + row.events + ", maxRetries: 3, perRetryTimeout: {unit: s, value: 1}}"
		}
		if get, post := of(retry, "GET"), of(retry, "POST"); get != row.get || post != row.post {
			t.Errorf("%q: GET %s, want %s; POST %s, want %s", row.events, get, row.get, post, row.post)
		}
	}
	if got := of(", retryPolicy: {httpRetryEvents: [gateway-error], maxRetries: 0, perRetryTimeout: {unit: s, value: 1}}", "GET"); got != "once" {
		t.Errorf("no retries: %s", got)
	}
}
