// Package docs holds the pages of this repository to what the code does: the
// metrics that are listed are those that exist, the commands of the README are
// targets, the examples parse.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/agent"
	"signet.example/agent/appmeshenv"
	"signet.example/mesh"
	"signet.example/policy"
	"signet.example/policy/check"
	"signet.example/proxy"
	"signet.example/server"
	"signet.example/server/kinds"
	"signet.example/server/signer"
)

func read(t *testing.T, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(append([]string{"..", ".."}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

var metricName = regexp.MustCompile(`"(signet_[a-z0-9_]+)"`)

func TestMetricsPageListsTheMetricsThatExist(t *testing.T) {
	declared := map[string]bool{}
	for _, f := range metricsFiles(t) {
		for _, m := range metricName.FindAllStringSubmatch(read(t, strings.TrimPrefix(f, "../../")), -1) {
			declared[m[1]] = true
		}
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(signet_[a-z0-9_]+)").FindAllStringSubmatch(read(t, "docs", "METRICS.md"), -1) {
		listed[m[1]] = true
	}
	for name := range declared {
		if !listed[name] {
			t.Errorf("docs/METRICS.md does not list %s", name)
		}
	}
	for name := range listed {
		if !declared[name] {
			t.Errorf("docs/METRICS.md lists %s, which no metrics.go declares", name)
		}
	}
}

// metricsFiles are the metrics.go of each folder and of the parts of server and agent.
func metricsFiles(t *testing.T) []string {
	t.Helper()
	folders, err := filepath.Glob("../../*/metrics.go")
	parts, inner := filepath.Glob("../../*/*/metrics.go")
	if err != nil || inner != nil || len(folders) == 0 {
		t.Fatalf("no metrics.go found: %v, %v", err, inner)
	}
	return append(folders, parts...)
}

var yamlTag = regexp.MustCompile("yaml:\"([a-z_]+)[,\"]")

func TestConfigurationPageNamesEveryKey(t *testing.T) {
	page := read(t, "docs", "CONFIGURATION.md")
	for _, f := range []string{"server/config.go", "server/signer/config.go", "agent/config.go"} {
		for _, m := range yamlTag.FindAllStringSubmatch(read(t, f), -1) {
			key := m[1]
			if key == "lifetimes" || key == "authz" || key == "retention" {
				continue // groups of keys, named with them
			}
			if !regexp.MustCompile("`(lifetimes\\.|authz\\.|retention\\.)?" + key + "[`\\[]").MatchString(page) {
				t.Errorf("docs/CONFIGURATION.md does not name %s of %s", key, f)
			}
		}
	}
	_ = agent.Config{} // the types whose keys these are
	_, _ = server.Config{}, signer.Config{}
}

func TestThePageOfTasksListsTheVariablesThatThereAre(t *testing.T) {
	page := read(t, "docs", "TASKS.md")
	keys := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(SIGNET_[A-Z0-9_]+)` \\| (?:`([^`]+)`|–) \\|").FindAllStringSubmatch(page, -1) {
		keys[m[1]] = m[2]
	}
	for _, v := range agent.Variables() {
		if key, listed := keys[v.Name]; key != v.Key && (listed || !strings.HasPrefix(v.Key, "join.")) { // how a task may join is on the page of each method
			t.Errorf("docs/TASKS.md lists %s for key %q, and it is for %s", v.Name, key, v.Key)
		}
		delete(keys, v.Name)
	}
	for name, key := range keys {
		if key != "" {
			t.Errorf("docs/TASKS.md lists %s, and there is no such variable", name)
		}
	}
}

func TestThePageOfTasksListsAppMeshsNamesAsTheyAreTaken(t *testing.T) {
	var want []string
	for _, n := range appmeshenv.Names {
		row := "| `" + n.Name + "` | obeyed: "
		if n.Refused != "" {
			row = "| `" + n.Name + "` | refused: " + n.Refused + " |"
		}
		want = append(want, row)
	}
	_, table, _ := strings.Cut(read(t, "docs", "TASKS.md"), "| of App Mesh | |\n|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	for i, row := range strings.Split(table, "\n") {
		if i >= len(want) || !strings.HasPrefix(row, want[i]) {
			t.Errorf("docs/TASKS.md has %q, which is not what is done", row)
		}
	}
	if n := strings.Count(table, "\n") + 1; n != len(want) {
		t.Errorf("docs/TASKS.md has %d of %d names", n, len(want))
	}
}

// block gives the fenced blocks of a page in a language.
func block(page, language string) []string {
	var out []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(page, -1) {
		out = append(out, m[1])
	}
	return out
}

func TestReadmeCommandsAreTargets(t *testing.T) {
	makefile := read(t, "Makefile")
	for _, b := range block(read(t, "README.md"), "sh") {
		for line := range strings.Lines(b) {
			target, ok := strings.CutPrefix(strings.TrimSpace(line), "make ")
			if !ok || !strings.Contains(makefile, "\n"+target+":") {
				t.Errorf("README's command %q is not a target of the Makefile", strings.TrimSpace(line))
			}
		}
	}
}

func TestPolicyPageCompiles(t *testing.T) {
	for _, b := range block(read(t, "docs", "POLICY.md"), "rego") {
		modules := []policy.Module{{Path: "POLICY.md", Rego: b}, {Path: "x_test.rego", Rego: "package signet.authz_test"}}
		if warnings, err := check.Modules(modules); err != nil || len(warnings) > 0 {
			t.Errorf("docs/POLICY.md: %q %v", warnings, err)
		}
	}
}

func TestKindsOfTheConfigurationPageParse(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("prod.example")
	var shown []string
	for _, b := range block(read(t, "docs", "CONFIGURATION.md"), "yaml") {
		docs, err := mesh.Split("CONFIGURATION.md", []byte(b))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range docs {
			shown = append(shown, d.Kind)
			if err := build(d, td); err != nil {
				t.Errorf("%s %s: %v", d.Kind, d.Name, err)
			}
		}
	}
	slices.Sort(shown)
	if want := slices.Sorted(slices.Values(kinds.Names(kinds.Kind.Own))); !slices.Equal(shown, want) {
		t.Errorf("the page shows %v, want each of %v", shown, want)
	}
}

func TestTheAppMeshPageSaysOfEachKindWhetherItIsApplied(t *testing.T) {
	applied, refused, ok := strings.Cut(read(t, "docs", "APPMESH.md"), "## Refused by name")
	if !ok {
		t.Fatal("docs/APPMESH.md has no list of what is refused")
	}
	named := func(part, kind string) bool {
		return regexp.MustCompile(`(?m)^\| ([^|]*, )?` + kind + `(, [^|]*)? \|`).MatchString(part)
	}
	for _, k := range kinds.All() {
		if !k.Own() && (!named(applied, k.Name) || named(refused, k.Name)) {
			t.Errorf("docs/APPMESH.md does not say that a %s is applied", k.Name)
		}
	}
}

func TestThePolicyPageListsEveryWithheldHeader(t *testing.T) {
	page := read(t, "docs", "POLICY.md")
	withheld := append(proxy.WithheldHeaders(), proxy.Withheld{Unsafe: proxy.UnsafeUserHeaders})
	for _, begins := range proxy.UserHeaders() {
		withheld[len(withheld)-1].Headers = append(withheld[len(withheld)-1].Headers, begins+"…")
	}
	rows := 0
	for line := range strings.Lines(page) {
		cells := strings.Split(line, "|")
		for _, w := range withheld {
			if len(cells) < 3 || strings.TrimSpace(cells[1]) != "`"+w.Unsafe+"`" {
				continue
			}
			rows++
			if want := " `" + strings.Join(w.Headers, "`, `") + "` "; cells[2] != want {
				t.Errorf("docs/POLICY.md, %s: %s, want%s", w.Unsafe, cells[2], want)
			}
		}
	}
	if want := len(withheld); rows != want {
		t.Errorf("docs/POLICY.md has %d of the %d kinds of withheld headers", rows, want)
	}
}
