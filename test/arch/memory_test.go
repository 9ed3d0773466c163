package arch

import (
	"go/types"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// keepsState are fields by which a struct has something that changes while it is used.
var keepsState = regexp.MustCompile(`^\*?(sync\.(RW)?Mutex|sync/atomic\.\w+(\[.*\])?|signet\.example/internal/watched\.Value\[.*\])$`)

// TestWhatAServerKeepsInMemoryIsInTheTable has each struct of the server whose fields
// change named where docs/ARCHITECTURE.md tells what several servers share: either it is
// behind an interface there, or each server has it for itself, with a reason.
func TestWhatAServerKeepsInMemoryIsInTheTable(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "docs", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## What several servers share\n")
	section, _, ok := strings.Cut(section, "\n## ")
	if !ok {
		t.Fatal("docs/ARCHITECTURE.md has no section of what several servers share")
	}
	found := map[string]bool{}
	inside(t, func(s source) {
		if s.dir != "server" && !strings.HasPrefix(s.dir, "server/") || s.dir == "server/signer" { // a process of its own
			return
		}
		for _, d := range s.info.Defs {
			name, ok := d.(*types.TypeName)
			if !ok || generated(s.file(name.Pos())) {
				continue
			}
			fields, ok := name.Type().Underlying().(*types.Struct)
			for i := 0; ok && i < fields.NumFields(); i++ {
				if keepsState.MatchString(fields.Field(i).Type().String()) {
					found[path.Base(s.dir)+"."+name.Name()] = true
				}
			}
		}
	})
	if len(found) < 10 {
		t.Fatalf("only %d structs keep anything: %v", len(found), found)
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if !strings.Contains(section, "`"+name+"`") {
			t.Errorf("%s changes while it is used, and docs/ARCHITECTURE.md does not say what a second server would see of it", name)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+\\.\\w+)` \\|").FindAllStringSubmatch(section, -1) {
		if !found[m[1]] {
			t.Errorf("docs/ARCHITECTURE.md has %s among what each server has for itself, and nothing of it changes, or it is gone", m[1])
		}
	}
}
