package spire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of what is read. SPIRE's own largest installations have some 100,000 registrations; one
// is 5 deep.
const (
	mostBytes         = 256 << 20
	mostRegistrations = 200_000
	mostDepth         = 16
)

// object is one of JSON, with its members in their order.
type object struct {
	line    int
	members []member
}

type member struct {
	name  string
	value any // nil, bool, string, json.Number, []any or object
}

// reader reads JSON strictly: no member twice, no text that is not what was written.
type reader struct {
	file    string
	content []byte
	dec     *json.Decoder

	line, counted int // the line of the byte before which they were counted
}

// parse reads the one value of a text.
func parse(file string, content []byte) (any, error) {
	if len(content) > mostBytes {
		return nil, fmt.Errorf("%s: more than %d MiB", file, mostBytes>>20)
	}
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	r := &reader{file: file, content: content, dec: json.NewDecoder(bytes.NewReader(content)), line: 1}
	r.dec.UseNumber()
	if !utf8.Valid(content) {
		return nil, fmt.Errorf("%s: is not UTF-8", file)
	}
	v, err := r.value(0)
	if err == nil {
		if _, more := r.dec.Token(); !errors.Is(more, io.EOF) {
			err = r.fail("something follows the JSON value: give one file for each")
		}
	}
	return v, err
}

// at is the line in which the next token ends, or the last one did.
func (r *reader) at() int {
	end := min(int(r.dec.InputOffset()), len(r.content))
	if end > r.counted {
		r.line += bytes.Count(r.content[r.counted:end], []byte("\n"))
		r.counted = end
	}
	return r.line
}

func (r *reader) fail(format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", r.file, r.at(), fmt.Sprintf(format, args...))
}

func (r *reader) token() (json.Token, error) {
	t, err := r.dec.Token()
	if errors.Is(err, io.EOF) {
		return nil, r.fail("the JSON ends too early")
	}
	if err != nil {
		return nil, r.fail("is not JSON: %v", err)
	}
	if text, ok := t.(string); ok && strings.ContainsRune(text, utf8.RuneError) {
		return nil, r.fail("a text has half a character (U+FFFD, or one half of a surrogate pair)")
	}
	return t, nil
}

func (r *reader) value(depth int) (any, error) {
	t, err := r.token()
	if err != nil {
		return nil, err
	}
	d, ok := t.(json.Delim)
	switch {
	case !ok:
		return t, nil
	case depth >= mostDepth:
		return nil, r.fail("is more than %d deep", mostDepth)
	case d == '[':
		return r.list(depth)
	}
	return r.object(depth)
}

func (r *reader) list(depth int) (any, error) {
	list := []any{}
	for r.dec.More() {
		v, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		if list = append(list, v); len(list) > mostRegistrations {
			return nil, r.fail("a list of more than %d: give it in parts", mostRegistrations)
		}
	}
	_, err := r.token() // its end
	return list, err
}

func (r *reader) object(depth int) (any, error) {
	o := object{line: r.at()}
	for r.dec.More() {
		name, err := r.token()
		if err != nil {
			return nil, err
		}
		text, ok := name.(string)
		switch {
		case !ok:
			return nil, r.fail("is not JSON: a member without a name")
		case len(o.members) >= mostMembers:
			return nil, r.fail("an object of more than %d members", mostMembers)
		case slices.ContainsFunc(o.members, func(m member) bool { return m.name == text }):
			return nil, r.fail("%.64q stands there twice", text)
		}
		v, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		o.members = append(o.members, member{text, v})
	}
	_, err := r.token() // its end
	return o, err
}

// mostMembers is of one object. A registration has 17.
const mostMembers = 64
