// Package arch holds the tests of the tree itself: which folder may import
// which, what every package must say of itself, and that the table in
// docs/ARCHITECTURE.md is the one tested here.
package arch

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	module       = "signet.example/"
	longestChain = 6
)

// imports is the table of docs/ARCHITECTURE.md: folder → the folders it imports, no
// more and no less. A folder inside server, agent, authz or policy is a part with a row of its own.
var imports = map[string][]string{
	"identity":          {},
	"proxy":             {},
	"mesh":              {"internal", "proxy"},
	"ads":               {},
	"internal":          {},
	"api":               {"internal"},
	"ca":                {"identity", "internal"},
	"attestation":       {"identity", "api", "internal"},
	"policy":            {"policy/sandbox", "policy/tree", "internal", "proxy"},
	"policy/check":      {"policy", "policy/tree", "internal", "proxy"},
	"policy/draft":      {"identity", "mesh", "policy", "policy/tree", "internal", "proxy"},
	"policy/repo":       {"identity", "policy/tree"},
	"policy/sandbox":    {},
	"policy/tree":       {},
	"store":             {"internal"},
	"sds":               {"identity", "ads"},
	"xds":               {"identity", "mesh", "ads", "proxy"},
	"xds/predict":       {},
	"xds/effect":        {"ads", "proxy", "xds/predict"},
	"authz":             {"identity", "policy", "policy/sandbox", "internal", "proxy", "authz/jwt"},
	"authz/jwt":         {"identity"},
	"server/signer":     {"identity", "api", "ca", "internal"}, // nobody else has ca: the control plane cannot sign
	"server/fault":      {},
	"server/access":     {"identity", "api", "store", "server/fault", "server/conns", "server/fleet", "server/roster", "server/groups", "server/issuance", "internal", "proxy"},
	"server/admin":      {"identity", "mesh", "api", "attestation", "policy", "policy/repo", "authz/jwt", "store", "server/fault", "server/fleet", "server/groups", "server/issuers", "server/kinds", "server/policies", "internal", "proxy", "xds/effect"},
	"server/proxies":    {"mesh", "api", "proxy", "server/fault", "server/fleet", "internal", "xds/predict", "xds/effect"},
	"server/check":      {"identity", "mesh", "api", "policy", "authz/jwt", "store", "server/awaited", "server/cloudmap", "server/fleet", "server/groups", "server/issuers", "server/kinds", "server/policies", "internal", "proxy"},
	"server/departures": {"api", "server/fleet", "internal"},
	"server/drafts":     {"mesh", "api", "policy", "policy/draft", "server/policies", "xds/predict"},
	"server/roster":     {"store", "server/fault"},
	"server/shared":     {"internal"},
	"server/conns":      {},
	"server/questions":  {"api"},
	"server/fleet":      {"identity", "api", "store", "server/fault", "server/shared", "server/conns", "server/questions", "internal", "proxy"},
	"server/groups":     {"identity", "ads", "api", "server/fault", "internal", "proxy"},
	"server/issuance":   {"identity", "api", "store", "server/fault", "internal"},
	"server/awaited":    {"mesh", "server/shared", "internal", "proxy"},
	"server/cloudmap":   {"server/shared", "internal", "proxy"},
	"server/issuers":    {"api", "authz/jwt", "server/shared", "internal", "proxy"},
	"server/policies":   {"identity", "mesh", "api", "policy", "policy/repo", "store", "server/shared", "internal", "proxy"},
	"server/join":       {"identity", "api", "attestation", "store", "server/fault", "server/conns", "server/roster", "internal"},
	"server/model":      {"identity", "mesh", "policy/repo", "authz/jwt", "store", "server/groups", "server/kinds", "internal", "proxy"},
	"server/kinds":      {"identity", "mesh", "attestation", "policy/repo", "authz/jwt", "internal", "proxy"},
	"server/views":      {"identity", "ads", "api", "xds", "mesh", "proxy", "server/fault", "server/awaited", "server/cloudmap", "server/departed", "server/fleet", "server/kinds", "server/refused", "internal", "xds/predict", "xds/effect"},
	"server/departed":   {"proxy"},
	"server/refused":    {"ads", "internal", "proxy"},
	"server":            {"identity", "mesh", "ads", "api", "attestation", "policy/repo", "authz/jwt", "store", "server/issuance", "server/join", "server/issuers", "server/awaited", "server/cloudmap", "server/policies", "server/kinds", "server/model", "server/signer", "server/fault", "server/shared", "server/conns", "server/fleet", "server/roster", "server/groups", "server/access", "server/admin", "server/check", "server/departures", "server/drafts", "server/proxies", "server/refused", "server/views", "internal", "proxy", "xds/effect"},
	"dev":               {"api"},
	"ecs":               {"mesh", "internal", "proxy", "agent/appmeshenv", "agent/local"},
	"redirect":          {"proxy"},
	"spire":             {"identity", "attestation", "internal"},
	"cmd":               {"identity", "attestation", "ecs", "redirect", "spire", "server", "server/kinds", "server/policies", "server/signer", "agent", "agent/local", "agent/files", "agent/authzproc", "agent/envoy", "agent/wayout", "agent/join", "dev", "api", "mesh", "policy", "policy/check", "policy/draft", "policy/repo", "internal", "proxy"},
	"agent/appmeshenv":  {"proxy"},
	"agent/local":       {"internal"},
	"agent/operator":    {"identity", "attestation", "agent/envoy", "agent/local", "agent/resources", "agent/svids", "internal", "proxy"},
	"agent/svids":       {"identity", "internal"},
	"agent/answered":    {"api", "internal"},
	"agent/dns":         {"internal"},
	"agent/tlsfiles":    {"ads", "sds", "internal", "proxy"},
	"agent/resources":   {"identity", "ads", "api", "attestation", "agent/svids", "internal", "proxy"},
	"agent/files":       {"identity", "agent/svids", "agent/resources", "internal"},
	"agent/envoy":       {"identity", "api", "agent/svids", "internal", "proxy"},
	"agent/relay":       {"identity", "ads", "api", "attestation", "sds", "agent/svids", "agent/tlsfiles", "agent/resources", "internal", "proxy"},
	"agent/limits":      {"attestation", "internal"},
	"agent/readonly":    {"internal"},
	"agent/authzproc":   {"identity", "api", "attestation", "policy", "authz", "authz/jwt", "agent/resources", "agent/answered", "agent/limits", "internal", "proxy"},
	"agent/wayout":      {"identity", "api", "attestation", "agent/svids", "agent/resources", "internal", "proxy"},
	"agent/workloads":   {"identity", "ads", "attestation", "sds", "agent/svids", "agent/resources", "internal"},
	"agent/join":        {"identity", "ads", "api", "attestation", "agent/svids", "internal"},
	"agent/upstream":    {"ads", "api", "agent/svids", "agent/resources", "internal", "proxy"},
	"agent":             {"identity", "ads", "api", "attestation", "sds", "internal", "proxy", "agent/appmeshenv", "agent/local", "agent/svids", "agent/tlsfiles", "agent/resources", "agent/files", "agent/answered", "agent/dns", "agent/limits", "agent/readonly", "agent/envoy", "agent/relay", "agent/workloads", "agent/authzproc", "agent/wayout", "agent/join", "agent/operator", "agent/upstream"},
}

