package docs

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"signet.example/test/parts"
)

// conforms are the kinds of rules of which docs/CONFORMANCE.md has every one.
var conforms = []string{"ID", "X509", "WAPI", "WEP", "JWT"}

var conformanceRow = regexp.MustCompile(`(?m)^\| ([A-Z0-9]+-\d{2}) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$`)

// TestEveryRuleOfSPIFFEHasItsRowAndItsTests holds docs/CONFORMANCE.md to the list of the
// rules: one row for each, in the list's order, with tests or with the reason why there is none.
// That the tests exist is TestPagesNameTestsThatExist's.
func TestEveryRuleOfSPIFFEHasItsRowAndItsTests(t *testing.T) {
	list, err := os.ReadFile(parts.Shared(t, "testdata", "spiffe-conformance", "spiffe-rules.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	levels := map[string]string{}
	for line := range strings.Lines(string(list)) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		kind, _, _ := strings.Cut(f[0], "-")
		if slices.Contains(conforms, kind) {
			want, levels[f[0]] = append(want, f[0]), f[3]
		}
	}
	if len(want) < 100 {
		t.Fatalf("the list has %d rules", len(want))
	}
	var have []string
	for _, m := range conformanceRow.FindAllStringSubmatch(read(t, "docs", "CONFORMANCE.md"), -1) {
		rule, level, proof := m[1], m[3], m[5]
		have = append(have, rule)
		if level != levels[rule] {
			t.Errorf("%s is a %s there, and a %s in the list", rule, level, levels[rule])
		}
		why := strings.HasPrefix(proof, "not yet: ") || strings.HasPrefix(proof, "nobody here: ")
		if testName.MatchString(proof) == why {
			t.Errorf("%s: want tests in backquotes, or `not yet: ` or `nobody here: ` and the reason; got %q", rule, proof)
		}
		named := map[string]bool{}
		for _, n := range testName.FindAllStringSubmatch(proof, -1) {
			if named[n[1]] {
				t.Errorf("%s names %s twice", rule, n[1])
			}
			named[n[1]] = true
		}
	}
	if !slices.Equal(have, want) {
		for _, rule := range want {
			if n := count(have, rule); n != 1 {
				t.Errorf("docs/CONFORMANCE.md has %d rows of %s, want 1", n, rule)
			}
		}
		t.Errorf("docs/CONFORMANCE.md has %d rows, the list %d rules, or not in one order", len(have), len(want))
	}
}

func count(list []string, of string) (n int) {
	for _, s := range list {
		if s == of {
			n++
		}
	}
	return n
}
