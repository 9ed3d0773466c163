package modeltest

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"signet.example/proxy"
)

// dice make objects of few names, so that they meet.
type dice struct{ *rand.Rand }

func (d dice) pick(from ...string) string { return from[d.IntN(len(from))] }

// maybe is one of two texts in n cases of which one has something to say.
func (d dice) maybe(n int, text string) string {
	if d.IntN(n) > 0 {
		return ""
	}
	return text
}

// one is the name of an object that is said or deleted; of what refers to it seldom names the last,
// which can be deleted then.
func (d dice) one(letter string, n int) string { return fmt.Sprint(letter, 1+d.IntN(n)) }

func (d dice) group() string   { return d.one("g", 3) }
func (d dice) node() string    { return d.one("n", 3+1/(1+d.IntN(8))) }
func (d dice) service() string { return d.one("s", 3+1/(1+d.IntN(8))) }
func (d dice) router() string  { return d.one("r", 2+1/(1+d.IntN(8))) }
func (d dice) gateway() string { return d.one("v", 2+1/(1+d.IntN(8))) }
func (d dice) port() string    { return d.pick("80", "80", "80", "81") }

func (d dice) selectors() string {
	return `selectors: ["unix:uid:` + d.pick("1", "2") + `"` + d.maybe(2, `, "unix:path:/x"`) + "]"
}

// random are the manifests of which RandomObject is one, as often as they stand here.
var random = []func(dice) string{
	func(d dice) string { return Own("NodeGroup", d.one("g", 4), d.maybe(3, "addresses: [10.0.0.0/8]")) },
	dice.entry, dice.entry, dice.binding, dice.binding,
	dice.issuer, dice.albIssuer, dice.source,
	func(d dice) string {
		return Own("VirtualNodeOptions", d.node(), fmt.Sprintf("listeners: [{port: %s, circuitBreaker: {maxRequests: %d}}]", d.port(), 1+d.IntN(3)))
	},
	func(d dice) string {
		return Own("VirtualGatewayOptions", d.gateway(), fmt.Sprintf("listeners: [{port: %s, ingress: [{name: alb, ranges: [10.0.%d.0/24]}]}]", d.port(), d.IntN(3)))
	},
	dice.virtualNode, dice.virtualNode, dice.virtualNode, dice.virtualRouter, dice.virtualRouter,
	func(d dice) string {
		return OfMesh("VirtualService", d.one("s", 4), d.pick("", "provider: {virtualNode: {virtualNodeRef: {name: "+d.node()+"}}}", "provider: {virtualRouter: {virtualRouterRef: {name: "+d.router()+"}}}"))
	},
	func(d dice) string {
		return OfMesh("BackendGroup", d.one("k", 2), "virtualservices: [{name: "+d.service()+"}"+d.maybe(2, ", {name: "+d.service()+"}")+"]")
	},
	func(d dice) string {
		name := d.pick(d.one("v", 3), d.one("v", 3), d.one("v", 3), d.one("v", 3), "n3") // no node and gateway have one name
		return OfMesh("VirtualGateway", name, "listeners: [{portMapping: {port: "+d.port()+", protocol: "+d.pick("http", "http2")+"}}]")
	},
	dice.gatewayRoute, dice.gatewayRoute,
}

// Everything has each of the objects that RandomObject names, or most, in mesh m.
func Everything() string {
	all := Mesh + Own("MeshOptions", "m", "authorization: enforce")
	for n := 1; n <= 4; n++ {
		all += Own("NodeGroup", fmt.Sprint("g", n), "") +
			OfMesh("VirtualNode", fmt.Sprint("n", n), "listeners: [{portMapping: {port: 80, protocol: http}}, {portMapping: {port: 90, protocol: tcp}}], backends: [{virtualService: {virtualServiceRef: {name: s1}}}, {virtualService: {virtualServiceRef: {name: s2}}}]") +
			Own("VirtualNodeOptions", fmt.Sprint("n", n), "listeners: [{port: 80, circuitBreaker: {maxRequests: 9}}]") +
			OfMesh("VirtualService", fmt.Sprint("s", n), fmt.Sprintf("provider: {virtualRouter: {virtualRouterRef: {name: r%d}}}", 1+n%2))
	}
	for n := 1; n <= 3; n++ {
		all += Own("Binding", fmt.Sprint("b", n), fmt.Sprintf("group: g%d, mesh: m, virtualNode: n%d, selectors: [\"unix:uid:%d\"]", n, n, n)) +
			Own("Entry", fmt.Sprint("e", n), fmt.Sprintf("group: g%d, spiffeID: \"spiffe://test.example/e%d\", selectors: [\"unix:uid:%d\"]", n, n, n)) +
			OfMesh("VirtualGateway", fmt.Sprint("v", n), "listeners: [{portMapping: {port: 80, protocol: http}}]") +
			Own("VirtualGatewayOptions", fmt.Sprint("v", n), "authorization: observe") +
			OfMesh("GatewayRoute", fmt.Sprint("x", n), fmt.Sprintf("virtualGatewayRef: {name: v%d}, httpRoute: {match: {prefix: /%d}, action: {target: {virtualService: {virtualServiceRef: {name: s%d}}}}}", 1+n%2, n, n)) +
			OfMesh("VirtualRouter", fmt.Sprint("r", n), fmt.Sprintf("listeners: [{portMapping: {port: 80, protocol: http}}], routes: [{name: a, httpRoute: {match: {prefix: /}, action: {weightedTargets: [{virtualNodeRef: {name: n%d}, weight: 1, port: 80}]}}}]", n))
	}
	d := dice{rand.New(rand.NewPCG(0, 0))} //nolint:gosec // a test is to be run again with the same
	return all + d.issuer() + d.albIssuer() + d.source() + OfMesh("BackendGroup", "k1", "virtualservices: [{name: s1}]") + OfMesh("BackendGroup", "k2", "virtualservices: [{name: s2}]")
}

