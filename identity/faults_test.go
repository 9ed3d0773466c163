package identity_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/identity"
)

func TestAllFaultsOfASpecAreToldAtOnce(t *testing.T) {
	fields := func(err error) []string {
		var list []string
		for _, f := range identity.FieldErrors(err) {
			list = append(list, f.Path)
		}
		return list
	}
	_, entry := identity.EntrySpec{
		Group: "a/b", VirtualNode: &identity.VirtualNodeName{Mesh: "..", Name: ""},
		Selectors: []string{"unix:uid:1", "unix:pth:/x", "unix:uid:1"}, TTL: "99h",
	}.Build("web", td)
	_, binding := identity.BindingSpec{Applications: []string{"nobody"}}.Build("", td)
	_, issuer := identity.JWTIssuerSpec{AudienceClaim: "sub"}.Build("login", td)
	_, source := identity.PolicySourceSpec{URL: "ext::sh", Path: "../x", Branch: "a", Tag: "b", Poll: "1ms"}.Build("policy", td)
	for _, c := range []struct{ got, want []string }{
		{fields(entry), []string{"spec.group", "spec.virtualNode.mesh", "spec.virtualNode.name", "spec.selectors[1]", "spec.selectors[2]", "spec.ttl"}},
		{fields(binding), []string{"metadata.name", "spec.group", "spec.mesh", "spec.virtualNode", "spec.selectors", "spec.applications[0]"}},
		{fields(issuer), []string{"spec.issuer", "spec.audiences", "spec.audienceClaim", "spec.jwksURL"}},
		{fields(source), []string{"spec.tag", "spec.url", "spec.path", "spec.poll"}},
	} {
		if d := cmp.Diff(c.want, c.got); d != "" {
			t.Error(d)
		}
	}
}
