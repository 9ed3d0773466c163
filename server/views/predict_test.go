package views

import "testing"

func TestAGatewaysRoutesSeeAHostWithoutItsPort(t *testing.T) {
	for authority, want := range map[string]string{
		"shop.example": "shop.example", "shop.example:8443": "shop.example", "shop.example.:8443": "shop.example", "shop.example.": "shop.example",
		"[2001:db8::1]:8443": "[2001:db8::1]", "[2001:db8::1]": "[2001:db8::1]", "10.0.0.1:80": "10.0.0.1",
	} {
		if got := withoutPort(authority); got != want {
			t.Errorf("%s: %q, want %q", authority, got, want)
		}
	}
}
