package server_test

import (
	"crypto/elliptic"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"signet.example/test/parts"
)

// A refusal that names NodeGroups sends its reader to the groups.
func TestARefusedJoinNamesNodeGroupsOnlyWhereTheyAreTheCause(t *testing.T) {
	r, authority := newRacks(t)
	below := authority.Authority("below", nil)
	noSign := authority.Authority("no signing", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	prove := func(ca *parts.HostCA, change func(*x509.Certificate), above ...*x509.Certificate) error {
		t.Helper()
		key := parts.ECKey(t, elliptic.P256())
		leaf := ca.Sign(key.Public(), nil, func(c *x509.Certificate) {
			c.Subject.CommonName = "rack-1"
			change(c)
		})
		return newHost(r).prove(parts.WriteHost(t, key, append([]*x509.Certificate{leaf}, above...)...))
	}
	asIs := func(*x509.Certificate) {}
	banned := newHost(r)
	certificate, key := authority.Host("rack-1")
	if err := banned.prove(certificate, key); err != nil {
		t.Fatal(err)
	}
	r.ban(banned.id)
	token := r.token("front")
	if err := newHost(r).attest(token); err != nil {
		t.Fatal(err)
	}
	other := newHost(r)
	elsewhere := other.evidence(other.connect(), certificate, key)
	for what, c := range map[string]struct {
		err  error
		want string
	}{
		"another authority":       {prove(parts.NewHostCA(t, "others"), asIs), "no root of this server's"},
		"its name, another key":   {prove(parts.NewHostCA(t, "racks"), asIs), "x509pop"},
		"no intermediate":         {prove(below, asIs), "put its certificate below the host's"},
		"an authority for no one": {prove(noSign, asIs, noSign.Cert), "keyCertSign"},
		"an expired certificate":  {prove(authority, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "expired"},
		"another connection's":    {other.send(other.connect(), elsewhere), "over this connection"},
		"a host that is banned":   {newHost(r).prove(certificate, key), "is banned"},
		"a token that was used":   {newHost(r).attest(token), "token"},
		"neither token nor proof": {newHost(r).attest(""), "not known here"},
	} {
		if c.err == nil || strings.Contains(c.err.Error(), "NodeGroup") || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v", what, c.err)
		}
	}
	groups := func(err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "NodeGroup") {
			t.Error(err)
		}
	}
	groups(prove(authority, func(c *x509.Certificate) { c.Subject.CommonName = "rack-9" }))
	r.apply(groupOf("more", "x509pop:subject:cn:rack-1"))
	groups(prove(authority, asIs))
}
