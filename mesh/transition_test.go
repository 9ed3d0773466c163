package mesh_test

import (
	"testing"

	"signet.example/mesh"
)

func TestPlaintextBecomesStrictOnlyThroughPermissive(t *testing.T) {
	node := func(mode string) *mesh.VirtualNodeSpec {
		l := mesh.VirtualNodeListener{PortMapping: mesh.PortMapping{Port: 80, Protocol: "http"}}
		if mode != "" {
			l.TLS = &mesh.ListenerTLS{Mode: mode}
		}
		return &mesh.VirtualNodeSpec{Listeners: []mesh.VirtualNodeListener{l}}
	}
	refused := map[[2]string]bool{{mesh.TLSDisabled, mesh.TLSStrict}: true, {mesh.TLSStrict, mesh.TLSDisabled}: true}
	modes := []string{"", mesh.TLSDisabled, mesh.TLSPermissive, mesh.TLSStrict}
	for _, old := range modes {
		for _, to := range modes {
			errs := mesh.CheckTransition(node(old), node(to))
			if want := refused[[2]string{old, to}]; (len(errs) > 0) != want {
				t.Errorf("%q to %q: refused %v, want %v", old, to, errs, want)
			}
			for _, e := range errs {
				if e.Field != "spec.listeners[0].tls.mode" {
					t.Errorf("names %s", e.Field)
				}
			}
		}
	}
	if mesh.CheckTransition(nil, node(mesh.TLSStrict)) != nil || mesh.CheckTransition(node(mesh.TLSStrict), nil) != nil {
		t.Error("a node that comes or goes is refused")
	}
	other := node(mesh.TLSStrict)
	other.Listeners[0].PortMapping.Port = 81
	if mesh.CheckTransition(node(mesh.TLSDisabled), other) != nil {
		t.Error("a listener on another port is refused")
	}
}
