package xds

import (
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"signet.example/mesh"
	"signet.example/proxy"
)

// tlsSocket is the transport socket of both directions.
const tlsSocket = "envoy.transport_sockets.tls"

// A peer is who one side of a connection demands the other to be.
type peer struct {
	certificate string // what to present: the SPIFFE ID that names the secret
	trust       string // whose authorities: the trust domain ID that names the secret
	sans        []*tlsv3.SubjectAltNameMatcher
}

// downstream is the inbound TLS of a listener: a client must show a certificate
// of the trust domain, and no session outlives a change of trust (A08).
func (b *builder) downstream(l mesh.Listener) *corev3.TransportSocket {
	p := peer{certificate: b.presented(b.node, l), trust: b.bundle()}
	if l.TLS != nil && l.TLS.Certificate != "" {
		p.certificate = l.TLS.Certificate
	}
	if l.AnyClient() {
		return b.socket(noResumption(&tlsv3.DownstreamTlsContext{CommonTlsContext: b.serverTLS(p.certificate, served(l.Protocol)...)}))
	}
	if l.TLS != nil && l.TLS.ClientTrust != "" {
		p.trust = l.TLS.ClientTrust
	}
	switch {
	case l.ForeignClients(): // without names: whoever they vouch for, as App Mesh's
		p.sans = b.named("clients of "+b.node.Name, l.TLS.Clients)
	case l.TLS != nil && l.TLS.Clients != nil:
		p.sans = b.exactly("clients of "+b.node.Name, l.TLS.Clients)
	case l.Protocol == mesh.ProtocolTCP && p.trust == b.bundle():
		p.sans = b.exactly("callers of "+b.node.Name, b.callersOf(l))
	default:
		// The slash ends the trust domain's name: spiffe://a.example.evil/ is another.
		p.sans = []*tlsv3.SubjectAltNameMatcher{uri(&matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: p.trust + "/"},
		})}
	}
	return b.socket(noResumption(&tlsv3.DownstreamTlsContext{
		CommonTlsContext:         b.commonTLS(p, served(l.Protocol)...),
		RequireClientCertificate: wrapperspb.Bool(true),
	}))
}

// callersOf are the only identities whose connections a listener of protocol tcp takes
// where its spec does not name them: those whose backends lead there. Where there are
// none it is the node's own, since no list at all would accept anyone.
func (b *builder) callersOf(l mesh.Listener) []string {
	var ids []string
	for _, n := range b.read.tcpCallers(b.node, l.Port) {
		ids = append(ids, b.idOf(n))
	}
	if len(ids) == 0 {
		ids = []string{b.idOf(b.node)}
	}
	return ids
}

func noResumption(c *tlsv3.DownstreamTlsContext) *tlsv3.DownstreamTlsContext {
	c.DisableStatefulSessionResumption = true
	c.SessionTicketKeysType = &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{DisableStatelessSessionResumption: true}
	return c
}

// presented is the SPIFFE ID that a listener shows, or would if its certificate were not
// of a file: who calls it without being told of another authority reaches nobody.
func (b *builder) presented(n *mesh.VirtualNode, l mesh.Listener) string {
	if l.TLS == nil || l.TLS.Certificate == "" || fromFiles(l.TLS.Certificate) {
		return b.idOf(n)
	}
	return l.TLS.Certificate
}

// fromFiles reports whether a secret is made of files of the proxy's host.
func fromFiles(secret string) bool {
	_, ok := proxy.ParseTLSFiles(secret)
	return ok
}

// upstream is the client's TLS to one listener of a target. The server must be
// who the mesh says it is, by SPIFFE ID, whatever address it was found at.
func (b *builder) upstream(target *mesh.VirtualNode, l mesh.Listener, policy *mesh.ClientTLS) *corev3.TransportSocket {
	p := peer{
		certificate: b.idOf(b.node), trust: b.bundle(),
		sans: b.exactly(target.Name, []string{b.presented(target, l)}),
	}
	if policy != nil {
		if policy.Certificate != "" {
			p.certificate = policy.Certificate
		}
		if policy.Trust != "" {
			p.trust = policy.Trust
		}
		if fromFiles(p.trust) {
			p.sans = b.servers(target, policy)
		} else if policy.Servers != nil {
			p.sans = b.exactly("client policy for "+target.Name, policy.Servers)
		}
	}
	return b.socket(&tlsv3.UpstreamTlsContext{
		CommonTlsContext: b.commonTLS(p, alpn(l.Protocol)...),
		Sni:              sni(target),
		MaxSessionKeys:   wrapperspb.UInt32(0), // no resumption from this side either
	})
}

