package mesh_test

import (
	"slices"
	"strings"
	"testing"

	"signet.example/internal/manifest"
	"signet.example/mesh"
)

func fieldsOf(es []*manifest.Error) []string {
	var out []string
	for _, e := range es {
		out = append(out, e.Field)
	}
	return out
}

func TestWhatIsNotTranslatedIsNamedByField(t *testing.T) {
	const check = "healthyThreshold: 2, unhealthyThreshold: 2, timeoutMillis: 2000, intervalMillis: 5000"
	node := func(listener string) string {
		return object("VirtualNode", "n") + "spec: {listeners: [{" + listener + "}]}"
	}
	client := func(policy string) string {
		return object("VirtualNode", "n") + "spec: {backendDefaults: {clientPolicy: {tls: {" + policy + "}}}}"
	}
	router := func(protocol, route string) string {
		return object("VirtualRouter", "r") + "spec: {listeners: [{portMapping: {port: 1, protocol: " + protocol + "}}], routes: [{name: r, " + route + "}]}"
	}
	const http, action = "portMapping: {port: 1, protocol: http}", "action: {weightedTargets: [{virtualNodeRef: {name: n}, weight: 1}]}"
	const trust = "validation: {trust: {acm: {certificateAuthorityARNs: [a]}}}"
	l, m := "spec.listeners[0].", "spec.routes[0].httpRoute.match."
	for _, row := range []struct {
		content string
		want    []string
	}{
		{object("Mesh", "m") + "spec: {egressFilter: {type: ALLOW_ALL}, meshServiceDiscovery: {ipPreference: IPv6_ONLY}}", nil},
		{object("Mesh", "m") + "spec: {egressFilter: {type: DROP_ALL}, meshServiceDiscovery: {ipPreference: IPv4_ONLY}}", nil},
		{object("VirtualNode", "n") + "spec: {serviceDiscovery: {dns: {hostname: a, ipPreference: IPv6_PREFERRED}}}", nil},
		{object("VirtualNode", "n") + "spec: {serviceDiscovery: {dns: {hostname: a, ipPreference: IPv4_PREFERRED}}}", nil},
		{object("VirtualNode", "n") + "spec: {serviceDiscovery: {awsCloudMap: {namespaceName: a, serviceName: b, ipPreference: IPv6_ONLY}}}", nil},
		{object("VirtualGateway", "g") + "spec: {listeners: [{portMapping: {port: 1, protocol: grpc}, connectionPool: {grpc: {maxRequests: 1}}, tls: {mode: STRICT, certificate: {file: {certificateChain: a, privateKey: b}}, validation: {trust: {file: {certificateChain: a}}}}}, {portMapping: {port: 2, protocol: http}}], logging: {accessLog: {file: {path: /dev/stdout, format: {text: 50%}}}}}", []string{l + "connectionPool", l + "tls.certificate.file.certificateChain", l + "tls.certificate.file.privateKey", l + "tls.validation.trust.file.certificateChain", "spec.logging.accessLog.file.format.text"}},
		{object("VirtualGateway", "g") + "spec: {listeners: [{portMapping: {port: 1, protocol: http}, tls: {mode: STRICT, certificate: {acm: {certificateARN: a}}, validation: {trust: {acm: {certificateAuthorityARNs: [a]}}}}}], backendDefaults: {clientPolicy: {tls: {" + trust + "}}}}", nil},
		{object("GatewayRoute", "g") + "spec: {httpRoute: {match: {prefix: /}, action: {target: {virtualService: {virtualServiceRef: {name: s}}}}}}", nil},
		{object("GatewayRoute", "g") + "spec: {http2Route: {match: {prefix: /, method: CONNECT, queryParameters: [{name: q, match: {exact: ''}}]}, action: {target: {virtualService: {virtualServiceRef: {name: s}}}}}}", []string{"spec.http2Route.match.method", "spec.http2Route.match.queryParameters[0].match"}},
		{object("GatewayRoute", "g") + "spec: {grpcRoute: {match: {serviceName: a}, action: {target: {virtualService: {virtualServiceRef: {name: s}}}}}}", nil},
		{object("VirtualService", "s") + "spec: {provider: {virtualNode: {virtualNodeRef: {name: n}}}}", nil},
		{node("portMapping: {port: 1, protocol: tcp}, timeout: {tcp: {}}, connectionPool: {tcp: {maxConnections: 1}}, healthCheck: {protocol: tcp, " + check + "}"), nil},
		{node("portMapping: {port: 1, protocol: tcp}, healthCheck: {protocol: http, " + check + "}"), []string{l + "healthCheck.protocol"}},
		{node("portMapping: {port: 1, protocol: grpc}, timeout: {grpc: {}}, healthCheck: {protocol: grpc, " + check + "}"), nil},
		{node("portMapping: {port: 1, protocol: http2}, timeout: {http2: {}}, healthCheck: {protocol: http2, " + check + "}"), nil},
		{node(http + ", connectionPool: {http: {maxConnections: 1}}, outlierDetection: {maxServerErrors: 1, maxEjectionPercent: 0, interval: {unit: s, value: 1}, baseEjectionDuration: {unit: s, value: 1}}"), nil},
		{node(http + ", outlierDetection: {maxServerErrors: 1, maxEjectionPercent: 0, interval: {unit: s, value: 0}, baseEjectionDuration: {unit: ms, value: 0}}"), []string{l + "outlierDetection.interval.value", l + "outlierDetection.baseEjectionDuration.value"}},
		{node(http + ", healthCheck: {protocol: tcp, " + check + "}"), nil},
		{node(http + ", healthCheck: {protocol: grpc, " + check + "}"), []string{l + "healthCheck.protocol"}},
		{node(http + ", healthCheck: {protocol: http, " + check + "}"), nil},
		{node(http + ", tls: {mode: STRICT, certificate: {file: {certificateChain: a, privateKey: b}}, validation: {trust: {file: {certificateChain: a}}}}"), []string{l + "tls.certificate.file.certificateChain", l + "tls.certificate.file.privateKey", l + "tls.validation.trust.file.certificateChain"}},
		{node(http + ", tls: {mode: STRICT, certificate: {file: {certificateChain: /a, privateKey: /b}}, validation: {trust: {file: {certificateChain: /a}}, subjectAlternativeNames: {match: {exact: [a.example, 'spiffe://test.example/a']}}}}"), []string{l + "tls.validation.subjectAlternativeNames.match.exact[1]"}},
		{node(http + ", tls: {mode: STRICT, certificate: {file: {certificateChain: /a/../b, privateKey: /}}}"), []string{l + "tls.certificate.file.certificateChain", l + "tls.certificate.file.privateKey"}},
		{node(http + ", tls: {mode: STRICT, certificate: {sds: {secretName: web}}, validation: {trust: {sds: {secretName: roots}}, subjectAlternativeNames: {match: {exact: [a.example, 'spiffe://x']}}}}"), []string{l + "tls.certificate.sds.secretName", l + "tls.validation.trust.sds.secretName", l + "tls.validation.subjectAlternativeNames.match.exact[0]", l + "tls.validation.subjectAlternativeNames.match.exact[1]"}},
		{node(http + ", tls: {mode: PERMISSIVE, certificate: {acm: {certificateARN: a}}}"), nil},
		{client("enforce: false, ports: [1], certificate: {file: {certificateChain: a, privateKey: b}}, validation: {trust: {file: {certificateChain: a}}}"), []string{"spec.backendDefaults.clientPolicy.tls.certificate.file.certificateChain", "spec.backendDefaults.clientPolicy.tls.certificate.file.privateKey", "spec.backendDefaults.clientPolicy.tls.validation.trust.file.certificateChain"}},
		{client("certificate: {file: {certificateChain: /a, privateKey: /b}}, validation: {trust: {file: {certificateChain: /a}}, subjectAlternativeNames: {match: {exact: [a.example, 'spiffe://other.example/a', 10.0.0.7]}}}"), nil},
		{client(trust), nil},
		{object("VirtualNode", "n") + "spec: {serviceDiscovery: {awsCloudMap: {namespaceName: a, serviceName: b, attributes: [{key: k, value: v}]}}, backendGroups: [{name: g}, {name: '*', namespace: far}]}", []string{"spec.backendGroups[1].name"}},
		{strings.Replace(object("VirtualNodeOptions", "n"), mesh.GroupVersion, mesh.SignetGroupVersion, 1) + "spec: {listeners: [{port: 1, applicationTLS: {trust: {file: {certificateChain: a}}, subjectAlternativeNames: {match: {exact: [b]}}}}, {port: 2, applicationTLS: {trust: {sds: {secretName: 'spiffe://test.example'}}, subjectAlternativeNames: {match: {exact: [b]}}}}]}", []string{l + "applicationTLS.trust.file.certificateChain", "spec.listeners[1].applicationTLS.subjectAlternativeNames.match.exact[0]"}},
		{object("VirtualNode", "n") + "spec: {logging: {accessLog: {file: {path: /dev/stdout, format: {text: 'x 100%% %REQ(:METHOD)% %START_TIME(%Y)%'}}}}}", nil},
		{object("VirtualNode", "n") + "spec: {logging: {accessLog: {file: {path: /dev/stdout, format: {text: '%ENVIRONMENT(HOME)%'}}}}}", []string{"spec.logging.accessLog.file.format.text"}},
		{object("VirtualNode", "n") + "spec: {logging: {accessLog: {file: {path: /dev/stdout, format: {json: [{key: a, value: '%RESPONSE_CODE%'}, {key: b, value: '%RESPONSE_CODE'}, {key: a, value: x}]}}}}}", []string{"spec.logging.accessLog.file.format.json[1].value", "spec.logging.accessLog.file.format.json[2].key"}},
		{router("http", "http2Route: {match: {prefix: /}, "+action+"}"), nil},
		{router("grpc", "grpcRoute: {match: {}, "+action+"}"), nil},
		{router("tcp", "tcpRoute: {"+action+"}"), nil},
		{router("tcp", "tcpRoute: {match: {port: 1}, timeout: {idle: {unit: s, value: 1}}, "+action+"}"), nil},
		{router("http", "tcpRoute: {"+action+"}"), []string{"spec.routes[0].tcpRoute"}},
		{router("tcp", "httpRoute: {match: {prefix: /}, "+action+"}"), []string{"spec.routes[0].httpRoute"}},
		{router("http", "httpRoute: {match: {path: {regex: /a}, method: GET, scheme: http, queryParameters: [{name: q}, {name: r, match: {exact: x}}], headers: [{name: a, match: {regex: b}}, {name: a, match: {range: {start: 1, end: 2}}}]}, "+action+"}"), nil},
		{router("http", "httpRoute: {match: {prefix: /, method: CONNECT, queryParameters: [{name: q, match: {}}]}, "+action+"}"), []string{m + "method", m + "queryParameters[0].match"}},
		{router("http", "httpRoute: {match: {path: {exact: /a}, port: 1, headers: [{name: a}, {name: b, match: {suffix: c}, invert: true}]}, "+action+"}"), nil},
		{object("VirtualRouter", "r") + "spec: {listeners: [{portMapping: {port: 1, protocol: http}}, {portMapping: {port: 2, protocol: http}}]}", nil},
	} {
		lacks := mesh.Unsupported(parseOne(t, row.content))
		got, want := fieldsOf(lacks), row.want
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s\ngot  %v\nwant %v", row.content, got, want)
		}
		for _, e := range lacks {
			if e.Line == 0 || !strings.HasPrefix(e.Msg, "not supported: ") {
				t.Errorf("says %q without a place or reason", e.Error())
			}
		}
	}
}

