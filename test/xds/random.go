package xdstest

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
)

// RandomMesh writes manifests with every member that is translated, and
// returns the nodes' names.
func RandomMesh(r *rand.Rand) (string, []string) {
	m := mesher{Rand: r}
	m.doc("Mesh", "shop", "spec: {}\n")
	for i := range 1 + r.Intn(6) {
		m.nodes = append(m.nodes, fmt.Sprintf("n%s%d", strings.Repeat("x", r.Intn(2)), i))
		if m.coin() {
			m.tcp = append(m.tcp, m.nodes[i])
		}
	}
	services := 1 + r.Intn(5)
	for i := range services {
		m.service(i)
	}
	for _, n := range m.nodes {
		m.node(n, services)
	}
	return m.String(), m.nodes
}

type mesher struct {
	*rand.Rand
	strings.Builder
	nodes []string
	tcp   []string // those of them that take bytes, too
}

func (m *mesher) doc(kind, name, spec string) {
	_, _ = fmt.Fprintf(m, "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: %s\nmetadata: {name: %s}\n%s", kind, name, spec)
}

func (m *mesher) coin() bool { return m.Intn(2) == 0 }

func (m *mesher) pick(s ...string) string { return s[m.Intn(len(s))] }

func (m *mesher) node(name string, services int) {
	var b strings.Builder
	b.WriteString("spec:\n  listeners:\n")
	protocol := m.pick("http", "http", "http2", "grpc")
	fmt.Fprintf(&b, "    - portMapping: {port: 8080, protocol: %s}\n", protocol)
	if m.coin() {
		fmt.Fprintf(&b, "      tls: {mode: %s, certificate: {%s}}\n", m.pick("STRICT", "PERMISSIVE", "DISABLED"),
			m.pick(`acm: {certificateARN: "arn:x"}`, `sds: {secretName: "spiffe://test.example/x/y"}`))
	}
	if m.coin() {
		check := m.pick("http", "http2", "tcp", "grpc")
		if check == "grpc" && protocol == "http" {
			check = "http"
		}
		fmt.Fprintf(&b, "      healthCheck: {protocol: "+check+", path: /p%d, healthyThreshold: 2, unhealthyThreshold: 3, intervalMillis: 5000, timeoutMillis: 2000}\n", m.Intn(9))
	}
	if m.coin() {
		pool := map[string]string{"http": "maxConnections: 3, maxPendingRequests: 2", "http2": "maxRequests: 9", "grpc": "maxRequests: 9"}
		fmt.Fprintf(&b, "      connectionPool: {%s: {%s}}\n      outlierDetection: {maxServerErrors: 5, interval: {unit: s, value: 10}, baseEjectionDuration: {unit: s, value: 30}, maxEjectionPercent: 50}\n", protocol, pool[protocol])
	}
	if m.coin() {
		fmt.Fprintf(&b, "      timeout: {%s: {perRequest: {unit: ms, value: %d}}}\n", protocol, m.Intn(90000))
	}
	if slices.Contains(m.tcp, name) {
		b.WriteString("    - portMapping: {port: 6379, protocol: tcp}\n" + m.pick("", "      timeout: {tcp: {idle: {unit: s, value: 0}}}\n", "      timeout: {tcp: {idle: {unit: ms, value: 9}}}\n") +
			m.pick("", "      connectionPool: {tcp: {maxConnections: 4}}\n") + m.pick("", "      tls: {mode: STRICT, certificate: {acm: {certificateARN: \"arn:x\"}}}\n") +
			m.pick("", "      healthCheck: {protocol: tcp, healthyThreshold: 2, unhealthyThreshold: 3, intervalMillis: 5000, timeoutMillis: 2000}\n"))
	}
	if m.coin() {
		fmt.Fprintf(&b, "  serviceDiscovery: {dns: {hostname: %s, responseType: %s}}\n", m.pick(name+".example", "192.0.2.1"), m.pick("ENDPOINTS", "LOADBALANCER"))
	}
	if m.coin() {
		b.WriteString("  logging: {accessLog: {file: {path: /dev/stdout" + m.pick("", ", format: {text: '%RESPONSE_CODE% %REQ(:PATH):9%'}", ", format: {json: [{key: a, value: '%DURATION%'}]}") + "}}}\n")
	}
	if m.coin() {
		b.WriteString("  backends:\n")
		for i := range services {
			policy := ""
			if m.coin() {
				policy = `, clientPolicy: {tls: {validation: {trust: {sds: {secretName: "spiffe://test.example"}}}}}`
			}
			fmt.Fprintf(&b, "    - virtualService: {virtualServiceRef: {name: s%d}%s}\n", i, policy)
		}
	}
	m.doc("VirtualNode", name, b.String())
}

