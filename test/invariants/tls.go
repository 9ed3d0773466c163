package invariants

import (
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"signet.example/proxy"
)

// downstream: whoever comes by TLS shows a certificate, and it is verified.
func (c *checker) downstream(path string, m *tlsv3.DownstreamTlsContext) {
	public := c.gateway && !m.GetRequireClientCertificate().GetValue() && m.GetCommonTlsContext().GetValidationContextType() == nil
	if !m.GetRequireClientCertificate().GetValue() && !public {
		c.say(path, "no client certificate is required")
	}
	if !m.GetDisableStatelessSessionResumption() || !m.GetDisableStatefulSessionResumption() {
		c.say(path, "sessions may be resumed")
	}
	c.own(path, m.GetCommonTlsContext(), 1)
	if !public {
		c.peer(path, m.GetCommonTlsContext(), true)
	}
}

// upstream: the server is verified, by name.
func (c *checker) upstream(v visited, m *tlsv3.UpstreamTlsContext) {
	path, least := v.path, 1
	if of, ok := parent[*clusterv3.Cluster](v); ok && strings.HasPrefix(of.GetName(), "cds_ingress_") {
		least = 0 // the application behind the proxy need not know it
	}
	if m.GetAllowRenegotiation() {
		c.say(path, "renegotiation")
	}
	if n := m.GetMaxSessionKeys(); n == nil || n.GetValue() != 0 {
		c.say(path, "sessions may be resumed")
	}
	c.own(path, m.GetCommonTlsContext(), least)
	c.peer(path, m.GetCommonTlsContext(), false)
}

// own is what one side of a connection is itself, with so many certificates at least.
func (c *checker) own(path string, m *tlsv3.CommonTlsContext, least int) {
	if m.GetTlsParams().GetTlsMinimumProtocolVersion() != tlsv3.TlsParameters_TLSv1_3 {
		c.say(path, "TLS older than 1.3")
	}
	for i, curve := range m.GetTlsParams().GetEcdhCurves() {
		if i == 0 && curve != postQuantum || !slices.Contains([]string{postQuantum, "X25519", "P-256"}, curve) {
			c.say(path, "key exchange %s in place %d", curve, i)
		}
	}
	if len(m.GetTlsParams().GetEcdhCurves()) == 0 {
		c.say(path, "post-quantum key exchange is left to a default")
	}
	if n := len(m.GetTlsCertificateSdsSecretConfigs()); len(m.GetTlsCertificates()) > 0 || n > 1 || n < least {
		c.say(path, "not exactly one certificate, by SDS")
	}
}

// peer is whom it accepts. By authorities of a file a server is known by any name, and a
// client may have any but a SPIFFE ID, which a filter behind it sees to (filters).
func (c *checker) peer(path string, m *tlsv3.CommonTlsContext, client bool) {
	combined := m.GetCombinedValidationContext()
	if combined.GetValidationContextSdsSecretConfig().GetName() == "" {
		c.say(path, "certificates are not verified against a bundle")
		return
	}
	v := combined.GetDefaultValidationContext()
	_, file := proxy.ParseTLSFiles(combined.GetValidationContextSdsSecretConfig().GetName())
	if len(v.GetMatchTypedSubjectAltNames()) == 0 && (!file || !client) {
		c.say(path, "certificates of anybody in the bundle are accepted")
	}
	for _, s := range v.GetMatchTypedSubjectAltNames() {
		if file {
			if s.GetMatcher().GetExact() == "" || strings.HasPrefix(strings.ToLower(s.GetMatcher().GetExact()), "spiffe://test.example") {
				c.say(path, "an authority of a file speaks for %q", s.GetMatcher())
			}
			continue
		}
		if s.GetSanType() != tlsv3.SubjectAltNameMatcher_URI {
			c.say(path, "a name that is not a SPIFFE ID is accepted")
		}
		if s.GetMatcher().GetExact() == "" && !endsAuthority(s.GetMatcher().GetPrefix()) {
			c.say(path, "a pattern of SPIFFE IDs is accepted")
		}
	}
	if v.GetTrustChainVerification() != tlsv3.CertificateValidationContext_VERIFY_TRUST_CHAIN || v.GetAllowExpiredCertificate() {
		c.say(path, "verification is weakened")
	}
}

// endsAuthority tells a prefix that is a whole trust domain: spiffe://td/.
func endsAuthority(prefix string) bool {
	const scheme = "spiffe://"
	return len(prefix) > len(scheme)+1 && prefix[:len(scheme)] == scheme && prefix[len(prefix)-1] == '/'
}
