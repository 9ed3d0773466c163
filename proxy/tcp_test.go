package proxy_test

import (
	"strings"
	"testing"

	"signet.example/proxy"
)

func TestEachServiceHasAPlaceOfItsOwnBesideTheWayOut(t *testing.T) {
	one, two := at("127.0.0.2:15001"), at("127.0.0.3:15001")
	seen := map[string]string{}
	for _, e := range []proxy.Egress{one, two, at("[::1]:15001")} {
		for _, service := range []string{"db.shop.internal", "store.shop.internal"} {
			for _, port := range []uint32{5432, 6379} {
				for tries := range 3 {
					to := e.TCP(service, port, tries)
					if to != e.TCP(strings.ToUpper(service), port, tries) {
						t.Errorf("%s has two places beside %s", service, e)
					}
					if err := to.Validate(false); err != nil || uint32(to.Port()) != port || !to.Addr().IsLoopback() {
						t.Errorf("%s beside %s: %v", to, e, err)
					}
					key := e.String() + " " + service
					if other := seen[to.String()]; other != "" && other != key {
						t.Errorf("%s is for %s and for %s", to, other, key)
					}
					seen[to.String()] = key
				}
			}
		}
	}
	var s proxy.Shape
	socket(&s, "/run/out/web.sock", 0o600)
	for service, want := range map[string]string{
		"db.shop.internal":                 "/run/out/web.sock.db.shop.internal.5432",
		strings.Repeat("x", 80) + ".local": "/run/out/web.sock.7954bbeb.5432",
	} {
		to := s.Egress.TCP(service, 5432, 0)
		if to.Socket != want || to.Mode != 0o600 || !s.Egress.Beside(to.Socket) {
			t.Errorf("%s of mode %#o, want %s", to, to.Mode, want)
		}
	}
	for _, other := range []string{"/run/out/web.sock", "/run/out/other.sock.db.5432", "/run/out/web.sock./../x", "/run/out/web.sock.d/x"} {
		if s.Egress.Beside(other) {
			t.Errorf("%s is taken for one of its own", other)
		}
	}
	if one.Beside("/x") || one.Beside(".x") {
		t.Error("there are no sockets beside an address")
	}
}
