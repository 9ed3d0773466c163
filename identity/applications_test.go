package identity_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
)

func TestABindingNamesWhoMayCallOut(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("test.example")
	build := func(list ...string) (identity.Binding, error) {
		return identity.BindingSpec{Group: "hosts", Mesh: "shop", VirtualNode: "web", Selectors: []string{"signet:proxy:web"}, Applications: list}.Build("web", td)
	}
	for _, list := range [][]string{nil, {"anyone"}, {"namespace"}, {"unix:uid:0"}, {"namespace", "unix:uid:33", "unix:uid:1000"}} {
		b, err := build(list...)
		if err != nil || !slices.Equal(b.Applications.Strings(), list) {
			t.Errorf("%q: %q, %v", list, b.Applications.Strings(), err)
			continue
		}
		plain, err := b.Plain(td)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := plain.Binding(td); err != nil || !slices.Equal(again.Applications.Strings(), list) {
			t.Errorf("%q travels as %q, %v", list, again.Applications.Strings(), err)
		}
	}
	for _, list := range [][]string{
		{""},
		{"unix:uid:"},
		{"unix:uid:01"},
		{"unix:uid:-1"},
		{"unix:uid:4294967296"},
		{"unix:gid:1"},
		{"unix:path:/bin/web"},
		{"unix:sha256:00"},
		{"unix:uid:1+unix:path:/bin/web"},
		{"signet:proxy:web"},
		{"everyone"},
		{"anyone", "unix:uid:1"},
		{"unix:uid:1", "unix:uid:1"},
		{"Anyone"},
	} {
		_, err := build(list...)
		if f, ok := errors.AsType[*identity.FieldError](err); !ok || f.Path[:len("spec.applications")] != "spec.applications" {
			t.Errorf("%q: %v", list, err)
		}
	}
	if a := (identity.Applications{UIDs: []uint32{1000}}); !a.Allows(1000) || a.Allows(0) || a.IsZero() || !(identity.Applications{}).IsZero() || (identity.Applications{}).Allows(0) {
		t.Error("who is named, and nobody else")
	}
}
