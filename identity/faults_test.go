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
		Selectors: []string{"unix:uid:1", "unix", "unix:uid:1"}, TTL: "99h",
	}.Build("web", td)
	_, binding := identity.BindingSpec{Applications: []string{"nobody"}}.Build("", td)
	for _, c := range []struct{ got, want []string }{
		{fields(entry), []string{"spec.group", "spec.virtualNode.mesh", "spec.virtualNode.name", "spec.selectors[1]", "spec.selectors[2]", "spec.ttl"}},
		{fields(binding), []string{"metadata.name", "spec.group", "spec.mesh", "spec.virtualNode", "spec.selectors", "spec.applications[0]"}},
	} {
		if d := cmp.Diff(c.want, c.got); d != "" {
			t.Error(d)
		}
	}
}
