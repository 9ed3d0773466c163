package sandbox_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

func jsonNumber(s string) json.Number { return json.Number(s) }

// largeStrings are as large as a builtin is ever given, or just above.
func largeStrings() []*ast.Term {
	const most = 1 << 20
	var all []*ast.Term
	for _, s := range []string{
		"", "a", strings.Repeat("a", most-200), strings.Repeat("ä", most/4), strings.Repeat("9", 1000),
		strings.Repeat("[{},", 20_000), strings.Repeat("a.*", 300), strings.Repeat("%v", 1000),
		strings.Repeat("a", 60_000), "999999999999",
	} {
		all = append(all, ast.StringTerm(s))
	}
	return all
}

func largeNumbers() []*ast.Term {
	var all []*ast.Term
	for _, s := range []string{"0", "-1", "7", "65536", "1000000000", "1e308", "-1e308", strings.Repeat("9", 1000)} {
		all = append(all, ast.NumberTerm(json.Number(s)))
	}
	return all
}

func largeLists() []*ast.Term {
	var numbers, words, objects []*ast.Term
	for i := range 40_000 {
		numbers = append(numbers, ast.IntNumberTerm(i))
		words = append(words, ast.StringTerm("w"+strconv.Itoa(i)))
	}
	for i := range 8000 {
		objects = append(objects, ast.ObjectTerm(ast.Item(ast.StringTerm("op"), ast.StringTerm("add")),
			ast.Item(ast.StringTerm("path"), ast.StringTerm("/"+strconv.Itoa(i))), ast.Item(ast.StringTerm("value"), ast.IntNumberTerm(i))))
	}
	var nets []*ast.Term
	for i := range 20_000 {
		nets = append(nets, ast.StringTerm(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)))
	}
	return []*ast.Term{
		ast.ArrayTerm(), ast.ArrayTerm(numbers...), ast.SetTerm(words...), ast.ArrayTerm(words...),
		ast.ArrayTerm(objects...), ast.ArrayTerm(nets...), ast.SetTerm(ast.SetTerm(numbers...), ast.SetTerm(words...)), doubled(30),
	}
}

func largeObjects() []*ast.Term {
	var pairs, graph [][2]*ast.Term
	for i := range 20_000 {
		pairs = append(pairs, ast.Item(ast.StringTerm("k"+strconv.Itoa(i)), ast.StringTerm("v"+strconv.Itoa(i))))
	}
	for i := range 10_000 {
		graph = append(graph, ast.Item(ast.StringTerm("w"+strconv.Itoa(i)), ast.ArrayTerm(ast.StringTerm("w"+strconv.Itoa(i+1)), ast.StringTerm("w"+strconv.Itoa(i+2)))))
	}
	return []*ast.Term{ast.ObjectTerm(), ast.ObjectTerm(pairs...), ast.ObjectTerm(graph...)}
}

// doubled is a value of n arrays in memory and 2 to the n when it is written out.
func doubled(n int) *ast.Term {
	t := ast.ArrayTerm(ast.IntNumberTerm(1))
	for range n {
		t = ast.ArrayTerm(t, t)
	}
	return t
}

func nested(n int) *ast.Term {
	t := ast.ArrayTerm()
	for range n {
		t = ast.ArrayTerm(t)
	}
	return t
}

func repeat(t *ast.Term, n int) []*ast.Term {
	all := make([]*ast.Term, n)
	for i := range all {
		all[i] = t
	}
	return all
}
