package ecs

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"signet.example/internal/manifest"
)

// lines places the values of a YAML text: where its lines begin, and what its reader says.
type lines struct {
	d      *document
	starts []int
}

func (d *document) readYAML() error {
	roots, errs := tags.Read(d.file, []byte(d.text))
	if err := errs.OrNil(); err != nil {
		return err
	}
	if len(roots) != 1 || roots[0].Is() != manifest.Mapping {
		return fmt.Errorf("%s: want one document with a task definition, or a template, in it", d.file)
	}
	l := lines{d: d, starts: []int{0}}
	for i := range len(d.text) {
		if d.text[i] == '\n' {
			l.starts = append(l.starts, i+1)
		}
	}
	members := roots[0].Members()
	if len(members) == 0 {
		return fmt.Errorf("%s: is empty", d.file)
	}
	begin, err := l.offset(members[0].Key())
	if err != nil {
		return err
	}
	at := l.visible(0, begin)
	if strings.HasPrefix(d.text[at:], "---") {
		at = l.visible(at+len("---"), begin)
	}
	if d.text[at] == '{' {
		begin = at
	}
	d.root, err = l.place(roots[0], begin, l.trimmed(begin, len(d.text)))
	return err
}

// offset is where a node stands. Columns are counted in characters.
func (l lines) offset(n manifest.Node) (int, error) {
	_, line, column := n.Place()
	if line < 1 || line > len(l.starts) || column < 1 {
		return 0, fmt.Errorf("%s: a value has no place", l.d.file)
	}
	at := l.starts[line-1]
	for range column - 1 {
		_, size := utf8.DecodeRuneInString(l.d.text[at:])
		at += size
	}
	return min(at, len(l.d.text)), nil
}

// trimmed is the end of what stands between two offsets, without blank lines and comments after it.
func (l lines) trimmed(start, end int) int {
	for end > start {
		text := strings.TrimRight(l.d.text[start:end], " \t\r\n")
		end = start + len(text)
		last := strings.LastIndexByte(text, '\n')
		if last < 0 || !strings.HasPrefix(strings.TrimLeft(text[last+1:], " \t"), "#") {
			return end
		}
		end = start + last
	}
	return end
}

// place is a value that begins at one offset and ends before another.
func (l lines) place(n manifest.Node, start, end int) (*value, error) {
	v := &value{start: start, end: end, kind: scalar, text: n.Text()}
	if start >= end {
		return v, nil
	}
	switch c := l.d.text[start]; {
	case c == '!' || c == '*' || c == '&':
		v.kind = opaque
	case c == '{' || c == '[':
		s := scanner{d: l.d, at: start}
		return s.value()
	case n.Is() == manifest.Mapping:
		return v, l.members(v, n)
	case n.Is() == manifest.List:
		return v, l.itemsOf(v, n)
	}
	return v, nil
}

func (l lines) members(v *value, n manifest.Node) error {
	v.kind, v.block = mapping, true
	members := n.Members()
	if len(members) == 1 && function(members[0].Name) {
		v.kind = opaque
		return nil
	}
	for i, m := range members {
		at, err := l.offset(m.Key())
		if err != nil {
			return err
		}
		if at < v.start || at >= v.end || i > 0 && at <= v.children[i-1].start {
			return l.d.errorAt(v.start, "", "%q is not where its mapping is: write out what is merged (<<)", manifest.Clip(m.Name))
		}
		v.children = append(v.children, child{name: m.Name, start: at})
	}
	for i := range v.children {
		c := &v.children[i]
		begin, err := l.afterKey(c.start)
		if err != nil {
			return err
		}
		if err := l.fill(v, i, begin, members[i].Value); err != nil {
			return err
		}
	}
	v.reach()
	return nil
}

// fill places the value of a child.
func (l lines) fill(v *value, i, begin int, n manifest.Node) error {
	c, end := &v.children[i], v.end
	if i+1 < len(v.children) {
		end = v.children[i+1].start
	}
	end = l.trimmed(c.start, end)
	c.mark = begin
	begin = l.visible(min(begin, end), end)
	if begin < end && strings.IndexByte("|>", l.d.text[begin]) >= 0 {
		end = max(end, l.scalarEnd(c.start, begin))
	}
	var err error
	c.val, err = l.place(n, begin, end)
	return err
}

// scalarEnd is where a text of lines (| or >) ends, by the column of its name: what looks like a
// comment at its end is of it.
func (l lines) scalarEnd(name, begin int) int {
	column := name - 1 - strings.LastIndexByte(l.d.text[:name], '\n')
	at, end := begin, begin
	for line := range strings.Lines(l.d.text[begin:]) {
		text := strings.TrimRight(line, " \t\r\n")
		if indent := len(text) - len(strings.TrimLeft(text, " ")); at > begin && text != "" && indent <= column {
			break
		}
		if text != "" {
			end = at + len(text)
		}
		at += len(line)
	}
	return end
}

// visible is where the value begins whose name or dash ended: on the same line, or on a later one.
func (l lines) visible(at, end int) int {
	for at < end {
		switch c := l.d.text[at]; {
		case c == '#':
			line := strings.IndexByte(l.d.text[at:end], '\n')
			if line < 0 {
				return end
			}
			at += line
		case c != ' ' && c != '\t' && c != '\r' && c != '\n':
			return at
		}
		at++
	}
	return end
}

// afterKey is where the colon of a key ends.
func (l lines) afterKey(at int) (int, error) {
	s := scanner{d: l.d, at: at}
	if c := s.next(); c == '"' || c == '\'' {
		if _, err := s.scalar(); err != nil {
			return 0, err
		}
	} else {
		for s.at < len(l.d.text) && l.d.text[s.at] != '\n' && (l.d.text[s.at] != ':' || s.at+1 < len(l.d.text) && strings.IndexByte(" \t\r\n", l.d.text[s.at+1]) < 0) {
			s.at++
		}
	}
	if s.skip(); s.next() != ':' {
		return 0, l.d.errorAt(at, "", "a key without its colon: write it as NAME: VALUE")
	}
	return s.at + 1, nil
}

func (l lines) itemsOf(v *value, n manifest.Node) error {
	v.kind, v.block = list, true
	items := n.Items()
	at := v.start
	column := at - 1 - strings.LastIndexByte(l.d.text[:at], '\n')
	for i := range items {
		if at >= v.end || l.d.text[at] != '-' {
			return l.d.errorAt(at, "", "an item without its dash: write a list with one item a line")
		}
		v.children = append(v.children, child{start: at})
		if i+1 < len(items) {
			at = l.dash(at+1, v.end, column)
		}
	}
	for i := range v.children {
		if err := l.fill(v, i, v.children[i].start+1, items[i]); err != nil {
			return err
		}
	}
	v.reach()
	return nil
}

// dash is the next one in that column.
func (l lines) dash(at, end, column int) int {
	for {
		line := strings.IndexByte(l.d.text[at:end], '\n')
		if line < 0 {
			return end
		}
		at += line + 1
		rest := l.d.text[at:end]
		if indent := len(rest) - len(strings.TrimLeft(rest, " ")); indent == column && strings.HasPrefix(rest[indent:], "-") && (len(rest) == indent+1 || strings.IndexByte(" \t\r\n", rest[indent+1]) >= 0) {
			return at + indent
		}
	}
}
