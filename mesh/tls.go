package mesh

// The modes of a listener's TLS.
const (
	TLSDisabled   = "DISABLED"
	TLSPermissive = "PERMISSIVE"
	TLSStrict     = "STRICT"
)

// TLSACMCertificate means a Signet SVID (D17).
type TLSACMCertificate struct {
	CertificateARN string `yaml:"certificateARN" json:"certificateARN" check:"required len=1.."`
}

// TLSACMTrust means Signet's bundle (D17).
type TLSACMTrust struct {
	CertificateAuthorityARNs []string `yaml:"certificateAuthorityARNs" json:"certificateAuthorityARNs" check:"required items=1..3 each.len=1.."`
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
