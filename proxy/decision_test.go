package proxy_test

import (
	"testing"

	"signet.example/proxy"
)

func TestDecisionIDsHaveOneForm(t *testing.T) {
	const want = "0b6f5c2a9a534c418e3f0123456789ab"
	for _, s := range []string{want, "0b6f5c2a-9a53-4c41-8e3f-0123456789ab", " 0B6F5C2A9A534C418E3F0123456789AB\n"} {
		if id, ok := proxy.ParseDecisionID(s); !ok || id != want {
			t.Errorf("%q: got %q, %v", s, id, ok)
		}
	}
	for _, s := range []string{"", "0b6f", want + "0", "zb6f5c2a9a534c418e3f0123456789ab"} {
		if id, ok := proxy.ParseDecisionID(s); ok {
			t.Errorf("%q was read as %q", s, id)
		}
	}
}
