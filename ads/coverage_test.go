package ads_test

import (
	"os"
	"strings"
	"testing"

	"signet.example/test/parts"
)

// elsewhere are the rules of the shared table that rules does not hold, and why.
var elsewhere = map[string]string{
	"XDS-15": "fuzz_test.go checks every response for names that occur twice",
	"XDS-24": "test/ads, with a real Envoy under load",
	"XDS-25": "test/ads, a cluster changed in place",
	"XDS-28": "no resource has a TTL",
	"XDS-29": "no resource has aliases: VHDS and on-demand discovery are not served",
}

func TestEveryRuleOfTheSharedTableIsTestedOrExplained(t *testing.T) {
	table, err := os.ReadFile(parts.Shared(t, "testdata", "xds-conformance", "xds-rules.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	tested := make(map[string]bool)
	for _, r := range rules {
		tested[r.id] = true
	}
	n := 0
	for line := range strings.Lines(string(table)) {
		id, _, _ := strings.Cut(line, "\t")
		if !strings.HasPrefix(id, "XDS-") {
			continue
		}
		n++
		if !tested[id] && elsewhere[id] == "" {
			t.Errorf("rule %s has no test", id)
		}
	}
	if n < 30 {
		t.Errorf("the table has %d rules", n)
	}
}
