package mesh

import (
	"fmt"
	"slices"
	"strings"

	"signet.example/internal/manifest"
)

// AssignMeshes completes each resource's Mesh with the App Mesh name of the
// mesh it belongs to: the one that spec.meshRef names, else the Mesh that is
// set already (as a store does), else the only one there is. It changes the
// resources, so they must not be shared yet.
func AssignMeshes(resources []*Resource) error {
	byObject, byName := map[string]string{}, map[string]bool{}
	var names, selecting []string
	for _, r := range resources {
		if r.Kind == KindMesh && !byName[r.Name] {
			byObject[r.ObjectName], byName[r.Name] = r.Name, true
			names = append(names, r.Name)
			if s, ok := r.Spec.(*MeshSpec); ok && s.NamespaceSelector != nil {
				selecting = append(selecting, r.Name)
			}
		}
	}
	slices.Sort(names)
	unread := ""
	if slices.Sort(selecting); len(selecting) > 0 {
		unread = "; the namespaceSelector of mesh " + strings.Join(selecting, " and ") + " is not read: there are no namespaces here to select"
	}
	var errs manifest.Errors
	for _, r := range resources {
		if r.Kind == KindMesh {
			continue
		}
		name, err := meshOf(r, byObject, byName, names, unread)
		if err != nil {
			err.Object = r.String()
			errs = append(errs, err)
			continue
		}
		r.Mesh = name
	}
	return errs.OrNil()
}

// NamesMesh reports whether the object says its mesh, or is of a kind that says none.
func (r *Resource) NamesMesh() bool {
	_, ref := r.Spec.(spec).names()
	return ref == nil || *ref != nil
}

// JoinMesh names the mesh in an object that names none; "" changes nothing. The object
// must not be shared yet.
func (r *Resource) JoinMesh(name string) {
	if name != "" && !r.NamesMesh() {
		_, ref := r.Spec.(spec).names()
		*ref, r.Mesh = &MeshRef{Name: name}, name
	}
}

func meshOf(r *Resource, byObject map[string]string, byName map[string]bool, names []string, unread string) (string, *manifest.Error) {
	known := "there is no mesh"
	if len(names) > 0 {
		known = "there are: " + strings.Join(names, ", ")
	}
	if _, ref := r.names(); ref != nil {
		if name, ok := byObject[ref.Name]; ok {
			return name, nil
		}
		if byName[ref.Name] {
			return ref.Name, nil
		}
		return "", r.withoutMesh("spec.meshRef.name", ref.Name, fmt.Sprintf("refers to mesh %q, which does not exist; %s", ref.Name, known))
	}
	switch {
	case r.Kind == KindMeshOptions && byObject[r.ObjectName] != "":
		return byObject[r.ObjectName], nil
	case r.Kind == KindMeshOptions:
		return "", r.withoutMesh("metadata.name", r.ObjectName, "is about the mesh of its own name, which does not exist; "+known)
	case r.Mesh != "" && byName[r.Mesh]:
		return r.Mesh, nil
	case r.Mesh != "":
		return "", r.withoutMesh("", r.Mesh, fmt.Sprintf("belongs to mesh %q, which does not exist; %s", r.Mesh, known))
	case len(names) == 1:
		return names[0], nil
	case len(names) == 0:
		return "", r.withoutMesh("", "", "belongs to no mesh: there is none")
	}
	return "", r.fieldError("spec.meshRef", fmt.Sprintf("%s must say its mesh, by spec.meshRef or by --mesh of an import; %s%s", r, known, unread))
}

// withoutMesh is about an object whose mesh, of a name or any, is not there.
func (r *Resource) withoutMesh(path, name, says string) *manifest.Error {
	e := r.fieldError(path, r.String()+" "+says)
	e.Cause = &MissingError{Kind: KindMesh, ObjectName: name}
	return e
}

// String is "virtualNode web" or, in a namespace, "virtualNode web in namespace shop".
func (r *Resource) String() string {
	return describe(r.Kind, r.Namespace, r.ObjectName)
}

func describe(k Kind, namespace, name string) string {
	s := strings.ToLower(string(k[:1])) + string(k[1:]) + " " + name
	if namespace != "" {
		s += " in namespace " + namespace
	}
	return s
}

// fieldError is an error at a field of the resource; Doc may be nil.
func (r *Resource) fieldError(path, msg string) *manifest.Error { return r.Doc.FieldError(path, msg) }

// place is "web.yaml:12" for messages that name a second resource.
func (r *Resource) place() string {
	if r.Doc == nil || r.Doc.File == "" {
		return ""
	}
	return fmt.Sprintf(" (%s:%d)", r.Doc.File, r.Doc.Line)
}
