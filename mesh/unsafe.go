package mesh

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"signet.example/internal/manifest"
)

// UnsafeAnnotation, on a Mesh, lists by name what its proxies let through
// although it is unsafe, for applications that need it: "method-headers,
// query-semicolons". A name that is not known is refused.
const UnsafeAnnotation = "signet.example/unsafe"

// What a mesh may let through. What each is, proxies do about it, and why, is
// the table of docs/POLICY.md.
const (
	UnsafePathHeaders     = "path-headers"
	UnsafeMethodHeaders   = "method-headers"
	UnsafeHostHeaders     = "host-headers"
	UnsafeAddressHeaders  = "address-headers"
	UnsafeQuerySemicolons = "query-semicolons"
	UnsafeRepeatAnyMethod = "repeat-any-method"
)

// unsafe reports what happens, for a warning.
var unsafe = map[string]string{
	UnsafePathHeaders:     "applications get X-Original-URL and the like as callers wrote them, so they can serve another path than the policy saw",
	UnsafeMethodHeaders:   "applications get X-HTTP-Method-Override and the like as callers wrote them, so they can act on another method than the policy saw",
	UnsafeHostHeaders:     "applications get X-Forwarded-Host, Forwarded and the like as callers wrote them, so they can serve another host than the policy saw",
	UnsafeAddressHeaders:  "applications get X-Real-IP and the like as callers wrote them: any caller has any address",
	UnsafeQuerySemicolons: "queries with a semicolon pass, which applications read in two ways; the policy reads it as part of a value",
	UnsafeRepeatAnyMethod: "requests of any method are sent again though they may have been served",
}

// Unsafe reports whether a mesh lets through what has this name.
func (g *Graph) Unsafe(mesh, name string) bool {
	m := g.mesh(mesh)
	return m != nil && m.unsafe[name]
}

// UnsafeNames lists what a mesh lets through, sorted.
func (g *Graph) UnsafeNames(mesh string) []string {
	if m := g.mesh(mesh); m != nil {
		return slices.Sorted(maps.Keys(m.unsafe))
	}
	return nil
}

func unsafeNames(r *Resource) []string {
	var names []string
	for name := range strings.SplitSeq(r.Annotations[UnsafeAnnotation], ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// annotations refuses what looks like one of ours and would do nothing.
func (ru *ruler) annotations(r *Resource) {
	prefix, _, _ := strings.Cut(UnsafeAnnotation, "/")
	for _, key := range slices.Sorted(maps.Keys(r.Annotations)) {
		if strings.HasPrefix(key, prefix+"/") && (key != UnsafeAnnotation || r.Kind != KindMesh) {
			ru.fail(annotationPath(key), "is not known on a %s; there is %s on a %s", r.Kind, UnsafeAnnotation, KindMesh)
		}
	}
	for _, name := range unsafeNames(r) {
		if r.Kind == KindMesh && unsafe[name] == "" {
			ru.fail(annotationPath(UnsafeAnnotation), "%q is not known; there are: %s", manifest.Clip(name), strings.Join(slices.Sorted(maps.Keys(unsafe)), ", "))
		}
	}
}

func annotationPath(key string) string { return fmt.Sprintf("metadata.annotations[%q]", key) }
