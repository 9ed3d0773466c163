package mesh

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"signet.example/internal/manifest"
	"signet.example/proxy"
)

// unsafe reports what happens, for a warning.
var unsafe = map[string]string{
	proxy.UnsafePathHeaders:     "applications get X-Original-URL and the like as callers wrote them, so they can serve another path than the policy saw",
	proxy.UnsafeMethodHeaders:   "applications get X-HTTP-Method-Override and the like as callers wrote them, so they can act on another method than the policy saw",
	proxy.UnsafeHostHeaders:     "applications get X-Forwarded-Host, Forwarded and the like as callers wrote them, so they can serve another host than the policy saw",
	proxy.UnsafeAddressHeaders:  "applications get X-Real-IP and the like as callers wrote them: any caller has any address",
	proxy.UnsafeUserHeaders:     "applications get X-Amzn-Oidc-Identity and the like as callers wrote them: any caller has any user",
	proxy.UnsafeQuerySemicolons: "queries with a semicolon pass, which applications read in two ways; the policy reads it as part of a value",
	proxy.UnsafeRepeatAnyMethod: "requests of any method are sent again though they may have been served",
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
	for name := range strings.SplitSeq(r.Annotations[proxy.UnsafeAnnotation], ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// annotations refuses what looks like one of ours and would do nothing.
func (ru *ruler) annotations(r *Resource) {
	prefix, _, _ := strings.Cut(proxy.UnsafeAnnotation, "/")
	for _, key := range slices.Sorted(maps.Keys(r.Annotations)) {
		if strings.HasPrefix(key, prefix+"/") && (key != proxy.UnsafeAnnotation || r.Kind != KindMesh) {
			ru.fail(annotationPath(key), "is not known on a %s; there is %s on a %s", r.Kind, proxy.UnsafeAnnotation, KindMesh)
		}
	}
	for _, name := range unsafeNames(r) {
		if r.Kind == KindMesh && unsafe[name] == "" {
			ru.fail(annotationPath(proxy.UnsafeAnnotation), "%q is not known; there are: %s", manifest.Clip(name), strings.Join(slices.Sorted(maps.Keys(unsafe)), ", "))
		}
	}
}

func annotationPath(key string) string { return fmt.Sprintf("metadata.annotations[%q]", key) }
