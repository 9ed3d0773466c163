package kinds

import (
	"signet.example/internal/manifest"
	"signet.example/internal/ordered"
	"signet.example/mesh"
)

// Meant asks for the object that a key of none probably means, as the end of an error. Of App
// Mesh's kinds somebody may know an object by metadata.name, without the namespace that its
// name ends in.
func Meant(objects ordered.Map[Key, *Object], k Key) string {
	var names, named []string
	for at, o := range objects.From(Key{Kind: k.Kind, Mesh: k.Mesh}) {
		if at.Kind != k.Kind || at.Mesh != k.Mesh {
			break
		}
		names = append(names, at.Name)
		if o.Resource != nil && o.Resource.ObjectName == k.Name {
			named = append(named, at.Name)
		}
	}
	if len(named) > 0 {
		return mesh.DidYouMean("with a namespace its name is name_namespace, or its awsName", named...)
	}
	if best := manifest.Nearest(k.Name, names); best != "" {
		return mesh.DidYouMean("", best)
	}
	return ""
}
