package manifest

import (
	"slices"
	"strconv"
	"strings"
)

// simple reads mappings and lists by indentation, and in brackets on one line, of words, whole
// numbers and quoted text without escapes, in ASCII: what [Encode] writes, and most of what people
// do. Nearly all that is read is of it, at a seventh of what the parser takes. It is nil for any
// other text, which is the parser's: what is not plain here is not guessed.
func (s *source) simple() *value {
	if len(s.text) > 16<<10 || s.unfilled != nil || s.nodes { // so small it meets no other limit
		return nil
	}
	text := strings.TrimSuffix(s.text, "\n")
	r := &simpleReader{lines: make([]simpleLine, 0, strings.Count(text, "\n")+2)}
	rest, marked := strings.CutPrefix(text, "---\n")
	at := s.first
	if marked {
		at++
		r.tokens++
	}
	for line := range strings.SplitSeq(rest, "\n") {
		indent := countSpaces(line)
		if line = line[indent:]; !isPlainLine(line) {
			return nil
		}
		r.lines = append(r.lines, simpleLine{pos{line: at, col: 1 + indent}, line})
		at++
	}
	r.lines = append(r.lines, simpleLine{}) // less indented than all
	root := r.block(1)
	if r.failed || len(r.lines) > 1 {
		return nil
	}
	s.tokens = r.tokens
	return root
}

// isPlainLine reports whether a line has something, in printable ASCII, and does not end in a space.
func isPlainLine(line string) bool {
	for i := range len(line) {
		if line[i] < ' ' || line[i] > '~' {
			return false
		}
	}
	return line != "" && !strings.HasSuffix(line, " ")
}

func countSpaces(text string) int {
	n := 0
	for n < len(text) && text[n] == ' ' {
		n++
	}
	return n
}

// simpleLine is a line without its indentation.
type simpleLine struct {
	at   pos
	text string
}

func (l simpleLine) isItem() bool { return strings.HasPrefix(l.text, "- ") }

// place is where what is left of the line begins.
func (l simpleLine) place(rest string) pos {
	l.at.col += len(l.text) - len(rest)
	return l.at
}

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

// deeper begins a mapping or list; at its end the level is as before. What is in it is one deeper yet.
func (r *simpleReader) deeper(shape shape, at pos) *value {
	if r.level++; r.level >= maxDepth {
		return r.fail()
	}
	return &value{shape: shape, at: at, size: 1, depth: 1}
}

// counts adds a value that is in v to its size and depth.
func (v *value) counts(child *value) {
	v.size, v.depth = v.size+child.size, max(v.depth, child.depth+1)
}

// block reads the lines that begin in a column, and what is below them.
func (r *simpleReader) block(col int) *value {
	first := r.lines[0]
	if first.at.col != col {
		return r.fail()
	}
	shape, read := isMap, r.member
	if first.isItem() {
		shape, read = isList, r.item
	}
	v := r.deeper(shape, first.at)
	for !r.failed && r.lines[0].at.col == col && r.lines[0].isItem() == first.isItem() {
		v.counts(read(v, r.lines[0]))
	}
	r.level--
	return v
}

func (r *simpleReader) member(of *value, l simpleLine) *value {
	key, rest := r.key(of, l.text)
	var v *value
	r.lines = r.lines[1:]
	switch next := r.lines[0]; {
	case rest != "":
		v = r.ending(l, rest[1:])
	case next.at.col > l.at.col || next.at.col == l.at.col && next.isItem():
		v = r.block(next.at.col)
	default: // null
		return r.fail()
	}
	of.fields = append(of.fields, field{name: key, at: l.at, val: v})
	return v
}

// key reads the name of one more member of a mapping; rest is what is behind the colon.
func (r *simpleReader) key(of *value, text string) (key, rest string) {
	key, rest, ok := cutKey(text)
	if !ok || len(key) > maxKey || slices.ContainsFunc(of.fields, func(f field) bool { return f.name == key }) {
		r.fail()
	}
	r.tokens += 2
	return key, rest
}

