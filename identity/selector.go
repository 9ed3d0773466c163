package identity

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

const (
	maxSelectors     = 32
	maxSelectorBytes = 4096 + 16 // PATH_MAX and "unix:path:"
	maxNameBytes     = 253
)

// Selector is one attested property of a workload, such as unix:uid:1000:
// Type "unix", Value "uid:1000".
type Selector struct{ Type, Value string }

// String returns "type:value".
func (s Selector) String() string { return s.Type + ":" + s.Value }

// ParseSelector parses "type:value". It checks the form only; which selectors there
// are is known to those who attest (attestation.CheckWorkload, nodes.CheckGroup).
func ParseSelector(s string) (Selector, error) {
	if len(s) > maxSelectorBytes {
		return Selector{}, fmt.Errorf("selector of %d bytes: at most %d", len(s), maxSelectorBytes)
	}
	typ, value, ok := strings.Cut(s, ":")
	if !ok || typ == "" || value == "" {
		return Selector{}, fmt.Errorf("selector %s: want type:value, such as unix:path:/usr/bin/web", Abbreviate(s))
	}
	for _, c := range typ {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return Selector{}, fmt.Errorf("selector %s: a type has only a-z, 0-9, - and _", Abbreviate(s))
		}
	}
	if !Printable(value) {
		return Selector{}, fmt.Errorf("selector %s: control characters or invalid UTF-8", Abbreviate(s))
	}
	return Selector{Type: typ, Value: value}, nil
}

// Forms are the selectors that a method of attestation gives, such as unix:uid, each
// with a check of its value. No form begins another one.
type Forms map[string]func(value string) error

// Check refuses selectors of no form, so that a typing mistake is an error and not a
// grant that never fits, at their places in a spec. What Build refuses is not looked at.
func (f Forms) Check(selectors []string) error {
	var errs []error
	for i, s := range selectors[:min(len(selectors), maxSelectors)] {
		sel, err := ParseSelector(s)
		if err != nil {
			continue
		}
		if err := f.check(sel.String()); err != nil {
			errs = append(errs, NewFieldError(fmt.Sprintf("spec.selectors[%d]", i), "selector %s: %v", Abbreviate(s), err))
		}
	}
	return errors.Join(errs...)
}

// Has reports whether an entry can ask for a selector.
func (f Forms) Has(s Selector) bool { return f.check(s.String()) == nil }

func (f Forms) check(s string) error {
	for form, check := range f {
		if value, ok := strings.CutPrefix(s, form+":"); ok {
			return check(value)
		}
		if s == form {
			return fmt.Errorf("want %s:<value>", form)
		}
	}
	return fmt.Errorf("not known; known are %s", strings.Join(slices.Sorted(maps.Keys(f)), ", "))
}

// CheckNumber accepts only the form in which the attestor writes a number:
// "007" would be a selector that never fits.
func CheckNumber(s string) error {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || strconv.FormatUint(n, 10) != s {
		return fmt.Errorf("want a decimal number of 32 bits")
	}
	return nil
}

// CheckName accepts the names of groups, proxies and objects of Signet's own
// kinds: the letters of a SPIFFE ID's path segment (SPIFFE-ID 2.2), so that a
// name can stand in one. None of them is a pattern anywhere.
func CheckName(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("a name is needed")
	case len(s) > maxNameBytes:
		return fmt.Errorf("name of %d bytes: at most %d", len(s), maxNameBytes)
	case s == "." || s == "..":
		return fmt.Errorf("name %q: not allowed", s)
	case s[0] == '-':
		return fmt.Errorf("name %s: must not begin with -", Abbreviate(s))
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return fmt.Errorf("name %s: only letters, digits, . _ and - are allowed", Abbreviate(s))
		}
	}
	return nil
}

// Selectors is a set of selectors: what a workload has, or what an entry asks for.
type Selectors []Selector

// ParseSelectors parses each of s.
func ParseSelectors(s []string) (Selectors, error) {
	out := make(Selectors, 0, len(s))
	for _, one := range s {
		sel, err := ParseSelector(one)
		if err != nil {
			return nil, err
		}
		out = append(out, sel)
	}
	return out, nil
}

// Contains reports whether each of all is among s, by exact equality.
func (s Selectors) Contains(all Selectors) bool {
	for _, want := range all {
		if !slices.Contains(s, want) {
			return false
		}
	}
	return true
}

// CompatibleWith reports whether one process can have both: no kind of selector,
// of which a process has one value, is asked for with two.
func (s Selectors) CompatibleWith(o Selectors) bool {
	for _, a := range s {
		for _, b := range o {
			if a.Type == b.Type && a.kind() == b.kind() && a.Value != b.Value {
				return false
			}
		}
	}
	return true
}

// kind is the value up to its last colon: uid of uid:1000, label:team of label:team:shop.
func (s Selector) kind() string { return s.Value[:max(0, strings.LastIndexByte(s.Value, ':'))] }

// Strings returns the selectors as "type:value", in their order.
func (s Selectors) Strings() []string {
	out := make([]string, len(s))
	for i, sel := range s {
		out[i] = sel.String()
	}
	return out
}

// buildWorkloadSelectors is for the specs whose selectors grant an identity:
// at least one, since an empty set would fit every process on the host.
func buildWorkloadSelectors(specs []string) (Selectors, error) {
	if len(specs) == 0 {
		return nil, NewFieldError("spec.selectors", "at least one selector is needed: without any, every process would fit")
	}
	return buildSelectors(specs)
}

func buildSelectors(specs []string) (Selectors, error) {
	const field = "spec.selectors"
	if len(specs) > maxSelectors {
		return nil, NewFieldError(field, "%d selectors: at most %d", len(specs), maxSelectors)
	}
	var out Selectors
	var errs []error
	for i, one := range specs {
		at := fmt.Sprintf("%s[%d]", field, i)
		sel, err := ParseSelector(one)
		switch {
		case err != nil:
			errs = append(errs, &FieldError{Path: at, Msg: err.Error()})
		case slices.Contains(out, sel):
			errs = append(errs, NewFieldError(at, "selector %s is given twice", Abbreviate(one)))
		default:
			out = append(out, sel)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return out, nil
}
