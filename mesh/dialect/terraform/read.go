package terraform

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"signet.example/internal/manifest"
	"signet.example/mesh"
	"signet.example/mesh/dialect"
)

// kind is one of App Mesh's types of resources.
type kind struct {
	mesh.Kind
	parent string // attribute that names what it is in, beside the mesh
}

var kinds = map[string]kind{
	"aws_appmesh_mesh":            {mesh.KindMesh, ""},
	"aws_appmesh_virtual_node":    {mesh.KindVirtualNode, ""},
	"aws_appmesh_virtual_service": {mesh.KindVirtualService, ""},
	"aws_appmesh_virtual_router":  {mesh.KindVirtualRouter, ""},
	"aws_appmesh_route":           {dialect.KindRoute, "virtual_router_name"},
	"aws_appmesh_virtual_gateway": {mesh.KindVirtualGateway, ""},
	"aws_appmesh_gateway_route":   {mesh.KindGatewayRoute, "virtual_gateway_name"},
}

// computed are the attributes that AWS gave a resource, or Terraform.
var computed = []string{"arn", "created_date", "id", "last_updated_date", "mesh_owner", "region", "resource_owner", "tags_all", "timeouts"}

// maxDepth is of modules in each other.
const maxDepth = 100

// Read implements [dialect.Reader].
func Read(d *dialect.Drafts, f dialect.File) {
	d.File(f.Name)
	r := &reader{drafts: d, file: f, in: dialect.NewStream(f.Content)}
	if err := r.object(0); err != nil {
		line, column := r.in.Place(0)
		d.Wrong(manifest.Errors{{File: f.Name, Line: line, Column: column, Msg: "is no state of Terraform: " + err.Error()}})
	}
}

type reader struct {
	drafts *dialect.Drafts
	file   dialect.File
	in     *dialect.Stream
}

// object looks for resources: in the state itself, or in the modules of an answer.
func (r *reader) object(depth int) error {
	if depth > maxDepth {
		return errors.New("its modules are nested too deep")
	}
	if err := r.in.Delim('{'); err != nil {
		return err
	}
	for r.in.More() {
		key, err := r.in.Token()
		if err != nil {
			return err
		}
		switch key {
		case "resources":
			err = r.list(r.resource)
		case "child_modules":
			err = r.list(func() error { return r.object(depth + 1) })
		case "values", "root_module":
			err = r.object(depth + 1)
		default:
			err = r.in.Skip()
		}
		if err != nil {
			return err
		}
	}
	return r.in.Delim('}')
}

func (r *reader) list(each func() error) error {
	if err := r.in.Delim('['); err != nil {
		return err
	}
	for r.in.More() {
		if err := each(); err != nil {
			return err
		}
	}
	return r.in.Delim(']')
}

// head is what is looked at of every resource.
type head struct {
	Mode, Type, Name, Module, Address string
}

func (r *reader) resource() error {
	var raw json.RawMessage
	if err := r.in.Decode(&raw); err != nil {
		return err
	}
	line, column := r.in.Place(len(raw))
	var h head
	if err := json.Unmarshal(raw, &h); err != nil {
		return errors.New("a resource has no type and name that are texts")
	}
	if h.Mode == "data" {
		return nil
	}
	k, ours := kinds[h.Type]
	if !ours {
		r.drafts.AddContext(dialect.Object{Place: dialect.Place{File: r.file.Name, Line: line, Column: column}, Kind: h.Type, Name: h.Name})
		return nil
	}
	nodes, errs := manifest.Form{Line: line, Column: column, Unfilled: r.file.Unfilled}.Read(r.file.Name, raw)
	r.drafts.Wrong(errs)
	for _, n := range nodes {
		r.instances(n, h, k)
	}
	return nil
}

// instances are those of a resource in a state; in an answer each stands by itself.
func (r *reader) instances(n manifest.Node, h head, k kind) {
	address := h.Type + "." + h.Name
	if h.Module != "" {
		address = h.Module + "." + address
	}
	if values := n.Get("values"); values.Is() == manifest.Mapping {
		if h.Address != "" {
			address = h.Address
		}
		r.instance(values, address, k)
		return
	}
	for _, i := range n.Get("instances").Items() {
		at := address
		switch key := i.Get("index_key"); {
		case key.IsString():
			at += fmt.Sprintf("[%q]", key.Text())
		case key.Is() == manifest.Scalar:
			at += "[" + key.Text() + "]"
		}
		r.instance(i.Get("attributes"), at, k)
	}
}

func (r *reader) instance(n manifest.Node, address string, k kind) {
	attribute := func(name string) manifest.Member {
		return manifest.Member{Written: address + "." + name, Value: n.Get(name)}
	}
	x := dialect.Draft{Kind: k.Kind, Name: attribute("name"), Mesh: attribute("mesh_name"), Spec: attribute("spec"), Spelling: dialect.Terraform, At: n}
	if k.parent != "" {
		x.Parent = attribute(k.parent)
	}
	if blocks := x.Spec.Value.Items(); len(blocks) == 1 {
		x.Spec = manifest.Member{Written: address + ".spec[0]", Value: blocks[0]}
	} else if x.Spec.Value.Is() == manifest.List && len(blocks) == 0 {
		x.Spec.Value = manifest.Node{}
	}
	if x.Spec.Value.Is() == manifest.Null {
		x.Spec.Value = n.Mapping() // an empty one is sent
	}
	for _, m := range n.Members() {
		why := "App Mesh's model has no such field"
		switch {
		case slices.Contains(computed, m.Name) || slices.Contains([]string{"name", "mesh_name", "spec", k.parent}, m.Name) || m.Value.Is() == manifest.Null:
			continue
		case m.Name == "tags":
			if len(m.Value.Members()) == 0 {
				continue
			}
			why = "there are no AWS tags here"
		}
		r.drafts.Note(string(k.Kind)+" "+x.Name.Value.Text(), dialect.Dropped, m.Key(), address+"."+m.Name, why)
	}
	r.drafts.Add(x)
}
