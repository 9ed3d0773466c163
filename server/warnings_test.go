package server_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestAnApplyWarnsOfWhatItBringsAndNotOfWhatWasThere applies two bindings that
// overlap, twice, then something else.
func TestAnApplyWarnsOfWhatItBringsAndNotOfWhatWasThere(t *testing.T) {
	t.Parallel()
	const binding = "---\napiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: %s}\nspec: {group: front, mesh: shop, virtualNode: %s, selectors: [%s]}\n"
	r := newRig(t)
	first := r.apply(registry + shop)
	bindings := fmt.Sprintf(binding, "one", "web", `"unix:uid:7"`) + fmt.Sprintf(binding, "two", "orders", `"unix:gid:8"`)
	r.apply(bindings)
	again := r.apply(bindings)
	other := r.apply("apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: others}\nspec: {}\n")
	if text := strings.Join(first.GetWarnings(), "\n"); !strings.Contains(text, "no PolicySource") {
		t.Errorf("the first apply says %q", text)
	}
	if text := strings.Join(again.GetWarnings(), "\n"); !strings.Contains(text, "overlap") || strings.Contains(text, "PolicySource") {
		t.Errorf("of what it names, an apply says %q", text)
	}
	if len(other.GetWarnings()) > 0 {
		t.Errorf("an apply of something else warns of %q", other.GetWarnings())
	}
}
