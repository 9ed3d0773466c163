package manifest

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// decoder fills Go values from a tree and collects every mistake.
type decoder struct {
	src    *source
	ignore map[string]bool // paths that are read without effect
	errs   Errors

	settings bool // durations have a type of their own, and a number is text where text is wanted
	loose    bool // scalars are taken for each other, as CloudFormation does
}

func (dec *decoder) fail(at pos, path, msg string) { dec.wrong(&value{at: at}, path, msg) }

// wrong is fail about a value, which may be right once it has one.
func (dec *decoder) wrong(v *value, path, msg string) {
	if len(dec.errs) < MaxErrors {
		e := dec.src.errorAt(v.at, path, msg)
		e.Unfilled = v.unfilled
		dec.errs = append(dec.errs, e)
	}
}

// unknown refuses a field that is none of known.
func (dec *decoder) unknown(at pos, path, name string, known []string) {
	if len(dec.errs) < MaxErrors {
		msg, meant := "unknown field", Nearest(name, known)
		if meant != "" {
			msg += "; did you mean " + meant + "?"
			meant = strings.TrimSuffix(path, name) + meant
		}
		e := dec.src.errorAt(at, path, msg)
		e.Unknown, e.Meant = true, meant
		dec.errs = append(dec.errs, e)
	}
}

func (dec *decoder) done() error {
	dec.errs.Sort()
	return dec.errs.OrNil()
}

// field decodes a required member of a document.
func (dec *decoder) field(path string, parent pos, v *value, into any) {
	p := reflect.ValueOf(into)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		panic(fmt.Sprintf("internal error: decode into %T", into))
	}
	if v == nil {
		dec.fail(parent, path, "is required")
		return
	}
	dec.into(path, v, p.Elem(), rule{})
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// into decodes one value that is not null.
func (dec *decoder) into(path string, v *value, to reflect.Value, r rule) {
	if v.shape == isBroken {
		return
	}
	if v.shape == isOpaque && !isText(to.Type()) {
		dec.unknowable(v, path, "cannot be known: "+v.why)
		return
	}
	if to.Kind() == reflect.Pointer {
		to.Set(reflect.New(to.Type().Elem()))
		dec.into(path, v, to.Elem(), r)
		return
	}
	if reflect.PointerTo(to.Type()).Implements(textUnmarshaler) {
		dec.text(path, v, to)
		return
	}
	if dec.settings && to.Type() == duration {
		dec.duration(path, v, to)
		return
	}
	switch to.Kind() {
	case reflect.Struct:
		dec.structure(path, v, to)
	case reflect.Slice:
		dec.list(path, v, to, r)
	case reflect.Map:
		dec.mapping(path, v, to)
	case reflect.String:
		if v.shape == isOpaque {
			to.SetString(v.text)
			if problem := r.text(v.text); problem != "" {
				dec.unknowable(v, path, "cannot be known: "+v.why)
			}
			return
		}
		if dec.wants(path, v, isString) {
			to.SetString(v.text)
			if problem := r.text(v.text); problem != "" {
				dec.wrong(v, path, problem)
			}
		}
	case reflect.Bool:
		if v = dec.scalar(v, isBool); dec.wants(path, v, isBool) {
			to.SetBool(v.flag)
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		dec.integer(path, v, to, r)
	default:
		panic(fmt.Sprintf("internal error: %s: cannot decode into %s", path, to.Type()))
	}
}

// wants reports a value of another shape, with the way out where it is known.
func (dec *decoder) wants(path string, v *value, want shape) bool {
	if v.shape == want || dec.settings && want == isString && v.shape == isInt {
		return true
	}
	if dec.loose && want == isString && (v.shape == isInt || v.shape == isBool || v.shape == isFloat) {
		return true
	}
	hint := ""
	switch {
	case len(v.unfilled) > 0:
		dec.wrong(v, path, fmt.Sprintf("must be %s, and %s has no value", want, v.text))
		return false
	case want == isString && v.shape < isString && v.shape != isNull:
		hint = ": quote it"
	case want != isString && v.shape == isString && (want == isInt || want == isBool):
		hint = ": write it without quotes"
	}
	dec.fail(v.at, path, fmt.Sprintf("must be %s, is %s%s", want, v.shape, hint))
	return false
}

// isText reports whether a text can stand for a value of the type.
func isText(t reflect.Type) bool {
	return t.Kind() == reflect.String || t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.String
}

func (dec *decoder) unknowable(v *value, path, msg string) {
	if len(dec.errs) < MaxErrors {
		e := dec.src.errorAt(v.at, path, msg)
		e.Unknowable = true
		dec.errs = append(dec.errs, e)
	}
}

// scalar is v in the shape that is wanted, where its text says so and scalars are taken
// for each other.
func (dec *decoder) scalar(v *value, want shape) *value {
	if !dec.loose || v.shape != isString {
		return v
	}
	as := *v
	switch n, err := strconv.ParseInt(v.text, 10, 64); {
	case want == isInt && err == nil:
		as.shape, as.number = isInt, n
	case want == isBool && (strings.EqualFold(v.text, "true") || strings.EqualFold(v.text, "false")):
		as.shape, as.flag = isBool, strings.EqualFold(v.text, "true")
	}
	return &as
}

func (dec *decoder) check(path string, at pos, problem string) {
	if problem != "" {
		dec.fail(at, path, problem)
	}
}

func (dec *decoder) text(path string, v *value, to reflect.Value) {
	if !dec.wants(path, v, isString) {
		return
	}
	if err := to.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(v.text)); err != nil {
		dec.wrong(v, path, err.Error())
	}
}