type listed struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		all = append(all, p)
	}
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// folder is the row of the table that a package belongs to.
func folder(path string) (string, bool) {
	rest, ours := strings.CutPrefix(path, module)
	top, inner, parted := strings.Cut(rest, "/")
	if parted && (top == "server" || top == "agent" || top == "authz" || top == "policy" || top == "xds") {
		part, _, _ := strings.Cut(inner, "/")
		return top + "/" + part, ours
	}
	return top, ours && top != "test"
}

func TestFoldersImportWhatTheTableSays(t *testing.T) {
	found := map[string]map[string]string{} // from → to → the package that imports it
	for _, p := range packages(t) {
		from, ours := folder(p.ImportPath)
		if !ours {
			continue
		}
		if found[from] == nil {
			found[from] = map[string]string{}
		}
		for _, imp := range p.Imports {
			if to, ours := folder(imp); ours && to != from {
				found[from][to] = p.ImportPath + " imports " + imp
			}
		}
	}
	for from, tos := range found {
		said, known := imports[from]
		if !known {
			t.Errorf("folder %s is not in the table", from)
		}
		for to, how := range tos {
			if !slices.Contains(said, to) {
				t.Errorf("%s: %s may import %v", how, from, said)
			}
		}
	}
	for from, tos := range imports {
		for _, to := range tos {
			if found[from][to] == "" {
				t.Errorf("the table says that %s imports %s, and it does not: take it out", from, to)
			}
		}
	}
}

func TestNoImportChainIsLongerThanSix(t *testing.T) {
	graph := map[string][]string{}
	for _, p := range packages(t) {
		if _, ours := folder(p.ImportPath); ours {
			graph[p.ImportPath] = p.Imports
		}
	}
	memo := map[string][]string{}
	var chain func(string) []string
	chain = func(path string) []string {
		if c, ok := memo[path]; ok {
			return c
		}
		longest := []string{}
		for _, imp := range graph[path] {
			if _, ours := graph[imp]; ours {
				if c := chain(imp); len(c) > len(longest) {
					longest = c
				}
			}
		}
		memo[path] = append([]string{path}, longest...)
		return memo[path]
	}
	for path := range graph {
		if c := chain(path); len(c) > longestChain {
			t.Errorf("import chain of %d packages: %s", len(c), strings.Join(c, " → "))
		}
	}
}

// row of the table: | `folder` | owns | `a`, `b` |
var row = regexp.MustCompile("(?m)^\\| `([a-z/]+)` \\|.*\\| ([^|]*) \\|$")

func TestArchitecturePageHasTheSameTable(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root(t), "docs", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = true
		var listed []string
		for _, f := range regexp.MustCompile("`([a-z/]+)`").FindAllStringSubmatch(m[2], -1) {
			listed = append(listed, f[1])
		}
		slices.Sort(listed)
		want := slices.Sorted(slices.Values(imports[m[1]]))
		if !slices.Equal(listed, want) {
			t.Errorf("ARCHITECTURE.md says %s imports %v, the test says %v", m[1], listed, want)
		}
	}
	for f := range imports {
		if !documented[f] {
			t.Errorf("ARCHITECTURE.md does not list %s", f)
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		dir := filepath.Join(root(t), strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, strings.TrimSuffix(module, "/")), "/"))
		if !hasDoc(t, dir) {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

func hasDoc(t *testing.T, dir string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if parsed.Doc != nil && len(strings.Fields(parsed.Doc.Text())) >= 5 {
			return true
		}
	}
	return false
}

// longFiles may be longer than 800 lines, for the reason given.
var longFiles = map[string]string{}

func TestFilesStayShort(t *testing.T) {
	const most = 800
	err := filepath.WalkDir(root(t), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root(t) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, ".pb.go") {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root(t), path)
		if n := strings.Count(string(content), "\n"); n > most && longFiles[name] == "" {
			t.Errorf("%s has %d lines: split it by behaviour, or give the reason here", name, n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
