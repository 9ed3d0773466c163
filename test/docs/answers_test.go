package docs

import (
	"fmt"
	"strings"
	"testing"

	"signet.example/proxy/answers"
)

// TestThePageOfAnswersIsTheTableThatExplainHas: a kind is in both, with one cause and one cure.
func TestThePageOfAnswersIsTheTableThatExplainHas(t *testing.T) {
	var want strings.Builder
	want.WriteString("| kind | the caller gets | cause | what to do |\n|---|---|---|---|\n")
	seen := map[string]bool{}
	for _, k := range answers.All() {
		if seen[k.Name] || k.Gets == "" || k.Cause == "" || k.Cure == "" {
			t.Errorf("kind %q stands twice, or lacks something", k.Name)
		}
		seen[k.Name] = true
		fmt.Fprintf(&want, "| `%s` | %s | %s | %s |\n", k.Name, k.Gets, k.Cause, k.CureFor(answers.Names{}))
	}
	if !strings.Contains(read(t, "docs", "ANSWERS.md"), "\n\n"+want.String()) {
		t.Errorf("docs/ANSWERS.md does not have this table:\n\n%s", want.String())
	}
}
