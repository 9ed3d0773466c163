// Package exporter writes what a server has of App Mesh in a form that App Mesh's users
// know, so that they can take it away again: without loss in CRD form, and with every loss
// listed in others.
//
// It must not know the store nor the server; it is pure.
package exporter

import (
	"bytes"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"signet.example/mesh"
	"signet.example/mesh/dialect"
	"signet.example/mesh/dialect/aws"
	"signet.example/mesh/dialect/cloudformation"
)

// Stored is an object as a server has it: its key, and its manifest after defaults.
type Stored struct{ Kind, Mesh, Name, Manifest string }

// Part is what is written of one object, or of several that stand in one file.
type Part struct {
	// File is a name for it: letters, digits and what else is harmless.
	File    string
	Content []byte
}

// Export is what was written, and what could not be.
type Export struct {
	Parts []Part
	// Losses name what the form cannot say, by object and field.
	Losses []string
	// Others counts the objects that are none of App Mesh's.
	Others int

	between string
}

// Text is all parts together, as import reads them.
func (e *Export) Text() []byte {
	var texts [][]byte
	for _, p := range e.Parts {
		texts = append(texts, p.Content)
	}
	return bytes.Join(texts, []byte(e.between))
}

// Forms are those that are written, as import calls them.
func Forms() []string { return []string{"crd", "aws", "cfn"} }

// Write writes objects in a form of Forms, referents before what refers to them.
func Write(form string, stored []Stored) (*Export, error) {
	e := &Export{}
	var resources []*mesh.Resource
	for _, s := range stored {
		if !slices.ContainsFunc(mesh.Kinds(), func(k mesh.KindInfo) bool { return string(k.Kind) == s.Kind }) {
			e.Others++
			continue
		}
		r, err := read(s)
		if err != nil {
			return nil, fmt.Errorf("stored %s %s/%s: %w", s.Kind, s.Mesh, s.Name, err)
		}
		resources = append(resources, r)
	}
	nameMeshes(resources)
	slices.SortStableFunc(resources, mesh.ReferentsFirst)
	if len(resources) == 0 {
		return e, nil
	}
	var losses []dialect.Finding
	switch form {
	case "crd":
		e.between = "---\n"
		for _, r := range resources {
			e.Parts = append(e.Parts, Part{File: fileOf(r) + ".yaml", Content: r.Encode()})
		}
	case "aws":
		inputs, lost, err := aws.Write(resources)
		if err != nil {
			return nil, err
		}
		losses = lost
		for i, in := range inputs {
			e.Parts = append(e.Parts, Part{File: fmt.Sprintf("%05d_%s_%s.json", i+1, in.Command, url.PathEscape(in.Name)), Content: in.JSON})
		}
	case "cfn":
		template, lost := cloudformation.Write(resources)
		losses = lost
		e.Parts = []Part{{File: "template.yaml", Content: template}}
	default:
		return nil, fmt.Errorf("%q is not a form that is written: %s", form, strings.Join(Forms(), ", "))
	}
	for _, l := range losses {
		e.Losses = append(e.Losses, l.What+": "+l.Path+": "+l.Text)
	}
	return e, nil
}

// read understands a manifest that a server wrote.
func read(s Stored) (*mesh.Resource, error) {
	docs, err := mesh.Split("", []byte(s.Manifest))
	if err != nil {
		return nil, err
	}
	if len(docs) != 1 {
		return nil, fmt.Errorf("has %d documents", len(docs))
	}
	r, err := mesh.Parse(docs[0])
	if err != nil {
		return nil, err
	}
	r.Mesh = s.Mesh
	return r, nil
}

// nameMeshes has each object say its mesh where there are several: where these were
// applied there may have been one.
func nameMeshes(resources []*mesh.Resource) {
	meshes := map[string]bool{}
	for _, r := range resources {
		meshes[r.Mesh] = true
	}
	if len(meshes) < 2 {
		return
	}
	for _, r := range resources {
		r.JoinMesh(r.Mesh)
	}
}

// fileOf is a name that no two objects have in common: a mesh and a kind have no
// underscore.
func fileOf(r *mesh.Resource) string {
	name := strings.ToLower(string(r.Kind)) + "_" + url.PathEscape(r.Name)
	if r.Kind == mesh.KindMesh {
		return name
	}
	return url.PathEscape(r.Mesh) + "_" + name
}
