package proxy_test

import (
	"strings"
	"testing"

	"signet.example/proxy"
)

func TestNodeIDsAreReadInBothForms(t *testing.T) {
	for in, want := range map[string][2]string{
		proxy.Node("m", "n").String():                                             {"m", "n"},
		"mesh/m/virtualNode/n_default":                                            {"m", "n_default"},
		"arn:aws:appmesh:eu-west-1:123456789012:mesh/m/virtualNode/n":             {"m", "n"},
		"arn:aws-cn:appmesh-preview:cn-north-1:123456789012:mesh/m/virtualNode/n": {"m", "n"},
	} {
		if r, err := proxy.ParseRef(in); err != nil || r != proxy.Node(want[0], want[1]) {
			t.Errorf("%s: %v %v", in, r, err)
		}
	}
	if r, err := proxy.ParseRef("mesh/m/virtualGateway/n"); err != nil || r != proxy.For("m", "n", true) || r.String() != "mesh/m/virtualGateway/n" {
		t.Errorf("a gateway: %v %v", r, err)
	}
	for _, in := range []string{
		"", "m/n", "mesh/m/virtualNode/", "mesh//virtualNode/n", "mesh/m/virtualRouter/n", "mesh/m/virtualNode/n/x",
		"arn:aws:ecs:eu-west-1:1:mesh/m/virtualNode/n", "arn:aws:appmesh:mesh/m/virtualNode/n", "/mesh/m/virtualNode/n", strings.Repeat("x", 2000),
	} {
		if r, err := proxy.ParseRef(in); err == nil {
			t.Errorf("%q was read as %v", in, r)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	f.Add("mesh/m/virtualNode/n")
	f.Add("mesh/m/virtualGateway/n")
	f.Add("arn:aws:appmesh:eu-west-1:1:mesh/m/virtualNode/n")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := proxy.ParseRef(s)
		if err != nil {
			return
		}
		if again, err := proxy.ParseRef(r.String()); err != nil || again != r {
			t.Errorf("%q: %v, again %v %v", s, r, again, err)
		}
	})
}
