package draft_test

import (
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/policy"
	"signet.example/policy/check"
	"signet.example/policy/draft"
	"signet.example/policy/tree"
)

func compiled(t *testing.T, d draft.Draft) *policy.Compiled {
	t.Helper()
	var modules []policy.Module
	for _, f := range d.Files {
		modules = append(modules, policy.Module{Path: f.Path, Rego: f.Content})
	}
	c, err := policy.Compile(policy.NewRevision("", "", modules, policy.Generated{}))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// allowsAll asks a draft for web's calls at orders.
func allowsAll(t *testing.T, d draft.Draft, lines []string) {
	t.Helper()
	c := compiled(t, d)
	for _, line := range lines {
		method, path, _ := strings.Cut(line, " ")
		in := policy.Input{
			Request:     policy.Request{Method: method, Path: path},
			Source:      policy.Peer{ID: spiffeid.RequireFromString("spiffe://prod.example/shop/web")},
			Destination: policy.Peer{ID: spiffeid.RequireFromString("spiffe://prod.example/shop/orders")},
		}
		if got, err := c.Evaluate(t.Context(), in); err != nil || !got.Allowed {
			t.Errorf("%s: %v, %v", line, got, err)
			return
		}
	}
}

// Each condition of each rule is held by a test that is written with it.
func TestWhatIsWrittenTestsEachOfItsConditions(t *testing.T) {
	d := draft.FromMesh(shop(t))
	tried := 0
	for at, f := range d.Files {
		lines := strings.SplitAfter(f.Content, "\n")
		for i, line := range lines {
			if !strings.HasPrefix(line, "\t") || f.Rules == 0 || strings.TrimSpace(line) == "input.request.path" {
				continue
			}
			for change, to := range map[string]string{"left out": "\ttrue\n", "never": "\tfalse\n"} {
				tried++
				changed := append([]string{}, lines...)
				changed[i] = to
				modules := []policy.Module{{Path: f.Path, Rego: strings.Join(changed, "")}, {Path: d.Files[at+1].Path, Rego: d.Files[at+1].Content}}
				if report, err := check.Tree(t.Context(), tree.Tree{Modules: modules}); err == nil || report.Failed == 0 {
					t.Errorf("%s, line %d, %s, is %s: no test fails", f.Path, i+1, strings.TrimSpace(line), change)
				}
			}
		}
	}
	if tried < 50 {
		t.Errorf("%d changes", tried)
	}
}
