package cloudformation

import (
	"bytes"
	"fmt"
	"strings"

	"signet.example/internal/manifest"
	"signet.example/mesh"
	"signet.example/mesh/dialect"
)

// Write writes resources as a template, and lists what that cannot say. What must be
// there before something else is referred to by its logical name, so that CloudFormation
// creates it first; other objects, and those of other stacks, by their own.
func Write(rs []*mesh.Resource) ([]byte, []dialect.Finding) {
	list, losses := dialect.Write(rs, dialect.CloudFormation)
	w := &writer{logical: map[dialect.Name]string{}, taken: map[string]bool{}}
	for _, x := range list {
		w.logical[nameOf(x)] = w.logicalName(x)
	}
	w.b.WriteString("AWSTemplateFormatVersion: \"2010-09-09\"\nResources:")
	if len(list) == 0 {
		w.b.WriteString(" {}")
	}
	w.b.WriteString("\n")
	for _, x := range list {
		w.resource(x)
	}
	return w.b.Bytes(), losses
}

type writer struct {
	b       bytes.Buffer
	logical map[dialect.Name]string
	taken   map[string]bool
}

// nameOf names an object of its router's or gateway's, too.
func nameOf(x dialect.Written) dialect.Name {
	name := x.Name
	if x.Parent != "" {
		name = x.Parent + "/" + name
	}
	return dialect.Name{Kind: x.Kind, Mesh: x.Mesh, Name: name}
}

// logicalName has letters and digits, as it must, and belongs to one object.
func (w *writer) logicalName(x dialect.Written) string {
	var b strings.Builder
	up := true
	for _, r := range nameOf(x).Name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		switch {
		case !letter:
			up = true
			continue
		case up && r >= 'a' && r <= 'z':
			r += 'A' - 'a'
		}
		b.WriteRune(r)
		up = false
	}
	base := string(x.Kind) + b.String()
	base = base[:min(len(base), 200)] // 255 may be, with a number behind it
	name := base
	for i := 2; w.taken[name]; i++ {
		name = fmt.Sprint(base, "N", i)
	}
	w.taken[name] = true
	return name
}

func (w *writer) resource(x dialect.Written) {
	k := kinds[string(x.Kind)]
	fmt.Fprintf(&w.b, "  %s:\n    Type: %s%s\n    Properties:\n", w.logical[nameOf(x)], typePrefix, x.Kind)
	properties := dialect.Members{}
	if x.Kind != mesh.KindMesh && x.Mesh != "" {
		properties = append(properties, dialect.Pair{Name: "MeshName", Value: dialect.Name{Kind: mesh.KindMesh, Mesh: x.Mesh, Name: x.Mesh}})
	}
	if x.Parent != "" {
		of := mesh.KindVirtualRouter
		if x.Kind == mesh.KindGatewayRoute {
			of = mesh.KindVirtualGateway
		}
		properties = append(properties, dialect.Pair{Name: k.parent, Value: dialect.Name{Kind: of, Mesh: x.Mesh, Name: x.Parent}})
	}
	properties = append(properties, dialect.Pair{Name: k.name, Value: x.Name}, dialect.Pair{Name: "Spec", Value: x.Spec})
	w.members(properties, "      ")
}

func (w *writer) members(m dialect.Members, indent string) {
	for _, p := range m {
		w.b.WriteString(indent + p.Name + ":")
		w.value(p.Value, indent)
	}
}

func (w *writer) value(v any, indent string) {
	switch v := v.(type) {
	case dialect.Members:
		if len(v) == 0 {
			w.b.WriteString(" {}\n")
			return
		}
		w.b.WriteString("\n")
		w.members(v, indent+"  ")
	case []any:
		if len(v) == 0 {
			w.b.WriteString(" []\n")
			return
		}
		w.b.WriteString("\n")
		for _, item := range v {
			w.item(item, indent+"  ")
		}
	default:
		w.b.WriteString(" " + w.scalar(v) + "\n")
	}
}

func (w *writer) item(v any, indent string) {
	w.b.WriteString(indent + "-")
	switch v := v.(type) {
	case dialect.Members:
		if len(v) == 0 {
			w.b.WriteString(" {}\n")
			return
		}
		w.b.WriteString(" " + v[0].Name + ":")
		w.value(v[0].Value, indent+"  ")
		w.members(v[1:], indent+"  ")
	default:
		w.b.WriteString(" " + w.scalar(v) + "\n")
	}
}

func (w *writer) scalar(v any) string {
	switch v := v.(type) {
	case string:
		return manifest.Quote(v)
	case dialect.Name:
		logical := w.logical[dialect.Name{Kind: v.Kind, Mesh: v.Mesh, Name: v.Name}]
		if logical == "" || v.Loose {
			return manifest.Quote(v.Name)
		}
		return "!GetAtt " + logical + "." + kinds[string(v.Kind)].name
	}
	return fmt.Sprint(v)
}
