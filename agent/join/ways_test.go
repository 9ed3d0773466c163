package join

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signet.example/agent/svids/svidstest"
	"signet.example/attestation/jointoken"
	"signet.example/attestation/k8spsat"
	"signet.example/attestation/nodes"
	"signet.example/attestation/x509pop"
	"signet.example/test/parts"
)

func TestAHostJoinsByATokenOrByEvidenceOfItsOwn(t *testing.T) {
	authority := parts.NewHostCA(t, "hosts")
	certificate, key := authority.Host("web-01")
	own := nodes.HostConfig{X509PoP: x509pop.Host{Certificate: certificate, Key: key}}
	root, other := parts.NewHostCA(t, "root"), parts.NewHostCA(t, "root")
	trust := parts.WriteCerts(t, root.Cert)
	pin := sha256.Sum256(root.Cert.RawSubjectPublicKeyInfo)
	token, err := jointoken.New(pin[:])
	if err != nil {
		t.Fatal(err)
	}
	wide := parts.WriteCerts(t, root.Cert)
	if err := os.Chmod(wide, 0o666); err != nil {
		t.Fatal(err)
	}
	rootPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Cert.Raw})
	otherPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.Cert.Raw})
	given := func(w Ways) Ways { w.environment = token.Reveal(); return w }
	for name, c := range map[string]struct {
		ways Ways
		want string // of the error; "" for none
	}{
		"a token":                             {given(Ways{}), ""},
		"a token, and the root that it pins":  {given(Ways{Trust: trust}), ""},
		"a token of another trust domain":     {given(Ways{Trust: parts.WriteCerts(t, other.Cert)}), "another trust domain"},
		"a certificate":                       {Ways{Own: own, Trust: trust}, ""},
		"both":                                {given(Ways{Own: own, Trust: trust}), "leave one of them out"},
		"neither":                             {Ways{Trust: trust}, "signet token create"},
		"no such certificate":                 {Ways{Own: nodes.HostConfig{X509PoP: x509pop.Host{Certificate: "/no/such", Key: key}}, Trust: trust}, "join.x509pop.certificate: "},
		"a certificate, and the root as text": {Ways{Own: own, TrustPEM: string(rootPEM)}, ""},
		"a token, and another root as text":   {given(Ways{TrustPEM: string(otherPEM)}), "another trust domain than the root in trust_pem"},
		"text that is no root":                {Ways{Own: own, TrustPEM: "root"}, "trust_pem: want one certificate"},
		"no such root":                        {Ways{Own: own, Trust: "/no/such"}, "trust: "},
		"two roots":                           {Ways{Own: own, Trust: parts.WriteCerts(t, root.Cert, other.Cert)}, "trust: "},
		"no authority":                        {Ways{Own: own, Trust: certificate}, "trust: "},
		"no certificate":                      {Ways{Own: own, Trust: key}, "trust: "},
		"a root that others can replace":      {Ways{Own: own, Trust: wide}, "trust: "},
	} {
		how, err := c.ways.read()
		if c.want == "" && (err != nil || !bytes.Equal(how.pin, pin[:]) || how.evidence == nil) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %x, %v", name, how.pin, err)
		}
	}
}

// A pod's token for another audience was good for `signet agent --check`, and shown to nobody later.
func TestAPodsTokenForAnotherAudienceIsRefusedByTheCheck(t *testing.T) {
	c, root := parts.NewCluster(t), svidstest.NewRoot(t)
	pemOf := func(cert *x509.Certificate) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	says, silent := pemOf(root.Cert), pemOf(parts.NewHostCA(t, "root").Cert) // of which trust domain they are
	pod := parts.Pod{Namespace: "shop", ServiceAccount: "web", Name: "web-1", UID: "4f1c0c2e-6f0e-4ac1-9d1a-0f8f6f1f7d11"}
	const cluster = "https://kubernetes.default.svc.cluster.local"
	for name, x := range map[string]struct {
		audience, trust, domain string
		want                    []string // of the error; none for none
	}{
		"the server's":                                     {"signet:test.example", says, "", nil},
		"the server's, by the configuration":               {"signet:test.example", silent, "test.example", nil},
		"some server's":                                    {"signet:test.example", silent, "", nil},
		"the cluster's":                                    {cluster, says, "", []string{"join.k8s_psat.token_file: ", `it is for "` + cluster + `"`, "for signet:test.example alone", `serviceAccountToken: {audience: "signet:test.example"`}},
		"the cluster's, of an unknown trust domain":        {cluster, silent, "", []string{"for signet:<trust domain> alone"}},
		"another trust domain's":                           {"signet:other.example", says, "", []string{"for signet:test.example alone"}},
		"another trust domain's than in the configuration": {"signet:other.example", silent, "test.example", []string{"for signet:test.example alone"}},
		"a root of another trust domain":                   {"signet:other.example", says, "other.example", []string{"trust_domain: it is other.example, and the root in trust_pem is that of test.example"}},
	} {
		token := c.Project(c.Sign(c.Claims(pod, x.audience)))
		err := Ways{Own: nodes.HostConfig{K8sPSAT: k8spsat.Host{TokenFile: token}}, TrustPEM: x.trust}.Check(x.domain, time.Now())
		if (err == nil) != (x.want == nil) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, want := range x.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", name, err, want)
			}
		}
	}
}

func TestTheTokenComesFromFileInputOrEnvironment(t *testing.T) {
	token, err := jointoken.New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token.Reveal()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Ways{"file": {TokenFile: file}, "input": {TokenFile: "-"}, "environment": {}} {
		t.Setenv(tokenEnv, token.Reveal())
		source, err := c.Take(strings.NewReader(token.Reveal() + "\nmore\n"))
		got, rerr := source.token()
		if err != nil || rerr != nil || got != token || !source.given() {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, ok := os.LookupEnv(tokenEnv); ok {
		t.Error("children would inherit the token")
	}
	if _, err := (Ways{stdin: strings.NewReader("")}).token(); !errors.Is(err, ErrNoToken) || !strings.Contains(err.Error(), "signet token create") {
		t.Errorf("without a token: %v", err)
	}
	if _, err := (Ways{TokenFile: "-", stdin: strings.NewReader("sgt1.hunter2")}).token(); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error of a bad token: %v", err)
	}
}
