package mesh_test

import "testing"

// App Mesh's own walkthrough of several listeners has such routes.
func TestAGatewayRouteMayMatchByItsPortAlone(t *testing.T) {
	for _, route := range []string{"httpRoute", "http2Route", "grpcRoute"} {
		parseOne(t, "apiVersion: appmesh.k8s.aws/v1beta2\nkind: GatewayRoute\nmetadata: {name: a}\nspec:\n  "+route+
			": {match: {port: 2222}, action: {target: {virtualService: {virtualServiceRef: {name: v}}}}}\n")
	}
}
