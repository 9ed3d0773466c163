package authz_test

import (
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"signet.example/authz"
)

func FuzzCheckRequest(f *testing.F) {
	fix := newFixture(f, withJWT)
	for _, q := range []*authv3.CheckRequest{
		fix.question("GET", "/orders/1", web), fix.question("GET", "/admin", web, "x-role: admin"),
		{},
		fix.question("POST", "/x?a=b", "", "authorization: Bearer a.b.c"),
	} {
		b, err := proto.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var q authv3.CheckRequest
		if proto.Unmarshal(b, &q) != nil {
			return
		}
		resp, err := fix.Check(asked(t.Context()), &q)
		if err != nil || (resp.GetOkResponse() == nil) == (resp.GetDeniedResponse() == nil) {
			t.Fatalf("%v %v", resp, err)
		}
		r := fix.last()
		fix.records = fix.records[:0]
		if r.Allowed != (resp.GetOkResponse() != nil) || r.Allowed && (len(r.Rules) == 0 || strings.Contains(r.Path, "admin") && strings.HasPrefix(r.Path, "/admin/")) {
			t.Fatalf("%+v", r)
		}
	})
}

func FuzzToken(f *testing.F) {
	valid := sign(keys()["rsa"], rs256, good().json())
	for _, s := range []string{valid, "a.b.c", "..", sign(keys()["ec"], `{"alg":"ES256","kid":"ec"}`, `{"iss":"https://id.example"}`)} {
		f.Add(s)
	}
	verify := authz.TokenVerifier(issuers())
	f.Fuzz(func(t *testing.T, s string) {
		if err := verify(s, noon); err == nil && s != valid {
			t.Fatal("accepted")
		}
	})
}