// item reads one of a list: a mapping begins beside its hyphen.
func (r *simpleReader) item(of *value, l simpleLine) (v *value) {
	r.tokens++
	if _, _, ok := cutKey(l.text[2:]); ok {
		r.lines[0].text, r.lines[0].at.col = l.text[2:], l.at.col+2
		v = r.block(l.at.col + 2)
	} else {
		r.lines = r.lines[1:]
		v = r.ending(l, l.text[2:])
	}
	of.items = append(of.items, v)
	return v
}

// ending reads what stands at the end of a line.
func (r *simpleReader) ending(l simpleLine, text string) *value {
	v, rest := r.inline(l, text)
	if rest != "" {
		return r.fail()
	}
	return v
}

// inline reads a value from the front of what is left of a line.
func (r *simpleReader) inline(l simpleLine, text string) (v *value, rest string) {
	switch {
	case strings.HasPrefix(text, "{"):
		return r.flow(l, text, isMap, "}")
	case strings.HasPrefix(text, "["):
		return r.flow(l, text, isList, "]")
	}
	return r.scalar(l, text)
}

// flow reads a mapping or list in brackets.
func (r *simpleReader) flow(l simpleLine, text string, shape shape, end string) (v *value, rest string) {
	v, rest = r.deeper(shape, l.place(text)), text[1:]
	r.tokens += 2
	for n := 0; !r.failed; n++ {
		rest = rest[countSpaces(rest):]
		if after, closed := strings.CutPrefix(rest, end); closed {
			r.level--
			return v, after[countSpaces(after):]
		}
		if n > 0 {
			rest = r.comma(rest)
		}
		var child *value
		if shape == isList {
			child, rest = r.inline(l, rest)
			v.items = append(v.items, child)
		} else {
			child, rest = r.pair(v, l, rest)
		}
		v.counts(child)
	}
	return r.fail(), ""
}

// comma reads that there is more in brackets.
func (r *simpleReader) comma(text string) string {
	rest, ok := strings.CutPrefix(text, ",")
	if !ok {
		r.fail()
	}
	r.tokens++
	return rest[countSpaces(rest):]
}

// pair reads a member of a mapping in brackets.
func (r *simpleReader) pair(of *value, l simpleLine, text string) (v *value, rest string) {
	at := l.place(text)
	if len(of.fields) == 0 {
		of.at = at // as the parser has it
	}
	key, rest := r.key(of, text)
	if rest == "" { // it goes on in the next line
		return r.fail(), ""
	}
	v, rest = r.inline(l, rest[1:])
	of.fields = append(of.fields, field{name: key, at: at, val: v})
	return v, rest
}

// scalar reads a word, a number or a text in quotes.
func (r *simpleReader) scalar(l simpleLine, text string) (v *value, rest string) {
	v = &value{shape: isString, at: l.place(text), size: 1, depth: 1}
	r.tokens++
	word, rest, ok := cutText(text)
	switch {
	case ok:
	case word == "true" || word == "false":
		v.shape, v.flag = isBool, word == "true"
	default:
		v.shape = isInt
		if v.number, word, rest, ok = cutNumber(text); !ok {
			return r.fail(), ""
		}
	}
	v.text = word
	return v, rest[countSpaces(rest):]
}

// cutNumber takes a whole number, as Go writes it, from the front of a line.
func cutNumber(line string) (number int64, text, rest string, ok bool) {
	rest = strings.TrimLeft(line, "-0123456789")
	text = line[:len(line)-len(rest)]
	number, err := strconv.ParseInt(text, 10, 64)
	return number, text, rest, err == nil && strconv.FormatInt(number, 10) == text
}

// cutKey takes the name of a member from the front of a line; rest is what is behind the colon.
func cutKey(line string) (key, rest string, ok bool) {
	key, rest, ok = cutText(line)
	rest, colon := strings.CutPrefix(rest, ":")
	return key, rest, ok && colon && (rest == "" || rest[0] == ' ')
}

// cutText takes a text from the front of a line: one in quotes, or a word.
func cutText(line string) (text, rest string, ok bool) {
	quoted, is := strings.CutPrefix(line, `"`)
	if !is {
		return cutWord(line)
	}
	text, rest, ok = strings.Cut(quoted, `"`)
	return text, rest, ok && strings.IndexByte(text, '\\') < 0
}
