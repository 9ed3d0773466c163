package identity_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rules says for each MUST and SHOULD of SPIFFE-ID and X509-SVID which test of
// this package shows it, or why it is not this package's.
var rules = map[string]string{
	"ID-01": "TestParseIDDecidesAsSPIFFEWordsIt", "ID-02": "TestParseIDDecidesAsSPIFFEWordsIt",
	"ID-03": "TestParseIDDecidesAsSPIFFEWordsIt", "ID-04": "TestParseIDDecidesAsSPIFFEWordsIt",
	"ID-05": "TestParseIDDecidesAsSPIFFEWordsIt", "ID-06": "TestParseIDDecidesAsSPIFFEWordsIt",
	"ID-07": "TestParseIDDecidesAsSPIFFEWordsIt", // an IP address is a name like another
	"ID-08": "TestParseIDDecidesAsSPIFFEWordsIt", "ID-09": "TestParseIDDecidesAsSPIFFEWordsIt",
	"ID-10": "TestParseIDDecidesAsSPIFFEWordsIt", "ID-11": "TestParseIDDecidesAsSPIFFEWordsIt",
	"ID-12": "TestIDOf2048BytesIsTakenAndOf2049Refused",
	"ID-13": "elsewhere: ca makes the signing certificates",
	"ID-14": "TestSigningCertificatesAreHeldToTheirRules",
	"ID-15": "elsewhere: X.509 signs the whole certificate",
	"ID-16": "elsewhere: X509-SVID is the only document type here",

	"X509-01": "TestBadLeafIsRefused", "X509-02": "TestBadLeafIsRefused", "X509-03": "TestBadLeafIsRefused",
	"X509-04": "TestBadLeafIsRefused",
	"X509-05": "elsewhere: ca makes the signing certificates",
	"X509-06": "TestSigningCertificatesAreHeldToTheirRules",
	"X509-07": "TestTrustDomainsAreNotConfused",
	"X509-08": "TestSigningCertificatesAreHeldToTheirRules", "X509-09": "TestSigningCertificatesAreHeldToTheirRules",
	"X509-10": "TestBadLeafIsRefused", "X509-11": "TestSigningCertificatesAreHeldToTheirRules",
	"X509-12": "TestBadLeafIsRefused", "X509-13": "TestBadLeafIsRefused",
	"X509-14": "TestGoodLeafIsTaken", "X509-15": "TestBadLeafIsRefused",
	"X509-16": "TestVerifyChainDecidesEveryHostileChainAsSPIFFEWordsIt",
	"X509-17": "TestBadLeafIsRefused", "X509-18": "TestBadLeafIsRefused", "X509-19": "TestBadLeafIsRefused",
	"X509-20": "elsewhere: no SPIFFE bundle document is published yet", "X509-21": "elsewhere: as X509-20",
	"X509-22": "elsewhere: as X509-20", "X509-23": "elsewhere: as X509-20",
	"X509-24": "elsewhere: as X509-20", "X509-25": "elsewhere: as X509-20",
}

func TestEveryRuleOfSPIFFEIDAndX509SVIDHasItsTest(t *testing.T) {
	list, err := os.ReadFile(shared(t, "spiffe-conformance/spiffe-rules.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	sources := testSources(t)
	seen := 0
	for line := range strings.Lines(string(list)) {
		rule, _, _ := strings.Cut(line, "\t")
		if !strings.HasPrefix(rule, "ID-") && !strings.HasPrefix(rule, "X509-") {
			continue
		}
		seen++
		where := rules[rule]
		if where == "" {
			t.Errorf("%s has no test: %s", rule, strings.TrimSpace(line))
		}
		if !strings.HasPrefix(where, "elsewhere: ") && !strings.Contains(sources, "func "+where+"(") {
			t.Errorf("%s: there is no %s", rule, where)
		}
	}
	if seen != len(rules) {
		t.Errorf("%d rules in the list, %d here", seen, len(rules))
	}
}

func testSources(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(raw)
	}
	return all.String()
}
