package docs

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"signet.example/test/parts"
)

var (
	// citation is an id of docs/design, of docs/FINDINGS.md, of docs/CONFORMANCE.md or of a decision.
	citation = regexp.MustCompile(`(?:^|[^%\w/.-])((?:D|R|F)\d{1,2}|A\d{2}|[SUC]\d{1,2}|AM-[a-z]+|XDS-\d{2}|(?:ID|X509|WAPI|WEP|JWT|BND|FED)-\d{2}|(?:D|d)ecision \d{3})\b`)
	heading  = regexp.MustCompile(`(?m)^(?:## |\| )([A-Z][A-Za-z0-9]*(?:-[a-z0-9]+)?)(?:\. | \||\n| \()`)
	decided  = regexp.MustCompile(`^(\d{3})-`)
	// elsewhere cites a paper that is not in the repository.
	elsewhere = regexp.MustCompile(`\bDESIGN\b|\bREFERENCE \d|\b(?:XDS|SECURITY|ENVOY|AUTHZ|CA|UX)(?:\.md)? [ARF]?\d|\battack A\d|\bthe evidence\b`)
)

// TestEveryCitationIsInTheRepository: what a comment or a page cites can be looked
// up here, by its id, or is an RFC, a section of SPIFFE's documents or a URL.
func TestEveryCitationIsInTheRepository(t *testing.T) {
	known := map[string]bool{}
	pages, err := filepath.Glob(filepath.Join(parts.Root(), "docs", "design", "*.md"))
	if err != nil || len(pages) < 4 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range append(pages, filepath.Join(parts.Root(), "docs", "FINDINGS.md"), filepath.Join(parts.Root(), "docs", "CONFORMANCE.md")) {
		for _, m := range heading.FindAllStringSubmatch(read(t, "docs", strings.TrimPrefix(page, filepath.Join(parts.Root(), "docs"))), -1) {
			known[m[1]] = true
		}
	}
	decisions, err := fs.ReadDir(os.DirFS(parts.Root()), "docs/decisions")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range decisions {
		if m := decided.FindStringSubmatch(d.Name()); m != nil {
			known["decision "+m[1]] = true
		}
	}
	cited := 0
	check := func(where, text string) {
		for _, m := range citation.FindAllStringSubmatch(text, -1) {
			if id := strings.Replace(m[1], "Decision", "decision", 1); !known[id] {
				t.Errorf("%s cites %s: no heading of docs/design, finding or decision has this id", where, id)
			}
			cited++
		}
		if m := elsewhere.FindString(text); m != "" {
			t.Errorf("%s cites %q, which is not in the repository: give docs/design an entry, and cite its id", where, m)
		}
	}
	err = fs.WalkDir(os.DirFS(parts.Root()), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != ".":
			return fs.SkipDir
		case strings.HasSuffix(path, ".pb.go"):
		case strings.HasSuffix(path, ".go"):
			for _, comment := range comments(t, path) {
				check(path, comment)
			}
		case strings.HasSuffix(path, ".proto"), strings.HasSuffix(path, ".md"):
			check(path, read(t, path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if cited < 150 {
		t.Errorf("only %d citations were found", cited)
	}
}

// comments of a file, each on one line.
func comments(t *testing.T, path string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(parts.Root(), path), nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, group := range file.Comments {
		out = append(out, strings.Join(strings.Fields(group.Text()), " "))
	}
	return out
}
