package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
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
	for _, page := range []string{"README.md", "SECURITY.md", "docs/AGENT.md", "docs/FINDINGS.md", "docs/DEVIATIONS.md", "docs/APPMESH.md", "docs/POLICY.md", "docs/PROMISES.md", "docs/CONFORMANCE.md"} {
		for _, m := range testName.FindAllStringSubmatch(read(t, page), -1) {
			if named++; !exist[m[1]] {
				t.Errorf("%s names %s, which is not a test", page, m[1])
			}
		}
	}
	if named < 10 {
		t.Errorf("the pages name %d tests", named)
	}
}

// findingID is a letter (A3 for the third attack, N4 and N7 for who is new to it), a number and, where two findings share them, a letter or
// a word that tells them apart; PQ is older than this.
var findingID = regexp.MustCompile(`^(?:([SUC]|A3-|A5-|A6-|A7-|A9-|N4-|N7-|N11-|N14-|N15-|N16-|N17-|N18-|N19-|H5-)([0-9]+)([a-z]?(?: \([^|]+\))?)|PQ)$`)

// TestFindingsAreOneTableWithOneRowAnID: a second header in a table is not rendered,
// and of two rows with one id only one is kept true.
func TestFindingsAreOneTableWithOneRowAnID(t *testing.T) {
	_, table, found := strings.Cut(read(t, "docs", "FINDINGS.md"), "\n\n| id | what was wrong | kind | test |\n|---|---|---|---|\n")
	if !found {
		t.Fatal("the table has no header")
	}
	rows := strings.Split(strings.TrimSpace(table), "\n")
	if len(rows) < 2 {
		t.Fatalf("%d rows", len(rows))
	}
	last, seen := "", map[string]bool{}
	for _, row := range rows {
		cells := strings.Split(row, "|")
		if len(cells) != 6 || cells[0] != "" || cells[5] != "" {
			t.Errorf("this is not a row of the one table: %s", row)
			continue
		}
		id := strings.TrimSpace(cells[1])
		m := findingID.FindStringSubmatch(id)
		if m == nil {
			t.Errorf("%q is not an id", id)
			continue
		}
		if seen[id] {
			t.Errorf("%s stands twice", id)
		}
		seen[id] = true
		place := "z" // after the others
		if m[1] != "" {
			number, _ := strconv.Atoi(m[2]) // digits
			place = fmt.Sprintf("%02d %04d %s", strings.Index("SUCA3-A5-A6-A7-A9-N4-N7-N11-N14-N15-N16-N17-N18-N19-H5-", m[1]), number, m[3])
		}
		if place < last {
			t.Errorf("%s is out of order: S, U, C, A3, A5, A6, A7, A9, N4, N7, N11, N14, N15, N16, N17, N18, N19, H5, each by number and word", id)
		}
		last = place
		if !strings.Contains(cells[4], "`") && !strings.Contains(cells[4], "none; [decision") {
			t.Errorf("%s names no test, and no decision that says why not", id)
		}
		for _, bare := range bareTest.FindAllString(cells[4], -1) {
			t.Errorf("%s: %s is not in backquotes, so that nothing checks that it exists", id, bare)
		}
	}
}

var bareTest = regexp.MustCompile("(?:^|[^`A-Za-z0-9])(?:Test|Fuzz)[A-Z][A-Za-z0-9]+")
