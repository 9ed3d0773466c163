package sandbox

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strconv"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// The evaluator looks at the budget between expressions, and a builtin runs to its
// end. So no builtin begins whose operands could make it run long or fill the
// memory: what it reads, what it can make of that, and how often it can go over it
// are bounded before it is called. A request has at most some 100 KiB, and policies
// that look up values in tables of their own do so by references, not by builtins.
const (
	maxOperands  = 1 << 20  // bytes of all operands of a call, with everything that is repeated in them
	maxResult    = 1 << 20  // bytes that a call may make of them
	maxWork      = 16 << 20 // steps of those that go over one operand for each part of another
	maxBuiltins  = 64 << 20 // bytes of all calls of one evaluation, operands and results
	dearCall     = 64 << 10 // of both: the budget is looked at before such a call, too
	maxDepthOf   = 256      // of a value that is walked
	maxDigits    = 1024     // of a number, and of what its exponent stands for
	maxRegexText = 64 << 10 // more than a header has
	maxKeyText   = 16 << 10 // of keys, certificates and tokens: the cost of RSA is quadratic
	perTerm      = 16       // what a term counts beside its text
	maxPrograms  = 256      // regular expressions whose size is remembered

	// fenceCode marks the evaluator's errors that come from here.
	fenceCode = "policy_too_large"
)

// errFence is what a call fails with whose operands are too large.
var errFence = errors.New("more than a builtin may be given")

// Fence puts the fence before all builtins, once: they are the evaluator's, for
// the whole program, and tests of policies are held to the same.
func Fence() { fence() }

var fence = sync.OnceFunc(func() {
	for _, name := range builtinNames() {
		if f := topdown.GetBuiltin(name); f != nil && !unmeasured[name] {
			topdown.RegisterBuiltinFunc(name, fenced(name, f))
		}
	}
})

// unmeasured are builtins that do not go into their operands, so that these cost
// nothing however large they are.
var unmeasured = map[string]bool{
	"count": true, "object.get": true, "object.keys": true, "array.slice": true, "type_name": true,
	"is_array": true, "is_boolean": true, "is_null": true, "is_number": true, "is_object": true, "is_set": true, "is_string": true,
	"time.now_ns": true, "internal.print": true, "print": true, "internal.test_case": true,
}

func fenced(name string, f topdown.BuiltinFunc) topdown.BuiltinFunc {
	return func(bctx topdown.BuiltinContext, operands []*ast.Term, iter func(*ast.Term) error) error {
		cost, work, err := costOf(name, operands)
		if b, ok := bctx.Cancel.(*Budget); ok && err == nil {
			if err = b.charge(cost, work); err == nil && cost+work > dearCall && b.Cancelled() {
				return topdown.Halt{Err: &topdown.Error{Code: topdown.CancelErr, Location: bctx.Location}}
			}
		}
		if err != nil {
			// Halt, since an error of a builtin is "undefined" in package envoy.authz,
			// and a refusal that hangs on it would not be.
			return topdown.Halt{Err: &topdown.Error{Code: fenceCode, Message: fmt.Sprintf("%s: %v", name, err), Location: bctx.Location}}
		}
		return f(bctx, operands, iter)
	}
}

// costOf is the bytes that a call reads and may make, and the steps of its work, or an
// error where either is more than one call may have.
func costOf(name string, operands []*ast.Term) (cost, work int, err error) {
	m := measure{left: maxOperands}
	if most, ok := mostOperands[name]; ok {
		m.left = most
	}
	most := m.left
	for _, o := range operands {
		if !m.value(o.Value, 0) {
			return 0, 0, fmt.Errorf("%w: operands of more than %d bytes, %d levels or %d digits", errFence, most, maxDepthOf, maxDigits)
		}
	}
	cost = most - m.left
	if result, ok := results[name]; ok {
		n := result(operands)
		if n < 0 || n > maxResult {
			return 0, 0, fmt.Errorf("%w: a result of more than %d bytes", errFence, maxResult)
		}
		cost += n
	}
	if steps, ok := works[name]; ok {
		if work = steps(operands); work < 0 || work > maxWork {
			return 0, 0, fmt.Errorf("%w: more than %d steps", errFence, maxWork)
		}
	}
	return cost, work, nil
}

