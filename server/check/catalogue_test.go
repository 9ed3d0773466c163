package check

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"signet.example/api"
)

// section of the catalogue: ## SIG001 warning: title
var section = regexp.MustCompile(`(?m)^## (SIG\d+) ([a-z, ]+): `)

func TestTheCataloguePageHasEveryFinding(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "CHECKS.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, m := range section.FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = m[2]
	}
	for id, of := range severities {
		var words []string
		for _, s := range of {
			words = append(words, api.Word(s))
		}
		if documented[id] != strings.Join(words, ", ") {
			t.Errorf("%s: the page says %q, the program %q", id, documented[id], words)
		}
		delete(documented, id)
	}
	for id := range documented {
		t.Errorf("the page has %s and the program does not", id)
	}
	for _, s := range strings.Split(string(page), "\n## ")[1:] {
		if !strings.Contains(s, "**Cause.**") || !strings.Contains(s, "**Fix.**") {
			t.Errorf("a section without cause or fix: %.40s", s)
		}
	}
}
