package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// part is a word of a name: Peer, URLs, peer.
var part = regexp.MustCompile(`[A-Z]?[a-z]+|[A-Z]+`)

// TestTheCodeSpeaksTheFieldsWords holds test/docs/words.txt: a reader who knows SPIFFE,
// Envoy and Go reads each name and comment once.
func TestTheCodeSpeaksTheFieldsWords(t *testing.T) {
	identifiers, phrases, verbs, open := words(t)
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel("../..", path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name == "test" || strings.HasPrefix(name, ".") && name != "." {
				return filepath.SkipDir
			}
			return nil
		}
		if slices.Contains(open, filepath.Dir(name)) {
			return nil
		}
		if strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") && !strings.HasSuffix(name, ".pb.go") {
			checkWords(t, path, name, identifiers, phrases, verbs)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func words(t *testing.T) (identifiers map[string]string, phrases [][2]string, verbs map[string]string, open []string) {
	t.Helper()
	content, err := os.ReadFile("words.txt")
	if err != nil {
		t.Fatal(err)
	}
	gap := regexp.MustCompile(` {2,}`)
	identifiers, verbs = map[string]string{}, map[string]string{}
	for line := range strings.SplitSeq(string(content), "\n") {
		kind, rest, _ := strings.Cut(line, " ")
		rest, instead := rest, ""
		if at := gap.FindStringIndex(rest); at != nil {
			rest, instead = rest[:at[0]], rest[at[1]:]
		}
		switch kind {
		case "identifier":
			identifiers[rest] = instead
		case "phrase":
			phrases = append(phrases, [2]string{rest, instead})
		case "verb":
			verbs[rest] = instead
		case "open":
			open = append(open, filepath.FromSlash(rest))
		case "", "#":
		default:
			t.Fatalf("words.txt: %q", line)
		}
	}
	return identifiers, phrases, verbs, open
}

func checkWords(t *testing.T, path, name string, identifiers map[string]string, phrases [][2]string, verbs map[string]string) {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	text := func(at token.Pos, s string) {
		s = strings.Join(strings.Fields(strings.ReplaceAll(s, "//", " ")), " ") // a phrase may go over lines
		for _, p := range phrases {
			if strings.Contains(strings.ToLower(s), p[0]) {
				t.Errorf("%s:%d: %q: in the reader's words: %s (test/docs/words.txt)", name, set.Position(at).Line, p[0], p[1])
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if first := strings.Fields(n.Doc.Text()); len(first) > 1 && first[0] == n.Name.Name && verbs[first[1]] != "" {
				t.Errorf("%s:%d: %s %s: what a function does is said in Go's own form: %s (test/docs/words.txt)", name, set.Position(n.Pos()).Line, first[0], first[1], verbs[first[1]])
			}
		case *ast.Ident:
			for _, w := range part.FindAllString(n.Name, -1) {
				w = strings.ToLower(w)
				for _, w := range []string{w, strings.TrimSuffix(w, "s")} {
					if instead, ok := identifiers[w]; ok {
						t.Errorf("%s:%d: %s: the field's word for %s: %s (test/docs/words.txt)", name, set.Position(n.Pos()).Line, n.Name, w, instead)
						break
					}
				}
			}
		case *ast.BasicLit:
			if n.Kind == token.STRING {
				text(n.Pos(), n.Value)
			}
		}
		return true
	})
	for _, c := range file.Comments {
		text(c.Pos(), c.Text())
	}
}

// TestTheGlossaryHasEachWordOnce: of two rows of a word a reader sees one.
func TestTheGlossaryHasEachWordOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\| ([^|]+) \|`).FindAllStringSubmatch(read(t, "docs", "GLOSSARY.md"), -1) {
		word, _, _ := strings.Cut(m[1], " (")
		for one := range strings.SplitSeq(word, ", ") {
			if seen[one] {
				t.Errorf("%s stands twice", one)
			}
			seen[one] = true
		}
	}
	if len(seen) < 20 {
		t.Errorf("%d words", len(seen))
	}
}
