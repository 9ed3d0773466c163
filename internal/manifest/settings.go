package manifest

import (
	"fmt"
	"reflect"
	"time"
)

// DecodeSettings reads a file that is one document without an envelope, such as a
// program's configuration, over the struct that into points to: as strictly as
// [Document.Decode] reads a spec, with all mistakes at once. What the file does not
// name stays as it was. Durations are written as 30s or 1h; where text is wanted a
// whole number is text as well, such as a uid. An empty file changes nothing.
func DecodeSettings(file string, content []byte, into any) error {
	var src *source
	var root *value
	var wrong Errors
	read := 0
	for p := range pieces(content) {
		s := &source{file: file, text: p.text, first: p.first}
		if read++; read > maxEmpty {
			return s.errorAt(pos{line: p.first}, "", fmt.Sprintf("the file has more than %d documents: one is read", maxEmpty))
		}
		if err := s.checkText(); err != nil {
			return err
		}
		body, err := s.parse()
		if err != nil {
			return err
		}
		if body == nil {
			continue
		}
		v, errs := newTree(s).build(body)
		if v == nil {
			return errs
		}
		if root != nil {
			return s.errorAt(v.at, "", "a second document: one is read")
		}
		src, root, wrong = s, v, errs
	}
	if root == nil || root.shape == isNull {
		return nil
	}
	dec := &decoder{src: src, settings: true, errs: wrong}
	dec.field("", root.at, root, into)
	return dec.done()
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
