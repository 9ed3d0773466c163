package mesh_test

import (
	"fmt"
	"strings"
	"testing"

	"signet.example/mesh"
	"signet.example/mesh/graphtest"
	"signet.example/proxy"
)

const routedByHeaders = `apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: m}
spec: {}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: a}
spec: {listeners: [{portMapping: {port: 80, protocol: http}}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualRouter
metadata: {name: r}
spec:
  listeners: [{portMapping: {port: 80, protocol: http}}]
  routes:
    - {name: one, httpRoute: {match: {prefix: /, headers: [{name: Color_Header, match: {exact: red}}, {name: x-plain}]}, action: {weightedTargets: [{virtualNodeRef: {name: a}, weight: 1}]}}}
    - {name: two, httpRoute: {match: {prefix: /, headers: [{name: x_real_ip}]}, action: {weightedTargets: [{virtualNodeRef: {name: a}, weight: 1}]}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: s}
spec: {provider: {virtualRouter: {virtualRouterRef: {name: r}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualGateway
metadata: {name: g}
spec: {listeners: [{portMapping: {port: 80, protocol: http}}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: GatewayRoute
metadata: {name: gr}
spec: {httpRoute: {match: {prefix: /, headers: [{name: at_gateway}]}, action: {target: {virtualService: {virtualServiceRef: {name: s}}}}}}
`

func TestHeadersWithUnderscoresThatRoutesLookAtAreKnown(t *testing.T) {
	named := map[string]string{}
	for _, r := range graphtest.Resources(t, "m.yaml", []byte(routedByHeaders)) {
		if names := mesh.Underscored(r); names != nil {
			named[string(r.Kind)] = fmt.Sprint(names)
		}
	}
	if fmt.Sprint(named) != "map[GatewayRoute:[at_gateway] VirtualRouter:[color_header]]" { // the third one cannot be let through
		t.Errorf("%v", named)
	}
	for options, want := range map[string]string{
		"": "[] [at_gateway color_header x_real_ip]",
		"---\napiVersion: signet.example/v1alpha1\nkind: MeshOptions\nmetadata: {name: m}\nspec: {headersWithUnderscores: [other_one, COLOR_header]}\n": "[color_header other_one] [at_gateway x_real_ip]",
	} {
		g, err := mesh.NewGraph(graphtest.Resources(t, "m.yaml", []byte(routedByHeaders+options)))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(g.HeadersWithUnderscores("m"), g.Unseen("m")); got != want {
			t.Errorf("%q: %s, want %s", options, got, want)
		}
	}
}

func TestWhatAMeshCannotPassOnIsRefusedWithItsReason(t *testing.T) {
	for names, want := range map[string]string{
		"x_role, X_Forwarded_For": "X_Forwarded_For many applications read it as x-forwarded-for",
		"x_real-ip":               "read it as x-real-ip",
		"x_signet_denied":         "read it as x-signet-denied",
		"transfer_encoding":       "two requests in one",
		"x-role":                  "has no underscore",
	} {
		r := graphtest.Resources(t, "m.yaml", []byte("apiVersion: signet.example/v1alpha1\nkind: MeshOptions\nmetadata: {name: m}\nspec: {headersWithUnderscores: ["+names+"]}\n"))[0]
		if errs := mesh.NotPassed(r); len(errs) != 1 || !strings.Contains(errs[0].Msg, want) {
			t.Errorf("%s: %v", names, errs)
		}
	}
}

// What proxies set or take away has no second spelling, and no name has a part that Envoy expands
// where it tells the agent which ones pass.
func TestNoHeaderThatIsVouchedForPassesInAnotherSpelling(t *testing.T) {
	names := []string{"x-request-id", "x-amzn-trace-id", "x-amzn-oidc-identity", "x-envoy-peer-metadata", "x-forwarded-client-cert", proxy.HeaderByGateway, proxy.HeaderDecisionID, "a-%START-TIME%", "a-%"}
	for _, begins := range proxy.UserHeaders() {
		names = append(names, begins+"more")
	}
	for _, w := range proxy.WithheldHeaders() {
		for _, name := range w.Headers {
			if strings.Contains(name, "-") {
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		for _, other := range []string{strings.ReplaceAll(name, "-", "_"), strings.Replace(name, "-", "_", 1), strings.ToUpper(strings.ReplaceAll(name, "-", "_"))} {
			docs, err := mesh.Split("m.yaml", []byte("apiVersion: signet.example/v1alpha1\nkind: MeshOptions\nmetadata: {name: m}\nspec: {headersWithUnderscores: [\""+other+"\"]}\n"))
			if err != nil {
				t.Fatal(err)
			}
			r, err := mesh.Parse(docs[0]) // a release that could pass it may have stored it
			if err != nil {
				t.Fatal(err)
			}
			if errs := mesh.NotPassed(r); len(errs) != 1 || errs[0].Line != 4 || !strings.Contains(errs[0].Msg, "of which callers write none") && !strings.Contains(errs[0].Msg, "operator's to Envoy") {
				t.Errorf("%s: %v", other, errs)
			}
			g, err := mesh.NewGraph(append(graphtest.Resources(t, "m.yaml", []byte(routedByHeaders)), r))
			if err != nil {
				t.Fatal(err)
			}
			if pass := g.HeadersWithUnderscores("m"); pass != nil {
				t.Errorf("%s passes: %v", other, pass)
			}
		}
	}
}
