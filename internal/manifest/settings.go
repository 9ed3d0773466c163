package manifest

import (
	"fmt"
	"reflect"
	"slices"
	"time"
)

// Settings is a program's configuration file as it was read: where each value stands, and
// what is wrong so far.
type Settings struct {
	file  string
	doc   *Document // nil where the file has nothing
	wrong Errors
	flags map[string]string // by the key that each holds over; variables, too
}

// ReadSettings reads a file that is one document without an envelope, such as a
// program's configuration, over the struct that into points to: as strictly as
// [Document.Decode] reads a spec. What the file does not name stays as it was, and so
// does what is wrong, which [Settings.Check] tells. Durations are written as 30s or 1h;
// where text is wanted a whole number is text as well, such as a uid. An empty file
// changes nothing. An error is of a file of which nothing could be read.
func ReadSettings(file string, content []byte, into any) (*Settings, error) {
	read := &Settings{file: file, flags: map[string]string{}}
	n := 0
	for p := range pieces(content) {
		s := &source{file: file, text: p.text, first: p.first}
		if n++; n > maxEmpty {
			return nil, s.errorAt(pos{line: p.first}, "", fmt.Sprintf("the file has more than %d documents: one is read", maxEmpty))
		}
		if err := s.checkText(); err != nil {
			return nil, err
		}
		body, err := s.parse()
		if err != nil {
			return nil, err
		}
		if body == nil {
			continue
		}
		v, errs := newTree(s).build(body)
		if v == nil {
			return nil, errs
		}
		if read.doc != nil {
			return nil, s.errorAt(v.at, "", "a second document: one is read")
		}
		read.doc, read.wrong = &Document{src: s, root: v}, errs
	}
	if read.doc == nil || read.doc.root.shape == isNull {
		return read, nil
	}
	dec := &decoder{src: read.doc.src, settings: true, errs: read.wrong}
	dec.field("", read.doc.root.at, read.doc.root, into)
	read.wrong = dec.errs
	return read, nil
}

// Flag notes that a flag, or a variable of the environment, holds over a key: what is wrong with its
// value is not the file's. The last one that is noted of a key counts.
func (s *Settings) Flag(key, flag string) { s.flags[key] = flag }

// Check is everything that is wrong with the file, with what was found wrong with its
// values: [Error] with the key as its field. Each has the place in the file, if the key is
// there. What may follow from a mistake of the file is not told beside it.
func (s *Settings) Check(found error) error {
	var more Errors
	for _, e := range AsErrors(found) {
		if !s.follows(e) {
			more = append(more, s.placed(e))
		}
	}
	all := s.wrong.With(more)
	return all[:min(len(all), MaxErrors)].OrNil()
}

// follows reports whether a key that is lacking was written, but not so that it was read.
func (s *Settings) follows(e *Error) bool {
	return e.Lacks != "" && slices.ContainsFunc(s.wrong, func(known *Error) bool {
		return known.Unknown && known.Meant == e.Lacks || within(known.Field, e.Lacks)
	})
}

func (s *Settings) placed(e *Error) *Error {
	if flag := s.flags[e.Field]; flag != "" {
		return &Error{Field: flag, Msg: e.Msg}
	}
	if s.doc == nil || e.Field == "" {
		return &Error{File: s.file, Field: e.Field, Msg: e.Msg}
	}
	at, _ := s.doc.find(e.Field)
	if at == s.doc.root.at && !s.doc.Has(e.Field) {
		return &Error{File: s.file, Field: e.Field, Msg: e.Msg} // the key is not there, nor what it stands in
	}
	return s.doc.errorAt(at, e.Field, e.Msg)
}

var duration = reflect.TypeFor[time.Duration]()

func (dec *decoder) duration(path string, v *value, to reflect.Value) {
	if !dec.wants(path, v, isString) {
		return
	}
	d, err := time.ParseDuration(v.text)
	if err != nil {
		dec.fail(v.at, path, fmt.Sprintf("%q is not a duration such as 30s, 10m or 1h", Clip(v.text)))
		return
	}
	to.SetInt(int64(d))
}

// below is the path of a member.
func below(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