func (dec *decoder) integer(path string, v *value, to reflect.Value, r rule) {
	if v = dec.scalar(v, isInt); !dec.wants(path, v, isInt) {
		return
	}
	if problem := r.number(v.number); problem != "" {
		dec.fail(v.at, path, problem)
		return
	}
	switch {
	case to.CanInt() && !to.OverflowInt(v.number):
		to.SetInt(v.number)
	case to.CanUint() && v.number >= 0 && !to.OverflowUint(uint64(v.number)):
		to.SetUint(uint64(v.number))
	default:
		dec.fail(v.at, path, fmt.Sprintf("%d is out of range", v.number))
	}
}

// list leaves an empty list nil: absent and empty mean the same in this model.
func (dec *decoder) list(path string, v *value, to reflect.Value, r rule) {
	if !dec.wants(path, v, isList) {
		return
	}
	dec.check(path, v.at, r.items.problem("items", len(v.items)))
	if len(v.items) == 0 {
		return
	}
	out := reflect.MakeSlice(to.Type(), len(v.items), len(v.items))
	for i, item := range v.items {
		at := fmt.Sprintf("%s[%d]", path, i)
		if item.shape == isNull {
			dec.fail(item.at, at, "is empty")
			continue
		}
		dec.into(at, item, out.Index(i), r.ofEach())
	}
	to.Set(out)
}

func (dec *decoder) mapping(path string, v *value, to reflect.Value) {
	if !dec.wants(path, v, isMap) || len(v.fields) == 0 {
		return
	}
	out := reflect.MakeMapWithSize(to.Type(), len(v.fields))
	for _, f := range v.fields {
		at := fmt.Sprintf("%s[%q]", path, f.name)
		if f.val.shape == isNull {
			dec.fail(f.at, at, "is empty")
			continue
		}
		member := reflect.New(to.Type().Elem()).Elem()
		dec.into(at, f.val, member, rule{})
		out.SetMapIndex(reflect.ValueOf(f.name).Convert(to.Type().Key()), member)
	}
	to.Set(out)
}

func (dec *decoder) structure(path string, v *value, to reflect.Value) {
	if !dec.wants(path, v, isMap) {
		return
	}
	members := membersOf(to.Type())
	names := make([]string, len(members))
	for i, m := range members {
		names[i] = m.name
		dec.member(below(path, m.name), v, m, to.Field(m.index))
	}
	for _, f := range v.fields {
		if at := below(path, f.name); !slices.Contains(names, f.name) && !dec.ignore[at] {
			dec.unknown(f.at, at, f.name, names)
		}
	}
	dec.oneOf(path, v, members)
}

func (dec *decoder) member(path string, parent *value, m member, to reflect.Value) {
	v := parent.get(m.name)
	if v != nil {
		dec.into(path, v, to, m.rule)
		return
	}
	if m.rule.required {
		dec.fail(parent.at, path, "is required")
	}
}

// oneOf checks a union: of the members so marked exactly one is given.
func (dec *decoder) oneOf(path string, v *value, members []member) {
	var all, given []string
	for _, m := range members {
		if !m.rule.one {
			continue
		}
		all = append(all, m.name)
		if v.get(m.name) != nil {
			given = append(given, m.name)
		}
	}
	if len(all) == 0 || len(given) == 1 {
		return
	}
	has := "none is given"
	if len(given) > 1 {
		has = strings.Join(given, " and ") + " are given"
	}
	dec.fail(v.at, path, fmt.Sprintf("needs exactly one of %s; %s", strings.Join(all, ", "), has))
}
