package issuers_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"signet.example/server/issuers"
)

const jwksFormat = `{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":"%s","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`

// RFC 7517 5: most providers publish keys for encryption beside those for signatures.
func TestKeysOfASetThatCannotBeUsedLeaveTheOthers(t *testing.T) {
	set := strings.Replace(fmt.Sprintf(jwksFormat, "x"), "[", `[{"kty":"oct","k":"AAAA","kid":"unusable"},`, 1)
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(set)) }))
	defer idp.Close()
	got, _, err := issuers.Fetch(t.Context(), idp.URL)
	if err != nil || !strings.Contains(string(got), `"x"`) || strings.Contains(string(got), "unusable") {
		t.Errorf("%s, %v", got, err)
	}
}

func TestFetchingKeysGoesWhereTheOperatorSaidAndNowhereElse(t *testing.T) {
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintf(w, jwksFormat, "x") }))
	defer inside.Close()
	moved := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, inside.URL, http.StatusFound)
	}))
	defer moved.Close()
	huge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(strings.Repeat(" ", 2<<20)))
	}))
	defer huge.Close()
	if _, _, err := issuers.Fetch(t.Context(), inside.URL); err != nil {
		t.Errorf("a loopback address that was written out: %v", err)
	}
	port := inside.URL[strings.LastIndexByte(inside.URL, ':'):]
	for name, url := range map[string]string{
		"a redirect to another host":        moved.URL,
		"more than a megabyte":              huge.URL,
		"a file":                            "file:///etc/passwd",
		"a Unix socket":                     "unix:///run/x.sock",
		"the metadata service":              "http://169.254.169.254/latest",
		"the unspecified address":           "http://0.0.0.0" + port,
		"an address that no literal names":  "http://2130706433" + port,
		"a literal that maps to link-local": "http://[::ffff:169.254.169.254]/",
		"a path that answers with an error": inside.URL[:len(inside.URL)-1] + "0/none",
	} {
		t.Run(name, func(t *testing.T) {
			if b, _, err := issuers.Fetch(t.Context(), url); err == nil {
				t.Errorf("%s answered %d bytes", url, len(b))
			}
		})
	}
}

func TestAnIssuersRedirectStaysWithItsHostAndScheme(t *testing.T) {
	const from = "https://idp.example/keys"
	for to, good := range map[string]bool{
		"https://idp.example/keys/2": true, "http://idp.example/keys": false,
		"https://idp.example:8443/keys": false, "https://other.example/keys": false,
	} {
		a, err := url.Parse(from)
		if err != nil {
			t.Fatal(err)
		}
		b, err := url.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		if err := issuers.FollowsRedirect(a, b); (err == nil) != good {
			t.Errorf("%s: %v", to, err)
		}
	}
}

func TestAnIssuersNameLeadsToNoMetadataService(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "169.254.169.254": true, "fe80::1": true, "0.0.0.0": true, "::": true, "224.0.0.1": true,
		"100.100.100.200": true, "100.64.0.1": true, "192.0.0.192": true, "168.63.129.16": true, "255.255.255.255": true,
		"fd00:ec2::254": true, "fd20:ce::254": true, "fc00::1": true,
		"64:ff9b::a9fe:a9fe": true, "64:ff9b:1::a9fe:a9fe": true, "2002:a9fe:a9fe::1": true, "::169.254.169.254": true, "::ffff:169.254.169.254": true,
		"64:ff9b::6440:1": true, "64:ff9b::a83f:8110": true, "198.18.0.1": true, "240.0.0.1": true, "fec0::1": true, "100::1": true,
		// As other translators and tunnels write the metadata service's (A9-34).
		"2001:0:a9fe:a9fe::1": true, "2001:db8::5efe:a9fe:a9fe": true, "::ffff:0:169.254.169.254": true, "64:ff9b:1::c000:201": false, "2002:c000:201::1": false, "fc00::5efe:c000:201": true,
		"192.0.2.1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false, "64:ff9b::c000:201": false, "2001:db8::1": false, "2600::1": false,
	} {
		if got := issuers.Inside(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %t", address, got)
		}
	}
}
