package mesh

import (
	"strings"

	"signet.example/internal/manifest"
)

// SpecYAML writes a spec as it is, before defaults and unchecked.
func SpecYAML(spec any) string {
	_, text, _ := strings.Cut(string(manifest.Encode(GroupVersion, "", manifest.Meta{}, spec)), "\nspec:")
	return "spec:" + text
}

// NewSpec is an empty spec of the kind.
func NewSpec(k Kind) any { return newSpec(k) }
