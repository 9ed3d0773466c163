package docs

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"signet.example/test/parts"
)

// fieldTable is the section of docs/APPMESH.md that has each field of the API.
const fieldTable = "\n## Field by field\n"

// shape is a structure, list or scalar of App Mesh's API model.
type shape struct {
	Type     string   `json:"type"`
	Required []string `json:"required"`
	Union    bool     `json:"union"`
	Enum     []string `json:"enum"`
	Min      int      `json:"min"`
	Members  map[string]struct {
		Shape string `json:"shape"`
	} `json:"members"`
	Member struct {
		Shape string `json:"shape"`
	} `json:"member"`
}

// leaves are the paths of all scalars, and of lists of them.
func leaves(shapes map[string]shape, name, path string) []string {
	s := shapes[name]
	switch s.Type {
	case "structure":
		var list []string
		for member, of := range s.Members {
			dot := "."
			if strings.HasSuffix(path, " ") {
				dot = ""
			}
			list = append(list, leaves(shapes, of.Shape, path+dot+member)...)
		}
		return list
	case "list":
		return leaves(shapes, s.Member.Shape, path+"[]")
	}
	return []string{path}
}

// expand writes out each {a,b}.
func expand(pattern string) []string {
	before, after, found := strings.Cut(pattern, "{")
	if !found {
		return []string{pattern}
	}
	inside, rest, _ := strings.Cut(after, "}")
	var list []string
	for choice := range strings.SplitSeq(inside, ",") {
		list = append(list, expand(before+choice+rest)...)
	}
	return list
}

func TestEveryFieldOfTheAPIHasItsRowAndNoOther(t *testing.T) {
	content, err := os.ReadFile(parts.Shared(t, "appmesh", "model.json"))
	if err != nil {
		t.Fatal(err)
	}
	var model struct {
		Shapes map[string]shape `json:"shapes"`
	}
	if err := json.Unmarshal(content, &model); err != nil {
		t.Fatal(err)
	}
	missing := map[string]bool{}
	for _, kind := range []string{"Mesh", "VirtualNode", "VirtualService", "VirtualRouter", "Route", "VirtualGateway", "GatewayRoute"} {
		for _, path := range leaves(model.Shapes, kind+"Spec", kind+" ") {
			missing[path] = true
		}
	}
	all := len(missing)
	_, table, found := strings.Cut(read(t, "docs", "APPMESH.md"), fieldTable)
	table, _, _ = strings.Cut(table, "\n## ")
	if !found || all < 262 {
		t.Fatalf("the table is there: %t; the model has %d fields", found, all)
	}
	refused := 0
	for _, row := range pieces(table, true) {
		for _, path := range expand(strings.Trim(row.cells[0], "`")) {
			if !missing[path] {
				t.Errorf("%s is no field of the API, or has two rows", path)
			}
			delete(missing, path)
			if strings.HasPrefix(row.cells[1], "refused") || strings.HasPrefix(row.cells[1], "no effect") {
				refused++
			}
		}
		if !testName.MatchString(row.cells[2]) {
			t.Errorf("%s names no test", row.cells[0])
		}
	}
	var left []string
	for path := range missing {
		left = append(left, path)
	}
	slices.Sort(left)
	for _, path := range left {
		t.Errorf("%s has no row in docs/APPMESH.md", path)
	}
	t.Logf("%d fields, of which %d are refused by name or have no effect", all, refused)
}