// toApplication is the proxy's TLS to the application behind it, which must have one of the
// names that its options say. Without it the proxy speaks plaintext there.
func (b *builder) toApplication(l mesh.Listener) *corev3.TransportSocket {
	a, where := l.Application, "application of "+b.node.Name
	p := peer{certificate: b.idOf(b.node), trust: b.bundle()}
	if a.Trust != "" {
		p.trust = a.Trust
	}
	if fromFiles(p.trust) {
		b.notOurs(where, a.Names)
		p.sans = b.named(where, a.Names)
	} else {
		p.sans = b.exactly(where, a.Names)
	}
	c := b.commonTLS(p, alpn(l.Protocol)...)
	if !a.PresentSVID {
		c.TlsCertificateSdsSecretConfigs = nil
	}
	return b.socket(&tlsv3.UpstreamTlsContext{CommonTlsContext: c, Sni: a.SNI, MaxSessionKeys: wrapperspb.UInt32(0)})
}

// notOurs refuses names of the mesh's trust domain, for which no file's authority speaks.
func (b *builder) notOurs(where string, names []string) {
	for _, name := range names {
		if strings.HasPrefix(strings.ToLower(name)+"/", strings.ToLower(b.bundle())+"/") {
			b.fail(errOurName(where, name))
		}
	}
}

// servers are the names of which an authority of a file must vouch for one: those of the
// policy, else that by which the target is found. None is of the mesh's trust domain, for
// which no file's authority speaks.
func (b *builder) servers(target *mesh.VirtualNode, policy *mesh.ClientTLS) []*tlsv3.SubjectAltNameMatcher {
	where, names := "client policy for "+target.Name, policy.Servers
	if names == nil {
		if name := target.DiscoveredAs(); name != "" {
			names = []string{name}
		}
	}
	if len(names) == 0 {
		b.fail(errUnnamed(where))
	}
	b.notOurs(where, names)
	return b.named(where, names)
}

// named accepts certificates that have one of these names, exactly.
func (b *builder) named(where string, names []string) []*tlsv3.SubjectAltNameMatcher {
	if names != nil && len(names) == 0 {
		b.fail(errNoNames(where))
	}
	var ms []*tlsv3.SubjectAltNameMatcher
	for _, name := range names {
		of := tlsv3.SubjectAltNameMatcher_DNS
		if _, err := netip.ParseAddr(name); err == nil {
			of = tlsv3.SubjectAltNameMatcher_IP_ADDRESS
		} else if strings.Contains(name, "://") {
			of = tlsv3.SubjectAltNameMatcher_URI
		} else if strings.Contains(name, "@") {
			of = tlsv3.SubjectAltNameMatcher_EMAIL
		}
		ms = append(ms, &tlsv3.SubjectAltNameMatcher{SanType: of, Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: name}}})
	}
	return ms
}

// sni is the host that a target's spec names. It decides nothing: identity is
// the SPIFFE ID. It is there for what reads connections on the way.
func sni(n *mesh.VirtualNode) string {
	if n.DNS == nil {
		return ""
	}
	host := strings.TrimSuffix(n.DNS.Hostname, ".")
	if _, err := netip.ParseAddr(host); err == nil {
		return "" // RFC 6066 section 3: no literal addresses
	}
	return host
}

// serverTLS has TLS 1.3 only (D14) and secrets by SDS only (R10). It asks for no
// certificate: that is for a gateway's callers alone.
func (b *builder) serverTLS(certificate string, alpn ...string) *tlsv3.CommonTlsContext {
	return &tlsv3.CommonTlsContext{
		TlsParams: &tlsv3.TlsParameters{
			TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
			TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
			EcdhCurves:                b.keyExchanges(),
		},
		AlpnProtocols:                  alpn,
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{secret(certificate)},
	}
}

// commonTLS is serverTLS with a peer that is verified by its URI SAN.
func (b *builder) commonTLS(p peer, alpn ...string) *tlsv3.CommonTlsContext {
	c := b.serverTLS(p.certificate, alpn...)
	c.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
		CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext:         &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: p.sans},
			ValidationContextSdsSecretConfig: secret(p.trust),
		},
	}
	return c
}

// postQuantum is the hybrid key exchange that every connection of ours prefers
// (docs/decisions/021).
const postQuantum = "X25519MLKEM768"

// keyExchanges are offered and accepted in this order. Older peers fall back
// to the others, unless the mesh requires the first.
func (b *builder) keyExchanges() []string {
	if b.read.requiresPostQuantum(b.node.Mesh) {
		return []string{postQuantum}
	}
	return []string{postQuantum, "X25519", "P-256"}
}

func secret(name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: fromADS()}
}

func (b *builder) socket(context proto.Message) *corev3.TransportSocket {
	return &corev3.TransportSocket{
		Name:       tlsSocket,
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: b.any(context)},
	}
}

// exactly accepts these SPIFFE IDs. No list at all would accept anyone.
func (b *builder) exactly(where string, ids []string) []*tlsv3.SubjectAltNameMatcher {
	if len(ids) == 0 {
		b.fail(errNoNames(where))
	}
	var ms []*tlsv3.SubjectAltNameMatcher
	for _, id := range ids {
		ms = append(ms, uri(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: id}}))
	}
	return ms
}

func uri(m *matcherv3.StringMatcher) *tlsv3.SubjectAltNameMatcher {
	return &tlsv3.SubjectAltNameMatcher{SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: m}
}
