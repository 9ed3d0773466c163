package mesh

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"signet.example/internal/manifest"
)

// maxProgram is the size of a compiled expression that Envoy takes (its
// re2.max_program_size.error_level): a larger one would be refused by every proxy
// that it reaches.
const maxProgram = 100

// regex refuses what Envoy's RE2 would refuse, or read in another way than we do.
func (ru *ruler) regex(path, expression string) {
	if expression == "" {
		return
	}
	if why := RegexProblem(expression); why != "" {
		ru.fail(path, "%q %s", manifest.Clip(expression), why)
	}
}

// RegexProblem is why Envoy would refuse an expression, or read it in another way than Go
// does; "" where it does neither.
func RegexProblem(expression string) string {
	// Envoy's RE2 reads expressions and values byte by byte.
	if strings.ContainsFunc(expression, func(r rune) bool { return r > 0x7e || r < 0x20 }) {
		return "is not visible ASCII, of which regular expressions are made here"
	}
	tree, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return fmt.Sprintf("is not a regular expression of RE2: %v", err)
	}
	if dotAlternative.MatchString(expression) { // our parser takes a dot and a class for one dot, RE2 counts both
		return "has a dot as one of several alternatives, of which Envoy makes a larger program than can be told here; write a class such as [^/] in its place"
	}
	if size := programSize(tree); size > maxProgram {
		return fmt.Sprintf("is too large an expression for Envoy: its program has about %d instructions, at most %d are taken; write it shorter, or split the route", size, maxProgram)
	}
	return ""
}

// dotAlternative finds a dot that is, or ends with, an alternative of its own.
var dotAlternative = regexp.MustCompile(`\.\)*\||\|(?:\((?:\?:)?)*\.(?:[^*+?{]|$)`)

// fixed instructions of a program: failure, match, and the two round it.
const programFrame = 4

// programSize is at least what RE2 makes of an expression over bytes. What it finds
// in common between alternatives is not counted, so that it may be less.
func programSize(tree *syntax.Regexp) int { return programFrame + instructions(tree) }

func instructions(re *syntax.Regexp) int {
	sum := 0
	for _, sub := range re.Sub {
		sum += instructions(sub)
		if sum > maxProgram { // enough is known, and a repetition of it stays a number
			sum = maxProgram + 1
		}
	}
	switch re.Op {
	case syntax.OpLiteral:
		return len(re.Rune)
	case syntax.OpCharClass:
		return byteRanges(re.Rune)
	case syntax.OpAnyCharNotNL:
		return 2
	case syntax.OpCapture:
		return sum + 2
	case syntax.OpStar, syntax.OpPlus, syntax.OpQuest:
		return sum + choice(re)
	case syntax.OpRepeat: // as often as it must be there, and a choice for each time more
		return re.Min*sum + max(re.Max-re.Min, 1)*(sum+choice(re))
	case syntax.OpAlternate:
		return sum + len(re.Sub) - 1
	case syntax.OpConcat:
		return sum
	default: // one place between two bytes, any byte, nothing
		return 1
	}
}

// choice is what it costs to repeat, more where nothing can be repeated, too.
func choice(re *syntax.Regexp) int {
	if canBeEmpty(re.Sub[0]) {
		return 4
	}
	return 2
}

func canBeEmpty(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpLiteral, syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL, syntax.OpNoMatch:
		return false
	case syntax.OpCapture, syntax.OpPlus:
		return canBeEmpty(re.Sub[0])
	case syntax.OpRepeat:
		return re.Min == 0 || canBeEmpty(re.Sub[0])
	case syntax.OpConcat:
		return !slices.ContainsFunc(re.Sub, func(sub *syntax.Regexp) bool { return !canBeEmpty(sub) })
	case syntax.OpAlternate:
		return slices.ContainsFunc(re.Sub, canBeEmpty)
	default:
		return true
	}
}

// byteRanges counts those of a class's ranges that hold a byte.
func byteRanges(pairs []rune) int {
	n := 0
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i] <= 0xff {
			n++
		}
	}
	return max(n, 1) // one that holds none never matches
}