// measure counts a value with everything that is repeated in it: a value in which
// another stands twice is small in memory and large to whoever walks it.
type measure struct{ left int }

func (m *measure) value(v ast.Value, depth int) bool {
	m.left -= perTerm
	if m.left < 0 || depth > maxDepthOf {
		return false
	}
	switch v := v.(type) {
	case ast.String:
		m.left -= len(v)
	case ast.Number:
		m.left -= len(v)
		if digits(string(v)) > maxDigits {
			return false
		}
	case *ast.Array:
		return !v.Until(func(t *ast.Term) bool { return !m.value(t.Value, depth+1) })
	case ast.Set:
		return !v.Until(func(t *ast.Term) bool { return !m.value(t.Value, depth+1) })
	case ast.Object:
		return !v.Until(func(k, t *ast.Term) bool { return !m.value(k.Value, depth+1) || !m.value(t.Value, depth+1) })
	}
	return m.left >= 0
}

// digits is how many a number has when it is written without exponent.
func digits(text string) int {
	at := strings.IndexAny(text, "eE")
	if at < 0 {
		return len(text)
	}
	exponent, err := strconv.Atoi(text[at+1:])
	if err != nil {
		return maxDigits + 1
	}
	return len(text) + max(exponent, -exponent)
}

// mostOperands of builtins that cost more for each byte than others.
var mostOperands = map[string]int{
	"regex.match": maxRegexText, "re_match": maxRegexText, "regex.find_n": maxRegexText, "regex.split": maxRegexText, "regex.replace": maxRegexText,
	"regex.find_all_string_submatch_n": maxRegexText, "regex.template_match": maxRegexText, "glob.match": maxRegexText,
	"json.unmarshal": 256 << 10, "yaml.unmarshal": 64 << 10, "yaml.marshal": 256 << 10, "yaml.is_valid": 64 << 10,
	"json.is_valid": 256 << 10, "json.patch": 256 << 10, "json.filter": 256 << 10, "json.remove": 256 << 10,
	"walk":                      256 << 10,
	"crypto.parse_private_keys": maxKeyText, "crypto.x509.parse_and_verify_certificates": maxKeyText,
	"crypto.x509.parse_and_verify_certificates_with_options": maxKeyText, "crypto.x509.parse_certificate_request": maxKeyText,
	"crypto.x509.parse_certificates": maxKeyText, "crypto.x509.parse_keypair": maxKeyText, "crypto.x509.parse_rsa_private_key": maxKeyText,
	"io.jwt.decode": maxKeyText, "io.jwt.decode_verify": maxKeyText,
	"io.jwt.verify_eddsa": maxKeyText, "io.jwt.verify_es256": maxKeyText, "io.jwt.verify_es384": maxKeyText, "io.jwt.verify_es512": maxKeyText,
	"io.jwt.verify_hs256": maxKeyText, "io.jwt.verify_hs384": maxKeyText, "io.jwt.verify_hs512": maxKeyText,
	"io.jwt.verify_ps256": maxKeyText, "io.jwt.verify_ps384": maxKeyText, "io.jwt.verify_ps512": maxKeyText,
	"io.jwt.verify_rs256": maxKeyText, "io.jwt.verify_rs384": maxKeyText, "io.jwt.verify_rs512": maxKeyText,
}

