package arch

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The goals for the inside of a folder. One that misses them has a row in missing.
const (
	mostLines    = 2500 // without tests and what is generated
	mostBackward = 10   // percent, of calls and of uses between the files of a folder
	mostEmbedded = 3    // fields of a struct that another file's type embeds
	fewUses      = 50   // a percentage of fewer says nothing

	// How much better than its row a folder may be before the row has to follow.
	slackLines, slackPercent = 200, 2
)

// anyLines are folders that are one idea and longer.
var anyLines = []string{"mesh", "xds", "ca", "ads", "cmd/signet"}

// missing is what folders that miss a goal are held to instead: a folder that has come
// closer to the goal than its row fails until the row follows.
var missing = map[string]struct {
	lines       int
	calls, uses int      // percent that run backward
	embedded    []string // structs that are embedded and have too many fields
}{
	"dev": {calls: 12},
	// The methods of processes, and who owns a socket by the kernel's word: a process that is looked at by its
	// id is held as a peer is, in the same file system of descriptors. What finds cgroups is the part to move.
	"attestation": {lines: 2600},
	// What it is split into would make the longest chain of imports longer: it has no room below.
	"internal/manifest": {lines: 2670},
	// What is checked is linted, and what is linted is signed, by types that embed the one before.
	"ca":  {uses: 11, embedded: []string{"checked", "linted"}},
	"ads": {uses: 11},
}

// source is one package of ours, read with its types and without its tests.
type source struct {
	dir   string
	fset  *token.FileSet
	files []*ast.File
	info  *types.Info
}

// sources are read once for all tests here.
var sources = sync.OnceValues(readSources)

// readSources checks each package of the program from its source, and what others made
// against its compiled form: that of `make build`, so that the build cache has it.
func readSources() ([]source, error) {
	all, err := goList("-deps", "./cmd/signet") // what is imported comes first
	if err != nil {
		return nil, err
	}
	var ours []golisted
	var others []string
	for _, p := range all {
		if _, product := folder(p.ImportPath); product {
			ours = append(ours, p)
		} else {
			others = append(others, p.ImportPath)
		}
	}
	compiled, err := goList(append([]string{"-export"}, others...)...)
	if err != nil {
		return nil, err
	}
	exports := map[string]string{}
	for _, p := range compiled {
		exports[p.ImportPath] = p.Export
	}
	fset := token.NewFileSet()
	imports := &importers{
		checked: map[string]*types.Package{"unsafe": types.Unsafe},
		others:  importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) }),
	}
	var out []source
	for _, p := range ours {
		s := source{dir: strings.TrimPrefix(p.ImportPath, module), fset: fset, info: &types.Info{Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}}
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			s.files = append(s.files, f)
		}
		if imports.checked[p.ImportPath], err = (&types.Config{Importer: imports}).Check(p.ImportPath, fset, s.files, s.info); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// golisted is a package as go list describes it.
type golisted struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
}

func goList(args ...string) ([]golisted, error) {
	cmd := exec.Command("go", append([]string{"list", "-trimpath", "-json=ImportPath,Dir,GoFiles,Export"}, args...)...)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, stderr.String())
	}
	var out []golisted
	for dec := json.NewDecoder(bytes.NewReader(text)); ; {
		var p golisted
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		out = append(out, p)
	}
}

// importers takes what is checked already, and the rest from its compiled form.
type importers struct {
	checked map[string]*types.Package
	others  types.Importer
}

func (i *importers) Import(path string) (*types.Package, error) {
	if p := i.checked[path]; p != nil {
		return p, nil
	}
	return i.others.Import(path)
}

func (s source) file(p token.Pos) string { return filepath.Base(s.fset.Position(p).Filename) }

// generated are what protoc writes, and what mesh/gen does.
func generated(name string) bool {
	return strings.HasSuffix(name, ".pb.go") || strings.HasSuffix(name, ".gen.go")
}

// inside calls f for each package of ours.
func inside(t *testing.T, f func(source)) {
	t.Helper()
	all, err := sources()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("only %d packages", len(all))
	}
	for _, s := range all {
		f(s)
	}
}

func TestNoFolderIsLongerThanOneIdea(t *testing.T) {
	inside(t, func(s source) {
		if slices.Contains(anyLines, s.dir) {
			return
		}
		lines := 0
		for _, f := range s.files {
			if !generated(s.file(f.Pos())) {
				lines += s.fset.File(f.Pos()).LineCount()
			}
		}
		if most := max(mostLines, missing[s.dir].lines); lines > most {
			t.Errorf("%s has %d lines, and %d at most: split it by ideas", s.dir, lines, most)
		} else if missing[s.dir].lines > 0 {
			t.Logf("%s has %d lines; its row says %d, the goal is %d", s.dir, lines, most, mostLines)
			if lines <= missing[s.dir].lines-slackLines {
				t.Errorf("%s has %d lines only: lower its row from %d", s.dir, lines, missing[s.dir].lines)
			}
		}
	})
}

// arrows are what each file uses of each other file of its folder: how often it calls a
// function or method, and whether it uses anything at all, a field, a type or a constant
// too.
func (s source) arrows() (calls, uses map[[2]string]int) {
	calls, uses = map[[2]string]int{}, map[[2]string]int{}
	for id, used := range s.info.Uses {
		call := false
		switch u := used.(type) {
		case *types.Func:
			used, call = u.Origin(), true
		case *types.Var:
			used = u.Origin()
		case *types.TypeName, *types.Const:
		default:
			continue
		}
		if !used.Pos().IsValid() {
			continue
		}
		// What is declared in another package has positions in another folder.
		from, to := s.fset.Position(id.Pos()).Filename, s.fset.Position(used.Pos()).Filename
		if from == to || filepath.Dir(from) != filepath.Dir(to) || generated(from) || generated(to) {
			continue
		}
		arrow := [2]string{filepath.Base(from), filepath.Base(to)}
		if uses[arrow] = 1; call {
			calls[arrow]++
		}
	}
	return calls, uses
}

