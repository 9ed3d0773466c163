package identity_test

import (
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/identity"
)

var td = spiffeid.RequireTrustDomainFromString("prod.example")

func TestNamesOfTheMeshBecomeSPIFFEIDs(t *testing.T) {
	for want, make := range map[string]func() (spiffeid.ID, error){
		"spiffe://prod.example/shop/web":         func() (spiffeid.ID, error) { return identity.ForVirtualNode(td, "shop", "web") },
		"spiffe://prod.example/shop/web_default": func() (spiffeid.ID, error) { return identity.ForVirtualNode(td, "shop", "web_default") },
		"spiffe://prod.example/Signet/web":       func() (spiffeid.ID, error) { return identity.ForVirtualNode(td, "Signet", "web") },
		"spiffe://prod.example/signet/agent/a-1": func() (spiffeid.ID, error) { return identity.ForAgent(td, "a-1") },
		"spiffe://prod.example/signet/server/s1": func() (spiffeid.ID, error) { return identity.ForServer(td, "s1") },
	} {
		id, err := make()
		if err != nil || id.String() != want {
			t.Errorf("got %q, %v, want %q", id, err, want)
		}
	}
}

func TestMeshNamedSignetIsRefused(t *testing.T) {
	if id, err := identity.ForVirtualNode(td, "signet", "web"); err == nil {
		t.Errorf("got %q", id)
	}
}

// A12: what an attestor or a manifest names must not climb or split.
func TestNamesThatAreNoPathSegmentAreRefused(t *testing.T) {
	for _, name := range []string{"", ".", "..", "../b", "a/b", "%2f", "a%2fb", "a\x00b", "a b", "a\n", "*", "a|b", "a`b", "ä", strings.Repeat("a", 4096)} {
		if id, err := identity.ForAgent(td, name); err == nil {
			t.Errorf("agent %q: got %q", name, id)
		}
		if id, err := identity.ForVirtualNode(td, name, "web"); err == nil {
			t.Errorf("mesh %q: got %q", name, id)
		}
		if id, err := identity.ForVirtualNode(td, "shop", name); err == nil {
			t.Errorf("node %q: got %q", name, id)
		}
	}
	if id, err := identity.ForAgent(spiffeid.TrustDomain{}, "a"); err == nil {
		t.Errorf("no trust domain: got %q", id)
	}
}

// SPIFFE-ID 2.3.
func TestIDOf2048BytesIsTakenAndOf2049Refused(t *testing.T) {
	base := "spiffe://prod.example/"
	fits := base + strings.Repeat("a", 2048-len(base))
	if id, err := identity.ParseID(fits); err != nil || id.String() != fits {
		t.Errorf("2048 bytes: %v", err)
	}
	if _, err := identity.ParseID(fits + "a"); err == nil {
		t.Error("2049 bytes were taken")
	}
	if _, err := identity.ForAgent(td, strings.Repeat("a", 2048-len(base+"signet/agent/")+1)); err == nil {
		t.Error("a made ID of 2049 bytes was taken")
	}
	if _, err := identity.ParseID("spiffe://" + strings.Repeat("a", 256) + "/web"); err == nil {
		t.Error("a trust domain of 256 bytes was taken")
	}
}

