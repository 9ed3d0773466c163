package manifest

import (
	"slices"
	"strconv"
	"strings"
)

// simple reads the form that [Encode] writes: mappings and lists by indentation, of words,
// whole numbers and quoted text without escapes, in ASCII, one a line. Nearly all that is read
// back from a store is of it, at a seventh of what the parser takes. It is nil for any other
// text, which is the parser's: what is not plain here is not guessed.
func (s *source) simple() *value {
	if len(s.text) > 16<<10 || s.unfilled != nil || s.nodes { // so small it meets no other limit
		return nil
	}
	r := &simpleReader{}
	text := strings.Clone(s.text) // what is read may be kept longer than the file
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		rest := strings.TrimLeft(line, " ")
		switch {
		case i == 0 && line == "---":
			r.tokens++
			continue
		case rest == "" || strings.HasSuffix(rest, " ") || strings.ContainsFunc(rest, func(c rune) bool { return c < ' ' || c > '~' }):
			return nil
		}
		r.lines = append(r.lines, simpleLine{pos{line: s.first + i, col: 1 + len(line) - len(rest)}, rest})
	}
	r.lines = append(r.lines, simpleLine{}) // less indented than all
	root := r.block(1)
	if r.failed || len(r.lines) > 1 {
		return nil
	}
	s.tokens = r.tokens
	return root
}

// simpleLine is a line without its indentation.
type simpleLine struct {
	at   pos
	text string
}

func (l simpleLine) isItem() bool { return strings.HasPrefix(l.text, "- ") }

// simpleReader has the lines that are to be read yet.
type simpleReader struct {
	lines         []simpleLine
	level, tokens int
	failed        bool // the parser is to read them
}

func (r *simpleReader) fail() *value {
	r.failed = true
	return &value{}
}

// block reads the lines that begin in a column, and what is below them.
func (r *simpleReader) block(col int) *value {
	first := r.lines[0]
	if r.level++; r.level > maxDepth || first.at.col != col {
		return r.fail()
	}
	v, read := &value{shape: isMap, at: first.at, size: 1}, r.member
	if first.isItem() {
		v.shape, read = isList, r.item
	}
	for !r.failed && r.lines[0].at.col == col && r.lines[0].isItem() == first.isItem() {
		child := read(v, r.lines[0])
		v.size, v.depth = v.size+child.size, max(v.depth, child.depth)
	}
	r.level, v.depth = r.level-1, v.depth+1
	return v
}

func (r *simpleReader) member(of *value, l simpleLine) *value {
	key, rest, ok := cutKey(l.text)
	if !ok || len(key) > maxKey || slices.ContainsFunc(of.fields, func(f field) bool { return f.name == key }) {
		return r.fail()
	}
	var v *value
	r.lines, r.tokens = r.lines[1:], r.tokens+2
	switch next := r.lines[0]; {
	case rest != "":
		v = r.scalar(rest[1:], l, len(l.text)-len(rest)+1)
	case next.at.col > l.at.col || next.at.col == l.at.col && next.isItem():
		v = r.block(next.at.col)
	default: // null
		return r.fail()
	}
	of.fields = append(of.fields, field{name: key, at: l.at, val: v})
	return v
}

// item reads one of a list: a mapping begins beside its hyphen.
func (r *simpleReader) item(of *value, l simpleLine) (v *value) {
	r.tokens++
	if _, _, ok := cutKey(l.text[2:]); ok {
		r.lines[0].text, r.lines[0].at.col = l.text[2:], l.at.col+2
		v = r.block(l.at.col + 2)
	} else {
		r.lines = r.lines[1:]
		v = r.scalar(l.text[2:], l, 2)
	}
	of.items = append(of.items, v)
	return v
}

// scalar reads what stands at the end of a line, behind so many bytes of it.
func (r *simpleReader) scalar(text string, l simpleLine, behind int) *value {
	v := &value{shape: isString, at: pos{line: l.at.line, col: l.at.col + behind}, text: text, size: 1, depth: 1}
	r.tokens++
	switch number, err := strconv.ParseInt(text, 10, 64); {
	case text == "{}" || text == "[]":
		v.shape, v.text, r.tokens = map[string]shape{"{}": isMap, "[]": isList}[text], "", r.tokens+1
	case text == "true" || text == "false":
		v.shape, v.flag = isBool, text == "true"
	case err == nil && strconv.FormatInt(number, 10) == text:
		v.shape, v.number = isInt, number
	default:
		word, rest, ok := cutText(text)
		if v.text = word; !ok || rest != "" {
			return r.fail()
		}
	}
	return v
}

// cutKey takes the name of a member from the front of a line; rest is what is behind the colon.
func cutKey(line string) (key, rest string, ok bool) {
	key, rest, ok = cutText(line)
	rest, colon := strings.CutPrefix(rest, ":")
	return key, rest, ok && colon && (rest == "" || rest[0] == ' ')
}

// cutText takes a text from the front of a line: one in quotes, or a word as plain has it.
func cutText(line string) (text, rest string, ok bool) {
	if quoted, is := strings.CutPrefix(line, `"`); is {
		text, rest, ok = strings.Cut(quoted, `"`)
		return text, rest, ok && !strings.Contains(text, `\`)
	}
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz/"
	rest = strings.TrimLeft(line, letters+"0123456789_.-")
	text = line[:len(line)-len(rest)]
	return text, rest, text != "" && strings.IndexByte(letters, text[0]) >= 0 && !slices.Contains(words, strings.ToLower(text))
}
