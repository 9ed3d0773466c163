package arch

import (
	"go/ast"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// costs are the rows of the table "What one more costs" of docs/ARCHITECTURE.md with the
// most product files that one more of it may take.
var costs = map[string]int{
	"attribute of a route's match":   4,
	"metric":                         3,
	"command that reads":             4,
	"command that changes the store": 4,
	"workload attestor":              2,
	"node attestor":                  3,
	"kind":                           3,
}

// dearer are rows that miss their goal, with what they cost. A number here is only ever
// made smaller.
var dearer = map[string]int{
	"command that changes the store": 5, // its rows in the store and the list of commands; docs/ARCHITECTURE.md says why
}

// costRow of the page: | one more | goal | shown by | files |
var costRow = regexp.MustCompile(`(?m)^\| ([^|]+) \| (\d+) \| ([^|]*) \| ([^|]*) \|$`)

var quoted = regexp.MustCompile("`([^`]+)`")

func quotedIn(cell string) []string {
	var out []string
	for _, m := range quoted.FindAllStringSubmatch(cell, -1) {
		out = append(out, m[1])
	}
	slices.Sort(out)
	return out
}

// TestOneMoreCostsTheFilesThatTheTableLists finds where the functions, types, fields and
// methods stand that a row names, and where they are used. That is what was written or
// changed when the example was added, and what the next one of its kind costs.
func TestOneMoreCostsTheFilesThatTheTableLists(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root(t), "docs", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## What one more costs\n")
	section, _, _ = strings.Cut(section, "\n## ")
	where, rows := usesByName(t), 0
	for _, row := range costRow.FindAllStringSubmatch(section, -1) {
		name, symbols, listed := row[1], quotedIn(row[3]), quotedIn(row[4])
		goal, known := costs[name]
		if !known || strconv.Itoa(goal) != row[2] {
			t.Errorf("%s: the page says %s, the test %d", name, row[2], goal)
		}
		rows++
		found := map[string]bool{}
		for _, s := range symbols {
			if len(where[s]) == 0 {
				t.Errorf("%s: there is no %s", name, s)
			}
			maps.Copy(found, where[s])
		}
		files := slices.Sorted(maps.Keys(found))
		if !slices.Equal(files, listed) {
			t.Errorf("%s: the page lists %v, and these have %v: %v", name, listed, symbols, files)
		}
		switch most, dear := dearer[name]; {
		case dear && len(files) > most, !dear && len(files) > goal:
			t.Errorf("%s: %d files, the goal is %d: %v", name, len(files), goal, files)
		case dear && len(files) < most:
			t.Errorf("%s: only %d files now: write that into the table of this test", name, len(files))
		}
	}
	if rows != len(costs) {
		t.Errorf("the page has %d rows, the test %d", rows, len(costs))
	}
}

// usesByName has for each function, type, variable, constant, field and method of the
// program, as folder.Name or folder.Type.Member, the files that declare or use it. What
// is generated from a .proto counts as that file.
func usesByName(t *testing.T) map[string]map[string]bool {
	t.Helper()
	names := map[types.Object]string{}
	inside(t, func(s source) {
		for _, d := range s.info.Defs {
			if d == nil || d.Parent() != d.Pkg().Scope() {
				continue
			}
			names[d] = s.dir + "." + d.Name()
			if tn, ok := d.(*types.TypeName); ok {
				nameMembers(names, tn, s.dir)
			}
		}
	})
	out := map[string]map[string]bool{}
	inside(t, func(s source) {
		for _, m := range []map[*ast.Ident]types.Object{s.info.Defs, s.info.Uses} {
			for id, used := range m {
				switch u := used.(type) {
				case *types.Func:
					used = u.Origin()
				case *types.Var:
					used = u.Origin()
				}
				name := names[used]
				if name == "" {
					continue
				}
				if out[name] == nil {
					out[name] = map[string]bool{}
				}
				file := s.file(id.Pos())
				if strings.HasSuffix(file, ".gen.go") {
					continue // written from the API's model
				}
				if proto, ok := strings.CutSuffix(file, ".pb.go"); ok {
					file = strings.TrimSuffix(proto, "_grpc") + ".proto"
				}
				out[name][s.dir+"/"+file] = true
			}
		}
	})
	return out
}

func nameMembers(names map[types.Object]string, tn *types.TypeName, dir string) {
	named, ok := tn.Type().(*types.Named)
	if !ok {
		return
	}
	for m := range named.Methods() {
		names[m] = dir + "." + tn.Name() + "." + m.Name()
	}
	switch u := named.Underlying().(type) {
	case *types.Struct:
		for f := range u.Fields() {
			names[f] = dir + "." + tn.Name() + "." + f.Name()
		}
	case *types.Interface:
		for m := range u.ExplicitMethods() {
			names[m] = dir + "." + tn.Name() + "." + m.Name()
		}
	}
}