// results is how many bytes at most a builtin makes of operands that were measured,
// for those that can make more than they are given.
var results = map[string]func([]*ast.Term) int{
	"concat":  func(o []*ast.Term) int { return text(o, 0) * count(o, 1) },
	"replace": func(o []*ast.Term) int { return strings.Count(strAt(o, 0), strAt(o, 1)) * text(o, 2) },
	"strings.replace_n": func(o []*ast.Term) int {
		longest := 0
		if patterns, ok := o[0].Value.(ast.Object); ok {
			patterns.Foreach(func(_, v *ast.Term) {
				if s, ok := v.Value.(ast.String); ok {
					longest = max(longest, len(s))
				}
			})
		}
		return (text(o, 1) + 1) * longest
	},
	"regex.replace": func(o []*ast.Term) int {
		return (text(o, 0)+1)*text(o, 2) + strings.Count(strAt(o, 2), "$")*text(o, 0)
	},
	"sprintf": func(o []*ast.Term) int {
		const escaped = 10 // \U0010ffff
		return strings.Count(strAt(o, 0), "%")*escaped*sizeOf(o[1]) + widths(strAt(o, 0))
	},
	"bits.lsh":           func(o []*ast.Term) int { return whole(o, 1) },
	"numbers.range":      func(o []*ast.Term) int { return perTerm * steps(difference(o), 1) },
	"numbers.range_step": func(o []*ast.Term) int { return perTerm * steps(difference(o), max(1, whole(o, 2))) },
	"product":            sizeOfAll,
	"yaml.unmarshal":     func(o []*ast.Term) int { return aliases(strAt(o, 0)) },
	"yaml.is_valid":      func(o []*ast.Term) int { return aliases(strAt(o, 0)) },
}

// works is how many steps a builtin takes at most, for those that go over an operand
// more than once.
var works = map[string]func([]*ast.Term) int{
	// What is looked for is prepared in quadratic time.
	"replace": func(o []*ast.Term) int { return text(o, 1) * text(o, 1) },
	"strings.replace_n": func(o []*ast.Term) int {
		longest := 0
		if patterns, ok := o[0].Value.(ast.Object); ok {
			patterns.Foreach(func(k, _ *ast.Term) {
				if s, ok := k.Value.(ast.String); ok {
					longest = max(longest, len(s))
				}
			})
		}
		return longest * longest
	},
	"indexof": product, "indexof_n": product, "strings.count": product,
	"trim": product, "trim_left": product, "trim_right": product,
	"strings.any_prefix_match": product, "strings.any_suffix_match": product,
	"net.cidr_contains_matches": product, "object.subset": product,
	"internal.member_2": func(o []*ast.Term) int { return sizeOf(o[0]) * count(o, 1) },
	"internal.member_3": func(o []*ast.Term) int { return (sizeOf(o[0]) + sizeOf(o[1])) * count(o, 2) },
	"json.patch":        product, "json.filter": product, "json.remove": product,
	"net.cidr_merge": func(o []*ast.Term) int { return 1024 * count(o, 0) },
	"product":        func(o []*ast.Term) int { return sizeOf(o[0]) * sizeOf(o[0]) / 64 },
	"regex.match":    func(o []*ast.Term) int { return matchWork(o, 0, 1) },
	"re_match":       func(o []*ast.Term) int { return matchWork(o, 0, 1) },
	"regex.is_valid": func(o []*ast.Term) int { return regexSize(o, 0) },
	"regex.find_n":   func(o []*ast.Term) int { return matchWork(o, 0, 1) },
	"regex.split":    func(o []*ast.Term) int { return matchWork(o, 0, 1) },
	"regex.replace":  func(o []*ast.Term) int { return matchWork(o, 1, 0) },
	"regex.find_all_string_submatch_n": func(o []*ast.Term) int {
		return matchWork(o, 0, 1) + 64*strings.Count(strAt(o, 0), "(")*(text(o, 1)+1)
	},
	"regex.template_match": func(o []*ast.Term) int { return 1000 * text(o, 0) * (text(o, 1) + 1) },
	"glob.match":           func(o []*ast.Term) int { return (text(o, 0) + 1) * (text(o, 2) + 1) },
}