// ordered is an order of the files with few arrows from a later one to an earlier one:
// who uses stands before what it uses. The best one is hard to find; this one moves each
// file to its best place until none has a better one.
func ordered(arrows map[[2]string]int) []string {
	names := map[string]bool{}
	for a := range arrows {
		names[a[0]], names[a[1]] = true, true
	}
	var order []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		order = placed(order, name, arrows)
	}
	for better := true; better; {
		better = false
		for _, name := range slices.Clone(order) {
			without := slices.DeleteFunc(slices.Clone(order), func(o string) bool { return o == name })
			if next := placed(without, name, arrows); backward(next, arrows) < backward(order, arrows) {
				order, better = next, true
			}
		}
	}
	return order
}

// placed puts name to where the fewest of its arrows run backward.
func placed(order []string, name string, arrows map[[2]string]int) []string {
	cost := 0 // in front of all: whoever uses it is behind it
	for _, o := range order {
		cost += arrows[[2]string{o, name}]
	}
	least, at := cost, 0
	for i, o := range order { // behind o
		cost += arrows[[2]string{name, o}] - arrows[[2]string{o, name}]
		if cost < least {
			least, at = cost, i+1
		}
	}
	return slices.Insert(order, at, name)
}

func backward(order []string, arrows map[[2]string]int) int {
	at := map[string]int{}
	for i, name := range order {
		at[name] = i
	}
	n := 0
	for a, calls := range arrows {
		if at[a[0]] > at[a[1]] {
			n += calls
		}
	}
	return n
}

// TestFilesOfAFolderUseEachOtherOneWay puts the files of each folder into the order with
// the fewest calls, and in a second one with the fewest uses, from a later file to an
// earlier one, and counts those. Files that need each other in circles are several ideas
// without an interface between them.
func TestFilesOfAFolderUseEachOtherOneWay(t *testing.T) {
	inside(t, func(s source) {
		calls, uses := s.arrows()
		s.oneWay(t, "calls", calls, missing[s.dir].calls)
		s.oneWay(t, "uses", uses, missing[s.dir].uses)
	})
}

func (s source) oneWay(t *testing.T, what string, arrows map[[2]string]int, row int) {
	t.Helper()
	order := ordered(arrows)
	all, against, most := 0, backward(order, arrows), max(mostBackward, row)
	for _, n := range arrows {
		all += n
	}
	if all < fewUses {
		return
	}
	percent := (100*against + all - 1) / all
	text := fmt.Sprintf("%s: %d of %d %s between its files run backward, %d %%; %d %% may, the goal is %d", s.dir, against, all, what, percent, most, mostBackward)
	if percent <= most {
		t.Log(text)
		if row > 0 && percent <= row-slackPercent {
			t.Errorf("%s: %d %% of %s only: lower its row from %d", s.dir, percent, what, row)
		}
		return
	}
	var worst []string
	at := func(name string) int { return slices.Index(order, name) }
	for _, a := range slices.SortedFunc(maps.Keys(arrows), func(a, b [2]string) int {
		return cmp.Or(arrows[b]-arrows[a], strings.Compare(a[0]+a[1], b[0]+b[1]))
	}) {
		if at(a[0]) > at(a[1]) {
			worst = append(worst, fmt.Sprintf("%s → %s %d", a[0], a[1], arrows[a]))
		}
	}
	t.Errorf("%s. In the order\n%s\nthese do: %s", text, strings.Join(order, " "), strings.Join(worst, ", "))
}

// TestNoStructOfManyPartsIsEmbedded finds structs that types of other files embed, with
// all their fields and methods: whoever has one sees everything.
func TestNoStructOfManyPartsIsEmbedded(t *testing.T) {
	inside(t, func(s source) {
		var found []string
		for _, d := range s.info.Defs {
			field, ok := d.(*types.Var)
			if !ok || !field.Embedded() {
				continue
			}
			named, parts, ok := structOf(field.Type())
			if !ok || parts <= mostEmbedded || !strings.HasPrefix(named.Pkg().Path(), module) {
				continue
			}
			if s.fset.Position(named.Pos()).Filename != s.fset.Position(field.Pos()).Filename {
				found = append(found, named.Name())
				if !slices.Contains(missing[s.dir].embedded, named.Name()) {
					t.Errorf("%s: %s, of %d fields, is embedded in %s: name the field, or hand in an interface of what is used", s.dir, named.Name(), parts, s.file(field.Pos()))
				}
			}
		}
		for _, name := range missing[s.dir].embedded {
			if !slices.Contains(found, name) {
				t.Errorf("%s: %s is no longer embedded: take it out of the table", s.dir, name)
			}
		}
	})
}

// TestEveryMissedGoalIsOfAFolder keeps the table from naming what is gone.
func TestEveryMissedGoalIsOfAFolder(t *testing.T) {
	dirs := map[string]bool{}
	inside(t, func(s source) { dirs[s.dir] = true })
	for dir := range missing {
		if !dirs[dir] {
			t.Errorf("%s is no folder any more: take it out of the table", dir)
		}
	}
}

func structOf(t types.Type) (*types.TypeName, int, bool) {
	if p, ok := t.(*types.Pointer); ok {
		t = p.Elem()
	}
	named, ok := t.(*types.Named)
	if !ok {
		return nil, 0, false
	}
	s, ok := named.Underlying().(*types.Struct)
	if !ok || named.Obj().Pkg() == nil {
		return nil, 0, false
	}
	return named.Obj(), s.NumFields(), true
}
