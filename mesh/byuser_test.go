package mesh_test

import (
	"fmt"
	"strings"
	"testing"

	"signet.example/mesh"
	"signet.example/mesh/graphtest"
)

func TestAGatewaysRouteThatAUserChoosesIsWarnedOf(t *testing.T) {
	for match, want := range map[string]string{
		"httpRoute: {match: {prefix: /, headers: [{name: color}, {name: X-Amzn-Oidc-Identity, match: {exact: ana}}]}": "spec.httpRoute.match.headers[1].name",
		"http2Route: {match: {prefix: /, headers: [{name: x-amzn-mtls-clientcert-subject}]}":                          "spec.http2Route.match.headers[0].name",
		"grpcRoute: {match: {serviceName: a.B, metadata: [{name: x-amzn-oidc-data}]}":                                 "spec.grpcRoute.match.metadata[0].name",
		"httpRoute: {match: {prefix: /, headers: [{name: x-amzn-trace-id}, {name: x-user}]}":                          "",
	} {
		text := "apiVersion: appmesh.k8s.aws/v1beta2\nkind: GatewayRoute\nmetadata: {name: gr}\nspec: {" + match + ", action: {target: {virtualService: {virtualServiceRef: {name: s}}}}}}\n"
		var at []string
		for _, w := range mesh.Warnings(graphtest.Resources(t, "m.yaml", []byte(text))[0]) {
			if strings.Contains(w.Msg, "chosen before") {
				at = append(at, w.Field)
			}
		}
		if got := strings.Join(at, " "); got != want {
			t.Errorf("%s: %s", match, fmt.Sprint(at))
		}
	}
}