func strAt(o []*ast.Term, i int) string {
	s, _ := o[i].Value.(ast.String)
	return string(s)
}

func text(o []*ast.Term, i int) int { return len(strAt(o, i)) }

func sizeOf(t *ast.Term) int {
	m := measure{left: maxOperands}
	m.value(t.Value, 0)
	return maxOperands - m.left
}

func sizeOfAll(o []*ast.Term) int {
	n := 0
	for _, t := range o {
		n += sizeOf(t)
	}
	return n
}

// product is that of the sizes of the first two operands.
func product(o []*ast.Term) int { return sizeOf(o[0]) * sizeOf(o[1]) }

func count(o []*ast.Term, i int) int {
	switch v := o[i].Value.(type) {
	case *ast.Array:
		return v.Len()
	case ast.Set:
		return v.Len()
	case ast.Object:
		return v.Len()
	}
	return 1
}

// whole is the size of a whole number, without its sign; -1 is one that is too large.
func whole(o []*ast.Term, i int) int {
	n, ok := o[i].Value.(ast.Number)
	if !ok {
		return 0 // the builtin refuses it
	}
	v, ok := n.Int64()
	if !ok || v <= -maxOperands || v >= maxOperands {
		return -1
	}
	return int(max(v, -v))
}

// difference between the first two operands, -1 where it is too large.
func difference(o []*ast.Term) int {
	a, ok := o[0].Value.(ast.Number)
	b, ok2 := o[1].Value.(ast.Number)
	if !ok || !ok2 {
		return 0
	}
	x, ok := a.Int64()
	y, ok2 := b.Int64()
	const far = 1 << 40
	if !ok || !ok2 || max(x, -x) > far || max(y, -y) > far {
		return -1
	}
	return int(max(x-y, y-x))
}

// steps is how often a step fits into a range, -1 where the range is too large.
func steps(width, step int) int {
	if width < 0 {
		return -1
	}
	return width/step + 1
}

// widths is the sum of the numbers in a format: each may be a width. fmt takes none
// above a million, nor one from an operand ('*').
func widths(format string) int {
	const most = 1_000_000
	total, n := 0, 0
	for i := range len(format) {
		switch c := format[i]; {
		case '0' <= c && c <= '9':
			n = min(10*n+int(c-'0'), most)
		case c == '*':
			total += most
		default:
			total, n = total+n, 0
		}
	}
	return total + n
}

// aliases: what a name stands for may hold other names, so that a short text becomes
// a value of any size.
func aliases(yaml string) int {
	if strings.Contains(yaml, "&") && strings.Contains(yaml, "*") {
		return -1
	}
	return 0
}

// programs has the sizes of regular expressions; they are few and each is used often.
var programs = struct {
	sync.Mutex
	sizes map[string]int
}{sizes: map[string]int{}}

// regexSize is that of a regular expression when its repetitions are written out.
func regexSize(o []*ast.Term, i int) int {
	expr := strAt(o, i)
	programs.Lock()
	size, ok := programs.sizes[expr]
	programs.Unlock()
	if ok {
		return size
	}
	size = 1
	if re, err := syntax.Parse(expr, syntax.Perl); err == nil {
		size = instructions(re)
	}
	programs.Lock()
	defer programs.Unlock()
	if len(programs.sizes) >= maxPrograms {
		clear(programs.sizes)
	}
	if len(expr) <= 4096 {
		programs.sizes[expr] = size
	}
	return size
}

// matchWork: a step of a regular expression takes as long as four of others.
func matchWork(o []*ast.Term, expr, in int) int { return 4 * regexSize(o, expr) * (text(o, in) + 1) }

func instructions(re *syntax.Regexp) int {
	n := 1 + len(re.Rune)
	for _, sub := range re.Sub {
		n += instructions(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(1, re.Min, re.Max)
	}
	return min(n, maxWork)
}
