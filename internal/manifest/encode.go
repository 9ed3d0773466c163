package manifest

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Encode writes a manifest in canonical form: fields in the order of the types,
// names by their tags as Decode reads them. spec points to a struct.
//
// It is written here and not by the YAML library so that it means the same to
// readers of YAML 1.1 (kubectl) and 1.2: whatever either could take for
// something else than a string is quoted.
func Encode(apiVersion, kind string, meta Meta, spec any) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "apiVersion: %s\nkind: %s\nmetadata:\n", apiVersion, kind)
	w := writer{&b}
	w.fields(reflect.ValueOf(meta), "  ")
	w.member("spec", reflect.ValueOf(spec).Elem(), "")
	return b.Bytes()
}

type writer struct{ b *bytes.Buffer }

func (w writer) fields(v reflect.Value, indent string) {
	for _, m := range membersOf(v.Type()) {
		if f := v.Field(m.index); !m.omitEmpty || !f.IsZero() {
			w.member(m.name, f, indent)
		}
	}
}

// member writes one line, or a line and an indented block.
func (w writer) member(name string, v reflect.Value, indent string) {
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	w.b.WriteString(indent + name + ":")
	switch {
	case v.Kind() == reflect.Struct && !allOmitted(v):
		w.b.WriteString("\n")
		w.fields(v, indent+"  ")
	case v.Kind() == reflect.Struct:
		w.b.WriteString(" {}\n")
	case v.Kind() == reflect.Map && v.Len() > 0:
		w.b.WriteString("\n")
		members := v.Interface().(map[string]string)
		for _, key := range slices.Sorted(maps.Keys(members)) {
			fmt.Fprintf(w.b, "%s  %s: %s\n", indent, quote(key), quote(members[key]))
		}
	case v.Kind() == reflect.Slice && v.Len() > 0:
		w.b.WriteString("\n")
		for i := range v.Len() {
			w.item(v.Index(i), indent+"  ")
		}
	case v.Kind() == reflect.Slice:
		w.b.WriteString(" []\n")
	case v.Kind() == reflect.Map:
		w.b.WriteString(" {}\n")
	default:
		w.b.WriteString(" " + scalarText(v) + "\n")
	}
}

// item writes a list's item; a struct's first field stands beside the hyphen.
func (w writer) item(v reflect.Value, indent string) {
	if v.Kind() != reflect.Struct {
		w.b.WriteString(indent + "- " + scalarText(v) + "\n")
		return
	}
	if allOmitted(v) {
		w.b.WriteString(indent + "- {}\n")
		return
	}
	start := w.b.Len()
	w.fields(v, indent+"  ")
	w.b.Bytes()[start+len(indent)] = '-'
}

func allOmitted(v reflect.Value) bool {
	for _, m := range membersOf(v.Type()) {
		if !m.omitEmpty || !v.Field(m.index).IsZero() {
			return false
		}
	}
	return true
}

func scalarText(v reflect.Value) string {
	switch {
	case v.Kind() == reflect.String:
		return quote(v.String())
	case v.Kind() == reflect.Bool:
		return strconv.FormatBool(v.Bool())
	case v.CanInt():
		return strconv.FormatInt(v.Int(), 10)
	case v.CanUint():
		return strconv.FormatUint(v.Uint(), 10)
	}
	panic(fmt.Sprintf("internal error: no YAML for %s", v.Type()))
}

// notText are words that some reader takes for something else than a string.
var notText = []string{"true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"}

// cutWord takes from the front of a text what any reader takes for a string without quotes. It is
// not ok where that is no word, or one of notText.
func cutWord(text string) (word, rest string, ok bool) {
	n := 0
	for n < len(text) && (isLetter(text[n]) || n > 0 && isInWord(text[n])) {
		n++
	}
	word = text[:n]
	return word, text[n:], n > 0 && !slices.Contains(notText, strings.ToLower(word))
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '/' }

// isInWord is of what a word has beside letters.
func isInWord(c byte) bool { return '0' <= c && c <= '9' || c == '_' || c == '.' || c == '-' }

// Quote is a string as a YAML value, in quotes where any reader could take it for something else.
func Quote(s string) string { return quote(s) }

func quote(s string) string {
	if _, rest, ok := cutWord(s); ok && rest == "" {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case strconv.IsPrint(r):
			b.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