func TestWarningsNameWhatHasNoEffect(t *testing.T) {
	for content, want := range map[string][]string{
		object("Mesh", "m") + "spec: {namespaceSelector: {matchLabels: {a: b}}, meshOwner: '1'}":                                                                   {"spec.meshOwner", "spec.namespaceSelector"},
		object("Mesh", "m") + "spec: {egressFilter: {type: ALLOW_ALL}}":                                                                                            {"spec.egressFilter.type"},
		object("VirtualNode", "n") + "spec: {podSelector: {}, meshRef: {name: m, uid: u}}\nstatus: {}":                                                             {"spec.meshRef.uid", "spec.podSelector", "status"},
		"apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: n, generation: 3, uid: u}":                                                       {"metadata.generation", "metadata.uid"},
		object("VirtualNode", "n") + "spec: {listeners: [{portMapping: {port: 1, protocol: http}, tls: {mode: STRICT, certificate: {acm: {certificateARN: a}}}}]}": {"spec.listeners[0].tls.certificate.acm.certificateARN"},
		"apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: m, namespace: m, clusterName: c}":                                                       {"metadata.clusterName", "metadata.namespace"},
		object("VirtualNode", "n") + "spec: {serviceDiscovery: {awsCloudMap: {namespaceName: a, serviceName: b, ipPreference: IPv6_ONLY}}}":                        {"spec.serviceDiscovery.awsCloudMap"},
		object("VirtualGateway", "g") + "spec: {namespaceSelector: {}, podSelector: {}, gatewayRouteSelector: {}, listeners: [{portMapping: {port: 1, protocol: http}, tls: {mode: STRICT, certificate: {acm: {certificateARN: a}}}, healthCheck: {protocol: http, healthyThreshold: 2, unhealthyThreshold: 2, timeoutMillis: 2000, intervalMillis: 5000}}]}": {"spec.gatewayRouteSelector", "spec.listeners[0].healthCheck", "spec.listeners[0].tls.certificate.acm.certificateARN", "spec.namespaceSelector", "spec.podSelector"},
		object("VirtualService", "s"): nil,
		object("VirtualNode", "n") + "spec: {listeners: [{portMapping: {port: 3306, protocol: tcp}}, {portMapping: {port: 22, protocol: http}}, {portMapping: {port: 5432, protocol: tcp}}]}":                  {"spec.listeners[0].portMapping.protocol"},
		object("VirtualNode", "n") + "spec: {logging: {accessLog: {file: {path: /dev/stdout, format: {json: [{key: a, value: '%REQ(X-A?Authorization):9%'}, {key: b, value: '%REQ(X-A)%'}]}}}}}":               {"spec.logging.accessLog.file.format.json[0].value"},
		object("VirtualNode", "n") + "spec: {logging: {accessLog: {file: {path: /dev/stdout, format: {json: [{key: a, value: '%REQ(X-Amzn-Oidc-Identity)%'}, {key: b, value: '%REQ(x-amzn-oidc-data)%'}]}}}}}": {"spec.logging.accessLog.file.format.json[1].value"},
	} {
		got := fieldsOf(mesh.Warnings(parseOne(t, content)))
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s\ngot %v, want %v", content, got, want)
		}
	}
}

func TestAMeshIsInNoNamespaceThoughItsFileNamesOne(t *testing.T) {
	r := parseOne(t, "apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop, namespace: shop}")
	text := r.Encode()
	if r.Namespace != "" || r.Name != "shop" || strings.Contains(string(text), "namespace") {
		t.Errorf("namespace %q, name %q:\n%s", r.Namespace, r.Name, text)
	}
	if _, err := mesh.NewGraph([]*mesh.Resource{r, parseOne(t, "apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: web, namespace: shop}")}); err != nil {
		t.Error(err)
	}
}
