package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"signet.example/test/parts"
)

var (
	testName = regexp.MustCompile("`((?:Test|Fuzz)[A-Z][A-Za-z0-9]+)`")
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Z][A-Za-z0-9]+)\(`)
)

// TestPagesNameTestsThatExist: a promise whose test is gone is no promise.
func TestPagesNameTestsThatExist(t *testing.T) {
	exist := map[string]bool{}
	err := filepath.WalkDir(parts.Root(), func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != parts.Root():
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		content, err := os.ReadFile(path)
		for _, m := range testFunc.FindAllStringSubmatch(string(content), -1) {
			exist[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, page := range []string{"README.md", "SECURITY.md", "docs/FINDINGS.md", "docs/DEVIATIONS.md", "docs/APPMESH.md", "docs/POLICY.md"} {
		for _, m := range testName.FindAllStringSubmatch(read(t, page), -1) {
			if named++; !exist[m[1]] {
				t.Errorf("%s names %s, which is no test", page, m[1])
			}
		}
	}
	if named < 10 {
		t.Errorf("the pages name %d tests", named)
	}
}

var findingRow = regexp.MustCompile(`(?m)^\| [SUC][0-9]+[a-z]? \|.*$`)

// TestEveryFindingHasATest holds the list to its purpose.
func TestEveryFindingHasATest(t *testing.T) {
	rows := findingRow.FindAllString(read(t, "docs", "FINDINGS.md"), -1)
	if len(rows) < 2 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		if cells := strings.Split(row, "|"); len(cells) != 6 || !strings.Contains(cells[4], "`") {
			t.Errorf("this row names no test: %s", row)
		}
	}
}
