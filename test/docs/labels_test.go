package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestMetricsPageHasTheLabelsThatExist(t *testing.T) {
	declared := map[string][]string{}
	for _, f := range metricsFiles(t) {
		file, err := parser.ParseFile(token.NewFileSet(), f, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if name, labels := metric(call); name != "" {
					declared[name] = labels
				}
			}
			return true
		})
	}
	label := regexp.MustCompile("`([a-z_]+)`")
	n := 0
	for _, m := range regexp.MustCompile("(?m)^\\| `(signet_[a-z0-9_]+)` \\|([^|]*)\\|").FindAllStringSubmatch(read(t, "docs", "METRICS.md"), -1) {
		var listed []string
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			listed = append(listed, l[1])
		}
		n++
		if want, ok := declared[m[1]]; !ok || !slices.Equal(listed, want) {
			t.Errorf("docs/METRICS.md gives %s the labels %q, it has %q", m[1], listed, want)
		}
	}
	if n < 30 {
		t.Errorf("only %d metrics found on the page", n)
	}
}

// metric reads the name and labels of one that a call makes: new("name",
// "help", "label", …), NewDesc("name", "help", []string{…}, nil) or
// NewVec(Opts{Name: "name", ConstLabels: …}, []string{…}).
func metric(call *ast.CallExpr) (name string, labels []string) {
	for i, arg := range call.Args {
		switch arg := arg.(type) {
		case *ast.BasicLit:
			if s := text(arg); i == 0 && strings.HasPrefix(s, "signet_") {
				name = s
			} else if i > 1 {
				labels = append(labels, s)
			}
		case *ast.CompositeLit:
			if _, list := arg.Type.(*ast.ArrayType); list {
				for _, e := range arg.Elts {
					labels = append(labels, text(e))
				}
				continue
			}
			for _, e := range arg.Elts {
				switch kv, _ := e.(*ast.KeyValueExpr); {
				case kv == nil:
				case key(kv) == "Name":
					name = text(kv.Value)
				case key(kv) == "ConstLabels":
					for _, l := range kv.Value.(*ast.CompositeLit).Elts {
						labels = append(labels, text(l.(*ast.KeyValueExpr).Key))
					}
				}
			}
		}
	}
	if !strings.HasPrefix(name, "signet_") {
		return "", nil
	}
	return name, labels
}

func key(kv *ast.KeyValueExpr) string {
	id, _ := kv.Key.(*ast.Ident)
	if id == nil {
		return ""
	}
	return id.Name
}

func text(e ast.Expr) string {
	lit, _ := e.(*ast.BasicLit)
	if lit == nil {
		return ""
	}
	s, _ := strconv.Unquote(lit.Value)
	return s
}
