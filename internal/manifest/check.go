package manifest

import (
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// rule is the `check` tag of a field, words separated by spaces:
//
//	required       the field must be given
//	one            of all fields so marked in this struct exactly one is given
//	min=1 max=9    bounds of a number
//	len=1..255     bounds of a string's length in characters; an end may be open
//	items=1..10    bounds of a list's length
//	enum=a,b       the values that there are
//	offer=a        those of them that whoever wrote another one is told of: the
//	               rest is refused by name elsewhere, and would only mislead
//	pattern=path   one of the named patterns below
//	each.X         word X holds for each item of a list
//
// The API model's constraints (AM-constraints) are written in these words; a
// test compares them with the CRDs.
type rule struct {
	required, one bool
	min, max      *int64
	len, items    bounds
	enum, offer   []string
	pattern       string
	each          *rule
}

// bounds are inclusive; set says that there are any.
type bounds struct {
	low, high int
	set       bool
}

func (b bounds) problem(unit string, n int) string {
	switch {
	case !b.set || n >= b.low && n <= b.high:
		return ""
	case b.low == b.high:
		return fmt.Sprintf("has %d %s; must have %d", n, unit, b.low)
	case b.high == math.MaxInt:
		return fmt.Sprintf("has %d %s; must have at least %d", n, unit, b.low)
	default:
		return fmt.Sprintf("has %d %s; must have %d to %d", n, unit, b.low, b.high)
	}
}

func (r rule) ofEach() rule {
	if r.each == nil {
		return rule{}
	}
	return *r.each
}

// number reports what is wrong with n, "" if nothing is.
func (r rule) number(n int64) string {
	switch {
	case r.min != nil && r.max != nil && (n < *r.min || n > *r.max):
		return fmt.Sprintf("%d is not within %d to %d", n, *r.min, *r.max)
	case r.min != nil && n < *r.min:
		return fmt.Sprintf("%d is less than %d", n, *r.min)
	case r.max != nil && n > *r.max:
		return fmt.Sprintf("%d is more than %d", n, *r.max)
	}
	return ""
}

// CheckText returns what is wrong with s by a pattern's name, "" if nothing is:
// for what no field's tag can say.
func CheckText(pattern, s string) string { return rule{pattern: pattern}.text(s) }

// text reports what is wrong with s, "" if nothing is.
func (r rule) text(s string) string {
	if len(r.enum) > 0 && !slices.Contains(r.enum, s) {
		if len(r.offer) == 1 {
			return fmt.Sprintf("%q is not known; this version takes %s", Clip(s), r.offer[0])
		}
		values := r.enum
		if len(r.offer) > 0 {
			values = r.offer
		}
		return fmt.Sprintf("%q is not one of %s", Clip(s), strings.Join(values, ", "))
	}
	if p := r.len.problem("characters", utf8.RuneCountInString(s)); p != "" {
		return p
	}
	if r.pattern == "" {
		return ""
	}
	if p := patterns[r.pattern]; !p.re.MatchString(s) || p.segments && hasDotSegment(s) {
		return fmt.Sprintf("%q %s", Clip(s), p.says)
	}
	return ""
}

// patterns are full matches, each with what a violation is told.
var patterns = map[string]struct {
	re       *regexp.Regexp
	says     string
	segments bool // "." and ".." are refused between slashes
}{
	// AM-constraints; in the class !-~ the model means any visible ASCII character.
	"cloudMapKey":   {regexp.MustCompile(`^[!-~]+$`), "must be visible ASCII characters", false},
	"cloudMapValue": {regexp.MustCompile(`^[!-~][ \t!-~]*$`), "must be ASCII characters and not begin with a space", false},
	// A path is compared with what Envoy makes of the request's: normalised,
	// slashes merged, without query (D20); any other never matches.
	"path": {regexp.MustCompile(`^/([^/?#\s]+/)*[^/?#\s]*$`), "must start with / and be a path without //, dot segments, query, fragment or space", true},
	// RFC 9110 5.6.2.
	"token": {regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"), "is not a header name", false},
	// SPIFFE-ID 2.2: names become path segments.
	"segment":   {regexp.MustCompile(`^[A-Za-z0-9._-]+$`), "must be letters, digits, dot, underscore and hyphen, and not only a dot or two", true},
	"namespace": {regexp.MustCompile(`^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$`), "must be lower-case letters, digits and inner hyphens", false},
	// A virtual service's name is what callers send as host.
	"host": {regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?$`), "must be a host name", false},
}

func hasDotSegment(s string) bool {
	for segment := range strings.SplitSeq(s, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// member is one field of a struct as YAML sees it.
type member struct {
	name      string
	index     int
	omitEmpty bool
	rule      rule
}

var memberCache sync.Map // reflect.Type -> []member: types are few and never change

func membersOf(t reflect.Type) []member {
	if m, ok := memberCache.Load(t); ok {
		return m.([]member)
	}
	var out []member
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("yaml")
		if tag == "" {
			tag = f.Tag.Get("json")
		}
		name, opts, _ := strings.Cut(tag, ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name[:1]) + f.Name[1:]
		}
		out = append(out, member{name, i, strings.Contains(opts, "omitempty"), parseRule(f.Tag.Get("check"))})
	}
	memberCache.Store(t, out)
	return out
}

// parseRule panics on a word it does not know: tags are source code.
func parseRule(tag string) rule {
	var r rule
	var each []string
	for word := range strings.FieldsSeq(tag) {
		if rest, ok := strings.CutPrefix(word, "each."); ok {
			each = append(each, rest)
			continue
		}
		name, arg, _ := strings.Cut(word, "=")
		switch name {
		case "required":
			r.required = true
		case "one":
			r.one = true
		case "min":
			r.min = mustInt(arg)
		case "max":
			r.max = mustInt(arg)
		case "len":
			r.len = mustBounds(arg)
		case "items":
			r.items = mustBounds(arg)
		case "enum":
			r.enum = strings.Split(arg, ",")
		case "offer":
			r.offer = strings.Split(arg, ",")
		case "pattern":
			if r.pattern = arg; patterns[arg].re == nil {
				panic("internal error: no pattern " + arg)
			}
		default:
			panic("internal error: check tag has the word " + word)
		}
	}
	if each != nil {
		e := parseRule(strings.Join(each, " "))
		r.each = &e
	}
	return r
}

func mustInt(s string) *int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic("internal error: check tag has the number " + s)
	}
	return &n
}

func mustBounds(s string) bounds {
	low, high, _ := strings.Cut(s, "..")
	b := bounds{low: int(*mustInt(low)), high: math.MaxInt, set: true}
	if high != "" {
		b.high = int(*mustInt(high))
	}
	return b
}

// Nearest returns the word that was probably meant by name, which is none of
// them; "" where all are further away than a typing mistake.
func Nearest(name string, words []string) string {
	best, at := "", 3 // further than two edits is no typing mistake
	for _, w := range words {
		if strings.EqualFold(w, name) {
			return w
		}
		if d := edits(name, w); d < at && d < len(w) {
			best, at = w, d
		}
	}
	return best
}

// edits is the Levenshtein distance, or 3 for names that differ much in length.
func edits(a, b string) int {
	if len(a) > len(b)+2 || len(b) > len(a)+2 {
		return 3
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