// SPIFFE-ID 2, 2.1 and 2.2 (rules ID-01 to ID-11 of the conformance list).
func TestParseIDDecidesAsSPIFFEWordsIt(t *testing.T) {
	for _, good := range []string{
		"spiffe://prod.example", "spiffe://prod.example/a", "spiffe://prod.example/...", "spiffe://10.0.0.1/a",
		"spiffe://a_b-c.d/A.b_c-9/x", "spiffe://1/a", "spiffe://prod.example/a.b",
	} {
		if id, err := identity.ParseID(good); err != nil || id.String() != good {
			t.Errorf("%s: %q, %v", good, id, err)
		}
	}
	for rule, bads := range map[string][]string{
		"ID-01 scheme, trust domain, no query or fragment": {"", "spiffe", "SPIFFE://a/b", "Spiffe://a/b", "http://a/b", "spiffe:/a/b", "spiffe:a", " spiffe://a/b", "spiffe://a/b?q", "spiffe://a/b#f", "spiffe://a?", "spiffe://a#"},
		"ID-02 empty host":                  {"spiffe://", "spiffe:///web"},
		"ID-03 userinfo and port":           {"spiffe://u@a/b", "spiffe://u:p@a/b", "spiffe://a:443/b", "spiffe://a:/b"},
		"ID-04 lower case":                  {"spiffe://Prod.example/a"},
		"ID-05 characters of the host":      {"spiffe://a~b/c", "spiffe://ä/c", "spiffe://[::1]/c", "spiffe://a b/c"},
		"ID-06 percent in the host":         {"spiffe://a%61/c"},
		"ID-08 percent in the path":         {"spiffe://a/%61", "spiffe://a/b%2fc"},
		"ID-09 empty and relative segments": {"spiffe://a//b", "spiffe://a/./b", "spiffe://a/../b", "spiffe://a/b/..", "spiffe://a/b/."},
		"ID-10 trailing slash":              {"spiffe://a/", "spiffe://a/b/"},
		"ID-11 characters of the path":      {"spiffe://a/b c", "spiffe://a/ä", "spiffe://a/b*", "spiffe://a/b~", "spiffe://a/b\n", "spiffe://a/b\x00", "spiffe://a/b|c", "spiffe://a/b;c", "spiffe://a/b\\c"},
	} {
		for _, bad := range bads {
			if id, err := identity.ParseID(bad); err == nil {
				t.Errorf("%s: %q gave %q", rule, bad, id)
			}
		}
	}
}

func TestTrustDomainIsANameAndNoURI(t *testing.T) {
	for _, good := range []string{"prod.example", "a", "10.0.0.1", "a_b-c"} {
		if got, err := identity.ParseTrustDomain(good); err != nil || got.Name() != good {
			t.Errorf("%s: %q, %v", good, got, err)
		}
	}
	for _, bad := range []string{"", "spiffe://a", "a:443", "A", "a/b", "..", ".", ".a", "a.", "a..b", "a%61", "a b", strings.Repeat("a", 256)} {
		if got, err := identity.ParseTrustDomain(bad); err == nil {
			t.Errorf("%q gave %q", bad, got)
		}
	}
}

func TestReservedIsSignetAndAllUnderItAndNothingElse(t *testing.T) {
	for path, want := range map[string]bool{
		"/signet": true, "/signet/agent/a": true, "/signet/x": true,
		"": false, "/signets": false, "/shop/signet": false, "/Signet/a": false, "/signet.x/a": false,
	} {
		if got := identity.IsReserved(spiffeid.RequireFromPath(td, path)); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

func TestAgentIDIsTheLastSegmentOfAnAgentsID(t *testing.T) {
	for path, want := range map[string]string{
		"/signet/agent/a-1": "a-1", "/signet/agent": "", "/signet/agent/a/b": "", "/signet/server/a": "", "/shop/agent/a": "", "": "",
	} {
		got, ok := identity.AgentID(spiffeid.RequireFromPath(td, path))
		if got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v", path, got, ok)
		}
	}
	if name, ok := identity.ServerName(spiffeid.RequireFromPath(td, "/signet/server/s1")); !ok || name != "s1" {
		t.Errorf("server: %q, %v", name, ok)
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("spiffe://prod.example/shop/web")
	f.Add("spiffe://a/../b")
	f.Add("SPIFFE://a%2f:1/é?#")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := identity.ParseID(s)
		if err != nil {
			return
		}
		if id.String() != s || strings.ContainsAny(s, "%?#@\\ \x00") || strings.Contains(s, "/../") {
			t.Errorf("%q was taken as %q", s, id)
		}
	})
}