// RandomObject is one of a few names; some of what they name is not there.
func RandomObject(r *rand.Rand) string { return random[r.IntN(len(random))](dice{r}) }

// RandomMesh is mesh m itself, or its options, with something different in it: what all of it is made of.
func RandomMesh(r *rand.Rand) string {
	d := dice{r}
	if d.IntN(2) == 0 {
		return Own("MeshOptions", "m", d.pick("authorization: observe", "authorization: enforce", "envoyHeaders: suppress"))
	}
	text := OfMesh("Mesh", "m", d.pick("", "meshServiceDiscovery: {ipPreference: "+d.pick("IPv4_ONLY", "IPv6_PREFERRED")+"}"))
	return strings.Replace(text, "{name: m}", "{name: m"+d.maybe(2, ", annotations: {"+proxy.UnsafeAnnotation+": "+proxy.UnsafeRepeatAnyMethod+"}")+"}", 1)
}

func (d dice) entry() string {
	return Own("Entry", d.pick("e1", "e2", "e3", "e4"), "group: "+d.group()+`, spiffeID: "spiffe://test.example/`+d.pick("a", "b")+`", `+d.selectors()+d.pick("", ", hint: a", ", hint: a", ", hint: b"))
}

func (d dice) issuer() string {
	return Own("JWTIssuer", d.one("i", 2), `issuer: "https://`+d.pick("x", "y")+`.example", audiences: [`+d.pick("a", "b", "c")+`], jwksURL: "https://x.example/keys"`)
}

func (d dice) albIssuer() string {
	return Own("ALBIssuer", d.one("l", 2), `issuer: "https://x.example", clients: [`+d.pick("a", "b", "c")+`], signers: ["arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/front/50dc6c495c0c9188"], ingress: [alb]`)
}

func (d dice) source() string {
	return Own("PolicySource", d.one("p", 2), `url: "https://git.example/`+d.pick("a", "b", "c")+`.git"`)
}

func (d dice) binding() string {
	return Own("Binding", d.pick("b1", "b2", "b3", "b4"), "group: "+d.group()+", mesh: m, "+d.pick("virtualNode: "+d.node(), "virtualNode: "+d.node(), "virtualNode: "+d.node(), "virtualGateway: "+d.gateway())+", "+d.selectors())
}

func (d dice) virtualNode() string {
	spec := fmt.Sprintf("listeners: [{portMapping: {port: %s, protocol: http}, timeout: {http: {perRequest: {unit: s, value: %d}}}}%s]", d.port(), 1+d.IntN(3), d.maybe(2, ", {portMapping: {port: 90, protocol: tcp}}"))
	spec += d.maybe(2, ", serviceDiscovery: {"+d.pick("dns: {hostname: a.example}", "dns: {hostname: b.example}", "awsCloudMap: {namespaceName: a, serviceName: b}")+"}")
	var backends []string
	for _, n := range d.Perm(3)[:d.IntN(3)] {
		backends = append(backends, fmt.Sprintf("{virtualService: {virtualServiceRef: {name: s%d}%s}}", 1+n, d.maybe(3, `, clientPolicy: {tls: {validation: {trust: {sds: {secretName: "spiffe://test.example"}}}}}`)))
	}
	spec += ", backends: [" + strings.Join(backends, ", ") + "]"
	return OfMesh("VirtualNode", d.one("n", 4), spec+d.maybe(4, ", backendGroups: [{name: "+d.one("k", 2)+"}]"))
}

func (d dice) virtualRouter() string {
	targets := func(rest string) string {
		return fmt.Sprintf("action: {weightedTargets: [{virtualNodeRef: {name: %s}, weight: %d%s}]}", d.node(), 1+d.IntN(3), rest)
	}
	routes := fmt.Sprintf("{name: a, httpRoute: {match: {prefix: /%s, port: 80}, %s%s}}", d.pick("", "a"), targets(", port: "+d.port()), d.maybe(2, ", retryPolicy: {httpRetryEvents: [server-error], maxRetries: 2, perRetryTimeout: {unit: s, value: 1}}"))
	listeners := "{portMapping: {port: 80, protocol: http}}"
	if d.IntN(3) == 0 {
		listeners += ", {portMapping: {port: 90, protocol: tcp}}"
		routes += ", {name: b, tcpRoute: {match: {port: 90}, " + targets(", port: 90") + "}}"
	}
	return OfMesh("VirtualRouter", d.one("r", 3), "listeners: ["+listeners+"], routes: ["+routes+"]")
}

func (d dice) gatewayRoute() string {
	return OfMesh("GatewayRoute", d.pick("x1", "x2", "x3"), d.pick("", "virtualGatewayRef: {name: "+d.gateway()+"}, ", "virtualGatewayRef: {name: "+d.gateway()+"}, ")+
		"httpRoute: {match: {prefix: /"+d.pick("a", "b", "c")+"}, action: {target: {virtualService: {virtualServiceRef: {name: "+d.service()+"}}}}}")
}