func (m *mesher) service(i int) {
	name := fmt.Sprintf("s%d", i)
	spec := fmt.Sprintf("spec: {awsName: %s.shop.internal%%s}\n", name)
	switch m.Intn(4) {
	case 0:
		m.doc("VirtualService", name, fmt.Sprintf(spec, ""))
	case 1:
		m.doc("VirtualService", name, fmt.Sprintf(spec, ", provider: {virtualNode: {virtualNodeRef: {name: "+m.pick(m.nodes...)+"}}}"))
	default:
		m.doc("VirtualService", name, fmt.Sprintf(spec, ", provider: {virtualRouter: {virtualRouterRef: {name: "+name+"}}}"))
		m.doc("VirtualRouter", name, m.routes())
	}
}

func (m *mesher) routes() string {
	var b strings.Builder
	bytes := len(m.tcp) > 0 && m.coin()
	b.WriteString("spec:\n  listeners: [{portMapping: {port: 80, protocol: http}}" + map[bool]string{true: ", {portMapping: {port: 81, protocol: tcp}}"}[bytes] + "]\n  routes:\n")
	if bytes {
		for i := range 1 + m.Intn(2) {
			fmt.Fprintf(&b, "    - name: t%d\n      tcpRoute: {match: {port: 81}%s, action: {weightedTargets: [{virtualNodeRef: {name: %s}, port: 6379, weight: 1}, {virtualNodeRef: {name: %s}, port: 6379, weight: %d}]}}\n",
				i, m.pick("", ", timeout: {idle: {unit: s, value: 8}}"), m.pick(m.tcp...), m.pick(m.tcp...), m.Intn(9))
		}
	}
	for i := range 1 + m.Intn(4) {
		fmt.Fprintf(&b, "    - name: r%d\n", i)
		if m.coin() {
			fmt.Fprintf(&b, "      priority: %d\n", m.Intn(1001))
		}
		match := m.pick("prefix: /", "prefix: /a.b", "path: {exact: /x}", "path: {regex: '/[0-9]+'}")
		if m.coin() {
			match += m.pick(", method: GET", ", method: POST", ", scheme: https", ", queryParameters: [{name: q}, {name: r, match: {exact: '1'}}]", ", scheme: http")
		}
		if m.coin() {
			match += ", headers: [{name: x-h, match: {" + m.pick("exact", "prefix", "suffix", "regex") + ": a.b}}, {name: x-i, invert: true}]"
		}
		events := "httpRetryEvents: [" + m.pick("server-error", "gateway-error", "client-error", "stream-error") + "]"
		switch kind := m.pick("httpRoute", "http2Route", "grpcRoute"); kind {
		case "grpcRoute":
			match = m.pick("serviceName: a.B", "serviceName: a.B, methodName: C", "metadata: [{name: x-h, match: {exact: a}}]")
			events = m.pick(events, "grpcRetryEvents: [cancelled, unavailable]", events+", grpcRetryEvents: [internal]")
			fallthrough
		default:
			if bytes || m.coin() {
				match += ", port: 80"
			}
			fmt.Fprintf(&b, "      %s:\n        match: {%s}\n        action:\n          weightedTargets:\n", kind, match)
		}
		for j := range 1 + m.Intn(3) {
			weight := m.Intn(33)
			if j == 0 {
				weight++
			}
			fmt.Fprintf(&b, "            - {virtualNodeRef: {name: %s}, port: 8080, weight: %d}\n", m.pick(m.nodes...), weight)
		}
		if m.coin() {
			fmt.Fprintf(&b, "        retryPolicy: {%s, maxRetries: %d, perRetryTimeout: {unit: s, value: %d}}\n", events, m.Intn(5), m.Intn(5))
		}
	}
	return b.String()
}
