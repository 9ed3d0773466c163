package mesh

// The modes of a listener's TLS.
const (
	TLSDisabled   = "DISABLED"
	TLSPermissive = "PERMISSIVE"
	TLSStrict     = "STRICT"
)

// ListenerTLS is how a listener presents itself and whom it asks for a
// certificate. A listener without it is managed (D17).
type ListenerTLS struct {
	Mode        string                 `yaml:"mode" json:"mode" check:"required enum=DISABLED,PERMISSIVE,STRICT"`
	Certificate ListenerTLSCertificate `yaml:"certificate" json:"certificate" check:"required"`
	Validation  *ListenerTLSValidation `yaml:"validation,omitempty" json:"validation,omitempty"`
}

// ListenerTLSCertificate has exactly one member.
type ListenerTLSCertificate struct {
	ACM  *TLSACMCertificate  `yaml:"acm,omitempty" json:"acm,omitempty" check:"one"`
	File *TLSFileCertificate `yaml:"file,omitempty" json:"file,omitempty" check:"one"`
	SDS  *TLSSDSCertificate  `yaml:"sds,omitempty" json:"sds,omitempty" check:"one"`
}

// ListenerTLSValidation is what a listener demands of client certificates.
type ListenerTLSValidation struct {
	Trust                   ListenerTLSTrust         `yaml:"trust" json:"trust" check:"required"`
	SubjectAlternativeNames *SubjectAlternativeNames `yaml:"subjectAlternativeNames,omitempty" json:"subjectAlternativeNames,omitempty"`
}

// ListenerTLSTrust has exactly one member; the API gives listeners no acm.
type ListenerTLSTrust struct {
	File *TLSFileTrust `yaml:"file,omitempty" json:"file,omitempty" check:"one"`
	SDS  *TLSSDSTrust  `yaml:"sds,omitempty" json:"sds,omitempty" check:"one"`
}

// ClientPolicy is how a client speaks to a backend.
type ClientPolicy struct {
	TLS *ClientPolicyTLS `yaml:"tls,omitempty" json:"tls,omitempty"`
}

// ClientPolicyTLS is how a client validates a backend, and what it presents.
type ClientPolicyTLS struct {
	// Enforce defaults to true (AM-clientpolicy).
	Enforce     *bool                 `yaml:"enforce,omitempty" json:"enforce,omitempty"`
	Ports       []uint32              `yaml:"ports,omitempty" json:"ports,omitempty" check:"each.min=1 each.max=65535"`
	Certificate *ClientTLSCertificate `yaml:"certificate,omitempty" json:"certificate,omitempty"`
	Validation  TLSValidation         `yaml:"validation" json:"validation" check:"required"`
}

// ClientTLSCertificate has exactly one member.
type ClientTLSCertificate struct {
	File *TLSFileCertificate `yaml:"file,omitempty" json:"file,omitempty" check:"one"`
	SDS  *TLSSDSCertificate  `yaml:"sds,omitempty" json:"sds,omitempty" check:"one"`
}

// TLSValidation is what a client demands of a server's certificate. The CRD of
// VirtualGateway uses it for listeners as well.
type TLSValidation struct {
	Trust                   TLSTrust                 `yaml:"trust" json:"trust" check:"required"`
	SubjectAlternativeNames *SubjectAlternativeNames `yaml:"subjectAlternativeNames,omitempty" json:"subjectAlternativeNames,omitempty"`
}

// TLSTrust has exactly one member.
type TLSTrust struct {
	ACM  *TLSACMTrust  `yaml:"acm,omitempty" json:"acm,omitempty" check:"one"`
	File *TLSFileTrust `yaml:"file,omitempty" json:"file,omitempty" check:"one"`
	SDS  *TLSSDSTrust  `yaml:"sds,omitempty" json:"sds,omitempty" check:"one"`
}

// TLSACMCertificate means a Signet SVID (D17).
type TLSACMCertificate struct {
	CertificateARN string `yaml:"certificateARN" json:"certificateARN" check:"required len=1.."`
}

// TLSFileCertificate is a certificate and key on the proxy's file system.
type TLSFileCertificate struct {
	CertificateChain string `yaml:"certificateChain" json:"certificateChain" check:"required len=1..255"`
	PrivateKey       string `yaml:"privateKey" json:"privateKey" check:"required len=1..255"`
}

// TLSSDSCertificate is a certificate served by name; here a SPIFFE ID.
type TLSSDSCertificate struct {
	SecretName string `yaml:"secretName" json:"secretName" check:"required len=1.."`
}

// TLSACMTrust means Signet's bundle (D17).
type TLSACMTrust struct {
	CertificateAuthorityARNs []string `yaml:"certificateAuthorityARNs" json:"certificateAuthorityARNs" check:"required items=1..3 each.len=1.."`
}

// TLSFileTrust is a file of authorities on the proxy's file system.
type TLSFileTrust struct {
	CertificateChain string `yaml:"certificateChain" json:"certificateChain" check:"required len=1..255"`
}

// TLSSDSTrust is a bundle served by name; here a trust domain's ID.
type TLSSDSTrust struct {
	SecretName string `yaml:"secretName" json:"secretName" check:"required len=1.."`
}

// SubjectAlternativeNames lists who the other side may be.
type SubjectAlternativeNames struct {
	Match SubjectAlternativeNameMatchers `yaml:"match" json:"match" check:"required"`
}

// SubjectAlternativeNameMatchers match exactly; the API has nothing looser.
type SubjectAlternativeNameMatchers struct {
	Exact []string `yaml:"exact" json:"exact" check:"required items=1.. each.len=1..254"`
}

func (p *ClientPolicy) applyDefaults() {
	if p != nil && p.TLS != nil && p.TLS.Enforce == nil {
		yes := true
		p.TLS.Enforce = &yes
	}
}

// exact is the list of names, nil where there is none.
func (s *SubjectAlternativeNames) exact() []string {
	if s == nil {
		return nil
	}
	return s.Match.Exact
}
