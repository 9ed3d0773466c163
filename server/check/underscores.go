package check

import (
	"fmt"
	"slices"
	"strings"

	"signet.example/api"
	"signet.example/mesh"
)

// unseen is the finding of a mesh whose routes look at headers that no request has.
func unseen(g *mesh.Graph, name string) []*api.Finding {
	names := g.Unseen(name)
	if len(names) == 0 {
		return nil
	}
	return []*api.Finding{finding(findUnseen, sevWarning, "Mesh "+name, "name them in headersWithUnderscores of its MeshOptions, or call them otherwise",
		"its routes look at %s, and proxies refuse headers with underscores, or take them away: no request has them", strings.Join(names, ", "))}
}

// hidden warns of headers that routes look at and no request has, from this change on.
func hidden(before, after *mesh.Graph) []string {
	var list []string
	for _, name := range after.Meshes() {
		var was []string
		if before.Mesh(name) != nil {
			was = before.Unseen(name)
		}
		now := slices.DeleteFunc(after.Unseen(name), func(h string) bool { return slices.Contains(was, h) })
		if len(now) > 0 {
			list = append(list, fmt.Sprintf("routes of mesh %s look at %s, which no request has: proxies refuse headers with underscores, unless headersWithUnderscores of its MeshOptions names them", name, strings.Join(now, ", ")))
		}
	}
	return list
}
