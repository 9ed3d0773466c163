package mesh

import "signet.example/proxy"

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

// secret is the name of what is presented, "" for the proxy's own SVID.
func (c *TLSFileCertificate) secret() string {
	return proxy.TLSFiles{Certificate: c.CertificateChain, Key: c.PrivateKey}.Name()
}

func (c *ListenerTLSCertificate) secret() string {
	switch {
	case c.File != nil:
		return c.File.secret()
	case c.SDS != nil:
		return c.SDS.SecretName
	}
	return ""
}

func (c *ClientTLSCertificate) secret() string {
	switch {
	case c == nil:
	case c.File != nil:
		return c.File.secret()
	case c.SDS != nil:
		return c.SDS.SecretName
	}
	return ""
}

// trustSecret is the name of what the other side is validated against, "" for the bundle
// of the trust domain.
func trustSecret(file *TLSFileTrust, sds *TLSSDSTrust) string {
	switch {
	case file != nil:
		return proxy.TLSFiles{Authorities: file.CertificateChain}.Name()
	case sds != nil:
		return sds.SecretName
	}
	return ""
}

// ofFiles reports whether a secret is made of files of a proxy's host.
func ofFiles(secret string) bool {
	_, ok := proxy.ParseTLSFiles(secret)
	return ok
}

// exact is the list of names, nil where there is none.
func (s *SubjectAlternativeNames) exact() []string {
	if s == nil {
		return nil
	}
	return s.Match.Exact
}
