package admin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"signet.example/api"
	"signet.example/internal/manifest"
	"signet.example/internal/plain"
	"signet.example/mesh"
	"signet.example/server/fault"
	"signet.example/server/kinds"
)

// kindOf is the kind that an operator means.
func kindOf(s string) (string, error) {
	if k, ok := kinds.Find(s); ok {
		return k.Name, nil
	}
	names := append(kinds.Names(func(kinds.Kind) bool { return true }), kindAgent)
	var words []string
	for _, name := range names {
		words = append(words, strings.ToLower(name), strings.ToLower(name)+"s")
	}
	meant := ""
	if near := manifest.Nearest(strings.ToLower(s), words); near != "" {
		meant = mesh.DidYouMean("", near)
	}
	return "", fault.New(fault.Invalid, "%q is not a kind; there are %s%s", plain.Text(s), strings.Join(names, ", "), meant)
}

// thereIs refuses a mesh that is asked for and does not exist.
func thereIs(m Model, name string) error {
	if name == "" || slices.Contains(m.Graph().Meshes(), name) {
		return nil
	}
	return fault.New(fault.NotFound, "mesh %q does not exist%s", plain.Text(name), others(m, kinds.Mesh(name).Kind, ""))
}

// Get reads back what is stored: of one kind, or of all where none is named.
func (s *Server) Get(ctx context.Context, req *api.GetRequest) (*api.GetResponse, error) {
	kind := ""
	if req.GetKind() != "" && req.GetKind() != "all" {
		var err error
		if kind, err = kindOf(req.GetKind()); err != nil {
			return nil, err
		}
	}
	m, err := s.cfg.Stored.Newest(ctx)
	if err != nil {
		return nil, err
	}
	if err := thereIs(m, req.GetMesh()); err != nil {
		return nil, err
	}
	resp := &api.GetResponse{}
	for k, o := range m.Objects().All() {
		if kind != "" && k.Kind != kind || req.GetMesh() != "" && k.Mesh != req.GetMesh() || req.GetName() != "" && k.Name != req.GetName() {
			continue
		}
		resp.Objects = append(resp.Objects, &api.Object{Kind: k.Kind, Mesh: k.Mesh, Name: k.Name, Revision: o.Revision, Yaml: string(o.Encode()), Owner: o.Owner, Address: addressOf(m, k)})
	}
	if req.GetName() != "" && len(resp.GetObjects()) == 0 {
		return nil, fault.New(fault.NotFound, "%s %q does not exist%s", cmp.Or(kind, "an object"), plain.Text(req.GetName()), others(m, kind, req.GetMesh()))
	}
	return resp, nil
}

// addressOf is the loopback address of a virtual service, "" where its mesh gives none, and of
// all else.
func addressOf(m Model, k kinds.Key) string {
	name := mesh.NameOf(mesh.Kind(k.Kind), k.Mesh, k.Name)
	if name.Kind != mesh.KindVirtualService || m.Graph().Service(name) == nil {
		return ""
	}
	if a := m.Graph().AddressOf(name, m.Groups().Hosts.Any); a.IsValid() {
		return a.String()
	}
	return ""
}

// maxOthers bounds how many names a message lists.
const maxOthers = 10

// others lists what there is of a kind, of one mesh where that is named, for whoever asked
// for what there is not.
func others(m Model, kind, mesh string) string {
	if kind == "" {
		return ""
	}
	var keys []kinds.Key
	for k := range m.Objects().All() {
		if k.Kind == kind && (mesh == "" || k.Mesh == mesh) {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return "; there is none"
	}
	var list []string
	for _, k := range keys[:min(len(keys), maxOthers)] {
		list = append(list, k.Name)
	}
	if more := len(keys) - len(list); more > 0 {
		list = append(list, fmt.Sprintf("%d more", more))
	}
	return "; there are " + strings.Join(list, ", ")
}
