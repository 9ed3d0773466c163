package meshtest

import (
	"fmt"
	"strings"
)

// Mesh manifests of tests, in App Mesh's own format; join several with Join.

// Join documents to one YAML stream.
func Join(documents ...string) string { return strings.Join(documents, "---\n") }

// Mesh named "test".
func Mesh() string {
	return "apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: test}\nspec: {egressFilter: {type: DROP_ALL}}\n"
}

// VirtualNode with one HTTP listener on AppPort. extra is YAML inside the
// listener, indented by six spaces, e.g. a health check.
func VirtualNode(name, extra string, backends ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: %s}\nspec:\n  meshRef: {name: test}\n", name)
	fmt.Fprintf(&b, "  listeners:\n    - portMapping: {port: %d, protocol: http}\n%s", AppPort, extra)
	fmt.Fprintf(&b, "  serviceDiscovery:\n    dns: {hostname: %s.test.internal}\n", name)
	if len(backends) > 0 {
		b.WriteString("  backends:\n")
	}
	for _, s := range backends {
		fmt.Fprintf(&b, "    - virtualService: {virtualServiceRef: {name: %s}}\n", s)
	}
	return b.String()
}

// Strict is the extra of a listener that takes mTLS only.
func Strict(td, node string) string {
	return fmt.Sprintf("      tls:\n        mode: STRICT\n        certificate:\n          sds: {secretName: \"spiffe://%s/test/%s\"}\n", td, node)
}

// HostOf is the name by which a virtual service is called.
func HostOf(service string) string { return service + ".test.internal" }

// ServiceOfNode is a virtual service that one node provides.
func ServiceOfNode(name, node string) string {
	return fmt.Sprintf("apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: %s}\nspec:\n  awsName: %s\n  meshRef: {name: test}\n  provider:\n    virtualNode:\n      virtualNodeRef: {name: %s}\n", name, HostOf(name), node)
}

// ServiceOfRouter is a virtual service that a router provides.
func ServiceOfRouter(name, router string) string {
	return fmt.Sprintf("apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: %s}\nspec:\n  awsName: %s\n  meshRef: {name: test}\n  provider:\n    virtualRouter:\n      virtualRouterRef: {name: %s}\n", name, HostOf(name), router)
}

// Weighted is a router with one route of prefix / to nodes by weight, given as
// node, weight, node, weight…
func Weighted(name string, targets ...any) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualRouter\nmetadata: {name: %s}\nspec:\n  meshRef: {name: test}\n  listeners:\n    - portMapping: {port: %d, protocol: http}\n  routes:\n    - name: all\n      httpRoute:\n        match: {prefix: /}\n        action:\n          weightedTargets:\n", name, AppPort)
	for i := 0; i+1 < len(targets); i += 2 {
		fmt.Fprintf(&b, "            - virtualNodeRef: {name: %v}\n              weight: %v\n", targets[i], targets[i+1])
	}
	return b.String()
}
