package docs

import (
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// pages of whose text each piece has its row in docs/PROMISES.md: every sentence and
// every row of a table, or the rows alone.
var pages = []struct {
	name     string
	rowsOnly bool
}{
	{"README.md", false},
	{"SECURITY.md", false},
	{"docs/DEVIATIONS.md", true},
	{"docs/POLICY.md", true},
	{"docs/APPMESH.md", true},
}

// TestEveryPromiseNamesItsTest holds docs/PROMISES.md to the pages: what they say has
// one row there, with tests or with the reason why it promises nothing, and a row is
// of something that is said.
func TestEveryPromiseNamesItsTest(t *testing.T) {
	text := read(t, "docs", "PROMISES.md")
	for _, page := range pages {
		_, section, found := strings.Cut(text, "\n## "+page.name+"\n")
		if !found {
			t.Errorf("docs/PROMISES.md has no section %s", page.name)
			continue
		}
		section, _, _ = strings.Cut(section, "\n## ")
		content := read(t, strings.Split(page.name, "/")...)
		if page.name == "SECURITY.md" {
			content, _, _ = strings.Cut(content, "\n## Not yet\n") // the rest says what is missing
		}
		content, _, _ = strings.Cut(content, fieldTable) // its rows have their tests beside them
		said := pieces(content, page.rowsOnly)
		times := make([]int, len(said))
		for _, p := range pieces(section, true) {
			words, proof := p.cells[0], p.cells[1]
			if testName.MatchString(proof) == strings.HasPrefix(proof, "nothing: ") {
				t.Errorf("%s, %q: want tests in backquotes, or `nothing: ` and the reason; got %q", page.name, words, proof)
			}
			fits := named(said, words)
			if len(fits) != 1 {
				t.Errorf("docs/PROMISES.md has a row %q of %s: %d sentences or rows begin so, want 1", words, page.name, len(fits))
			}
			for _, i := range fits {
				times[i]++
			}
		}
		for i, s := range said {
			if times[i] != 1 {
				t.Errorf("%s says %q: %d rows in docs/PROMISES.md, want 1, with its first words, exactly, and its tests", page.name, s.text(), times[i])
			}
		}
	}
}

// piece is a sentence, in one cell, or a row of a table.
type piece struct{ cells []string }

func (p piece) text() string { return p.cells[0] }

// named returns which pieces are meant by words: the one that has no others, else
// those that begin with them.
func named(said []piece, words string) (fits []int) {
	for i, s := range said {
		switch {
		case s.text() == words:
			return []int{i}
		case strings.HasPrefix(s.text(), words):
			fits = append(fits, i)
		}
	}
	return fits
}

var bullet = regexp.MustCompile(`^(?:[-*]|\d+\.) `)

// pieces returns the rows of a page's tables and, unless only those are asked for, its
// sentences, without headings and blocks of code.
func pieces(page string, rowsOnly bool) []piece {
	var out []piece
	var paragraph []string
	end := func() {
		if !rowsOnly {
			for _, s := range sentences(strings.Join(paragraph, " ")) {
				out = append(out, piece{[]string{s}})
			}
		}
		paragraph = nil
	}
	fenced, row := false, 0
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
			end()
			continue
		}
		if fenced {
			continue
		}
		if !strings.HasPrefix(line, "|") {
			row = 0
		}
		switch {
		case line == "", strings.HasPrefix(line, "#"):
			end()
		case strings.HasPrefix(line, "|"):
			end()
			if row++; row <= 2 { // its header and the line below
				continue
			}
			var cells []string
			for c := range strings.SplitSeq(strings.Trim(line, "|"), "|") {
				cells = append(cells, strings.TrimSpace(c))
			}
			out = append(out, piece{cells})
		case bullet.MatchString(line):
			end()
			paragraph = []string{bullet.ReplaceAllString(line, "")}
		default:
			paragraph = append(paragraph, line)
		}
	}
	end()
	return out
}

// sentences splits a paragraph where a full stop and a space come before what begins a sentence.
func sentences(paragraph string) []string {
	var out []string
	start := 0
	for i := 0; i+2 < len(paragraph); i++ {
		if paragraph[i] != '.' && paragraph[i] != '?' && paragraph[i] != '!' {
			continue
		}
		rest := strings.TrimLeft(paragraph[i+1:], ")`")
		next, space := strings.CutPrefix(rest, " ")
		if space && next != "" && (unicode.IsUpper(rune(next[0])) || strings.ContainsRune("`*[", rune(next[0]))) {
			out = append(out, paragraph[start:len(paragraph)-len(next)-1])
			start = len(paragraph) - len(next)
		}
	}
	if start < len(paragraph) {
		out = append(out, paragraph[start:])
	}
	return out
}
