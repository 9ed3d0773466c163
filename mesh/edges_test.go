package mesh_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"signet.example/mesh"
	"signet.example/mesh/graphtest"
)

// declaring has a router whose routes ask for everything that can be asked for, a node that
// provides a service itself, and a gateway that writes paths anew.
const declaring = `
apiVersion: appmesh.k8s.aws/v1beta2
kind: Mesh
metadata: {name: shop}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: web}
spec: {backends: [{virtualService: {virtualServiceRef: {name: orders}}}, {virtualService: {virtualServiceRef: {name: store}}}, {virtualService: {virtualServiceRef: {name: nothing}}}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: orders}
spec: {listeners: [{portMapping: {port: 8080, protocol: http}}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: orders-v2}
spec: {listeners: [{portMapping: {port: 8080, protocol: http}}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualNode
metadata: {name: store}
spec: {listeners: [{portMapping: {port: 8080, protocol: grpc}}, {portMapping: {port: 6379, protocol: tcp}}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualRouter
metadata: {name: orders}
spec:
  listeners: [{portMapping: {port: 80, protocol: http}}, {portMapping: {port: 81, protocol: http}}, {portMapping: {port: 6000, protocol: tcp}}]
  routes:
    - {name: canary, priority: 1, httpRoute: {match: {prefix: /orders, port: 80, method: GET, headers: [{name: x-canary}]}, action: {weightedTargets: [{virtualNodeRef: {name: orders-v2}, weight: 1}, {virtualNodeRef: {name: orders}, weight: 0}]}}}
    - {name: one, httpRoute: {match: {path: {exact: /orders/new}, port: 80, method: POST}, action: {weightedTargets: [{virtualNodeRef: {name: orders}, weight: 1}]}}}
    - {name: ids, httpRoute: {match: {path: {regex: "/orders/[0-9]+"}, port: 81}, action: {weightedTargets: [{virtualNodeRef: {name: orders}, weight: 1}]}}}
    - {name: call, grpcRoute: {match: {serviceName: shop.Store, methodName: Get, port: 80}, action: {weightedTargets: [{virtualNodeRef: {name: store}, port: 8080, weight: 1}]}}}
    - {name: calls, grpcRoute: {match: {serviceName: shop.Store, port: 81}, action: {weightedTargets: [{virtualNodeRef: {name: store}, port: 8080, weight: 1}]}}}
    - {name: bytes, tcpRoute: {match: {port: 6000}, action: {weightedTargets: [{virtualNodeRef: {name: store}, port: 6379, weight: 1}]}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: orders}
spec: {provider: {virtualRouter: {virtualRouterRef: {name: orders}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: store}
spec: {provider: {virtualNode: {virtualNodeRef: {name: store}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualService
metadata: {name: nothing}
spec: {}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualGateway
metadata: {name: edge}
spec: {listeners: [{portMapping: {port: 8080, protocol: http}}]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: GatewayRoute
metadata: {name: rewritten}
spec: {httpRoute: {match: {prefix: /shop/}, action: {target: {virtualService: {virtualServiceRef: {name: orders}}}, rewrite: {prefix: {value: /orders/}}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: GatewayRoute
metadata: {name: kept}
spec: {httpRoute: {match: {prefix: /orders/, method: POST, hostname: {exact: WWW.example.com}}, action: {target: {virtualService: {virtualServiceRef: {name: orders}}}, rewrite: {prefix: {defaultPrefix: DISABLED}}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: GatewayRoute
metadata: {name: other-port}
spec: {httpRoute: {match: {prefix: /ids}, action: {target: {port: 81, virtualService: {virtualServiceRef: {name: orders}}}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: GatewayRoute
metadata: {name: begun}
spec: {httpRoute: {match: {prefix: /orders/}, action: {target: {port: 81, virtualService: {virtualServiceRef: {name: orders}}}, rewrite: {prefix: {defaultPrefix: DISABLED}}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: GatewayRoute
metadata: {name: ends}
spec: {httpRoute: {match: {path: {regex: ".*/[0-9]+"}}, action: {target: {port: 81, virtualService: {virtualServiceRef: {name: orders}}}}}}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: GatewayRoute
metadata: {name: direct}
spec: {httpRoute: {match: {path: {exact: /direct}, hostname: {suffix: .example.com}}, action: {target: {virtualService: {virtualServiceRef: {name: store}}}, rewrite: {path: {exact: /s}}}}}
`

func TestEdgesAreWhatBackendsAndRoutesDeclareAsTheCalleeSeesIt(t *testing.T) {
	g := graphtest.Graph(t, "declaring.yaml", []byte(declaring))
	var got []string
	for _, e := range g.Edges("shop") {
		got = append(got, edgeText(e))
	}
	slices.Sort(got)
	want := strings.Fields(strings.ReplaceAll(strings.TrimSpace(`
anybody→edge|any|begun||/orders/
anybody→edge|any|ends||~.*/[0-9]+
anybody→edge|any|direct|*.example.com|=/direct
anybody→edge|any|other-port||/ids
anybody→edge|any|rewritten||/shop/
anybody→edge|POST|kept|www.example.com|/orders/
edge→orders-v2:8080|GET|orders/canary||/orders/|narrowed
edge→orders:8080|any|orders/ids||~/orders/[0-9]+
edge→orders:8080|any|orders/ids||~/orders/[0-9]+
edge→orders:8080|any|orders/ids||~.*/[0-9]+&~/orders/[0-9]+
edge→orders:8080|GET|orders/canary||/orders/|narrowed
edge→orders:8080|POST|orders/one||=/orders/new
edge→orders:8080|POST|orders/one||=/orders/new
edge→store:8080|any|store/||=/s
edge→store:8080|POST|orders/calls||/shop.Store/
edge→store:8080|POST|orders/calls||~.*/[0-9]+&/shop.Store/
web→orders-v2:8080|GET|orders/canary||/orders|narrowed
web→orders:8080|any|orders/ids||~/orders/[0-9]+
web→orders:8080|GET|orders/canary||/orders|narrowed
web→orders:8080|POST|orders/one||=/orders/new
web→store|6379|orders/bytes||
web→store|6379|store/||
web→store|any|store/||
web→store:8080|POST|orders/call||=/shop.Store/Get
web→store:8080|POST|orders/calls||/shop.Store/
`), " ", ""))
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("edges:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func edgeText(e mesh.Edge) string {
	from, what := "anybody", "any"
	if e.Caller != nil {
		from = e.Caller.Name
	}
	switch {
	case e.Port != 0:
		what = fmt.Sprint(e.Port)
	case e.Method != "":
		what = e.Method
	}
	by, host := e.Route, e.Host.Exact
	if e.Service != "" {
		by = e.Service + "/" + e.Route
	}
	if e.Host.Suffix != "" {
		host = "*" + e.Host.Suffix
	}
	var paths []string
	for _, p := range e.Paths {
		switch {
		case p.Exact != "":
			paths = append(paths, "="+p.Exact)
		case p.Regex != "":
			paths = append(paths, "~"+p.Regex)
		default:
			paths = append(paths, p.Prefix)
		}
	}
	at := "" // the listener
	if e.Listener != 0 {
		at = fmt.Sprint(":", e.Listener)
	}
	text := from + "→" + e.Callee.Name + at + "|" + what + "|" + by + "|" + host + "|" + strings.Join(paths, "&")
	if e.Narrowed {
		text += "|narrowed"
	}
	return text
}
