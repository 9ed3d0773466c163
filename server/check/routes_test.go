package check

import (
	"slices"
	"strings"
	"testing"

	"signet.example/server/fleet"
)

func TestOfARouteWithoutAnyEndpointAllCallsFail(t *testing.T) {
	router := ofMesh("VirtualRouter", "name: r", "listeners: [{portMapping: {port: 8080, protocol: http}}], routes: [{name: both, httpRoute: {match: {prefix: /}, action: {weightedTargets: [{virtualNodeRef: {name: a}, weight: 1}, {virtualNodeRef: {name: b}, weight: 1}]}}}]")
	for _, c := range []struct {
		what, discovery string
		want            []string
	}{
		{"no target is served", "", []string{"route both leads to a, which has no endpoint: all of its calls fail", "route both leads to b, which has no endpoint: all of its calls fail"}},
		{"one may be", ", serviceDiscovery: {dns: {hostname: b.internal}}", []string{"route both leads to a, which has no endpoint: 1 of 2 of its calls fail"}},
	} {
		m := modelOf(t, ofMesh("Mesh", "name: shop", "")+ofMesh("VirtualNode", "name: a", listener)+ofMesh("VirtualNode", "name: b", listener+c.discovery)+
			router+ofMesh("VirtualService", "name: s", "provider: {virtualRouter: {virtualRouterRef: {name: r}}}"))
		var got []string
		for _, f := range (Look{Stored: m, Endpoints: new(fleet.Registered)}).routes() {
			said, _, _ := strings.Cut(f.GetCause(), ";")
			got = append(got, said)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}
