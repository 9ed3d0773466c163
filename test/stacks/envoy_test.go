package stacks_test

import (
	"crypto/x509"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3" // types of the listener below
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"signet.example/test/envoytest"
)

// askEnvoy calls an Envoy whose listener verifies as generated ones do: the root,
// and the trust domain as the prefix of the name.
func askEnvoy(t *testing.T, _ string, chains []chain) verdicts {
	listeners := map[*x509.Certificate]string{}
	for _, c := range chains {
		if listeners[c.root] == "" {
			listeners[c.root] = startEnvoy(t, c)
		}
	}
	return each(chains, func(c chain) error { return call(t, listeners[c.root], c.cert) })
}

const listener = `{"static_resources": {"listeners": [{
  "name": "in", "address": {"socket_address": {"address": "HOST", "port_value": 0}},
  "filter_chains": [{
    "filters": [{"name": "http", "typed_config": {
      "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
      "stat_prefix": "in",
      "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]}]},
      "http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}],
    "transport_socket": {"name": "tls", "typed_config": {
      "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
      "require_client_certificate": true,
      "common_tls_context": {
        "tls_certificates": [{"certificate_chain": {"inline_string": "CHAIN"}, "private_key": {"inline_string": "KEY"}}],
        "validation_context": {"trusted_ca": {"inline_string": "ROOT"},
          "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"prefix": "spiffe://mesh.example/"}}]}}}}}]}]}}`

func startEnvoy(t *testing.T, c chain) string {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	text := func(pem []byte) string { return strings.ReplaceAll(string(pem), "\n", `\n`) }
	doc := strings.NewReplacer("HOST", loopback(), "ROOT", text(block("CERTIFICATE", c.root.Raw)), "KEY", text(block("PRIVATE KEY", key)),
		"CHAIN", text(append(block("CERTIFICATE", c.cert.Certificate[0]), block("CERTIFICATE", c.cert.Certificate[1])...))).Replace(listener)
	var static bootstrapv3.Bootstrap
	if err := protojson.Unmarshal([]byte(doc), &static); err != nil {
		t.Fatal(err)
	}
	e := envoytest.Start(t, envoytest.Config{NodeID: "stacks", ADS: "/nowhere", Bootstrap: func(b *bootstrapv3.Bootstrap) {
		b.DynamicResources, b.StaticResources = nil, static.GetStaticResources()
	}})
	e.WaitReady(t)
	return e.Listeners(t)["in"]
}
