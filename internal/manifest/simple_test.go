package manifest

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// bySimple is what simple makes of a text, if anything, and whether the parser makes the same.
func bySimple(t *testing.T, text string) (simple, same bool) {
	t.Helper()
	src, other := &source{file: "f", text: text, first: 7}, &source{file: "f", text: text, first: 7}
	got := src.simple()
	if got == nil {
		return false, true
	}
	if err := other.checkText(); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	body, err := other.parse()
	if err != nil || body == nil {
		t.Fatalf("%q: %v", text, err)
	}
	want, wrong := newTree(other).build(body)
	if len(wrong) > 0 {
		t.Fatalf("%q: %v", text, wrong)
	}
	return true, reflect.DeepEqual(got, want) && src.tokens == other.tokens
}

var simpleTexts = []string{
	"a: b\n", "a: b", "a:\n  b: 1\n  c: -5\n", "---\na:\n  - b: true\n    c: {}\n  - []\n  - \"x: y # z\"\n  - w\nd: 0\n",
	"a:\n- b\n- c:\n    d: e\n", "\"k/x\": v\n", "a:\n    b:\n     - c: 1\n       d: 2\n", "- a\n- b: c\n", "a: 9223372036854775807\n",
	"a:\n  - b:\n    - c\n    d: e\n",
	"a: {b: c}\n", "a: [b]\n", "a: { b: c, \"d\": -1 , e: {f: [true, {}, [], \"x, y}\"]} }\n", "- {a: b}\n- [ [a], 1 ]\n- a: {b: c}\n  d: [ ]\n", "a: {b: c,   d: e}\n",
}

var parsersTexts = []string{
	"", "\n", "---\n", "a:\n", "a: \n", "a: ~\n", "a: null\n", "a: yes\n", "a: No\n", "y: 1\n", "a: 1.5\n", "a: 010\n", "a: 1_0\n", "a: +1\n", "a: 0x1\n", "a: -0\n",
	"a: 'b'\n", "a: \"b\\n\"\n", "a: \"b\" c\n", "a: b c\n", "a: b # c\n", "# c\na: b\n", "a: &x b\n", "a: *x\n", "a: !t b\n", "a: |\n  b\n", "a: >\n  b\n", "a: {b: c\n", "a: {b: c,\n  d: e}\n", "a: {b: c}}\n", "a: {b: c,}\n", "a: {b}\n", "a: {b: }\n", "a: {b:c}\n", "a: {b: c, b: d}\n", "a: {b: c d}\n", "a: {b: c] \n", "a: [b}\n", "a: [b c]\n", "a: [b,, c]\n", "a: [, b]\n", "a: {b: 'c'}\n",
	"a: {b: c} # d\n", "a: {b: ~}\n", "{a: b}\n", "[a]\n", "a: {b: *x}\n", "a: [b, c]d\n", "a: {b: c}{d: e}\n", "a: {\n", "a: [b, yes]\n", "a: {b:\n", "a: [010]\n", "a: [- b]\n", "a: [x: y]\n",
	"a: b\na: c\n", "a:b\n", "a:  b\n", "a :b\n", "a: b \n", "a: b\n\nc: d\n", "a: b\r\n", "a: b\tc\n", "\ta: b\n", "a: \u00e9\n", "a:\n  b: 1\n c: 2\n", "a: 1\n  b: 2\n", "  a: b\n", "a: b\n---\nc: d\n",
	"- - a\n", "-\n  a\n", "-  a\n", "- a\nb: c\n", "a: b\n- c\n", "a:\n  b\n", "a\n", "\"a\n", "%YAML 1.2\n", "<<: a\n", "? a\n", "a: nan\n", "a: .inf\n", "a: 2026-11-29\n", "a: 9223372036854775808\n",
	"a: ---\n", "...\n", "a: b\n...\n", "a:\n- b\n - c\n", "a:\n  - b\n - c\n",
}

func TestWhatIsReadWithoutTheParserIsWhatTheParserReads(t *testing.T) {
	for _, text := range simpleTexts {
		if simple, same := bySimple(t, text); !simple || !same {
			t.Errorf("%q: simple %t, same %t", text, simple, same)
		}
	}
	for _, text := range parsersTexts {
		if simple, _ := bySimple(t, text); simple {
			t.Errorf("%q is not for the parser", text)
		}
	}
	deep := strings.Builder{}
	for i := range maxDepth + 1 {
		deep.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	if simple, _ := bySimple(t, deep.String()+strings.Repeat(" ", maxDepth+2)+"a: b\n"); simple {
		t.Error("too deep, and read")
	}
	files := 0
	for _, root := range []string{"../../mesh", "../../xds", "../../test"} {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || filepath.Ext(path) != ".yaml" {
				return err
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for p := range pieces(content) {
				simple, same := bySimple(t, p.text)
				if !same {
					t.Errorf("%s:%d is read as something else", path, p.first)
				}
				if simple {
					files++
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files == 0 {
		t.Error("none of the tree's files is simple")
	}
}

func FuzzSimple(f *testing.F) {
	for _, text := range append(simpleTexts, parsersTexts...) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "\n---") { // is cut before
			return
		}
		if _, same := bySimple(t, text); !same {
			t.Errorf("%q is read as something else", text)
		}
	})
}
