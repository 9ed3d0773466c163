package server

import (
	"net"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"

	"signet.example/api"
	"signet.example/mesh"
)

// Internals that are tested by themselves.
var (
	PlainText = plainText
	AgentName = agentID
	FetchJWKS = fetchJWKS
)

// Touched lists the virtual nodes of a mesh that would be translated again if
// applied were applied to it.
func Touched(td spiffeid.TrustDomain, stored, applied string) ([]string, error) {
	empty, err := newModel(td, 0, nil)
	if err != nil {
		return nil, err
	}
	read := func(now *model, manifests string) (*intake, error) {
		in := &intake{server: &server{td: td}}
		in.read(&api.Source{File: "test.yaml", Content: []byte(manifests)})
		if len(in.errs) > 0 {
			return nil, in.errs
		}
		return in, in.assign(now)
	}
	before, err := read(empty, stored)
	if err != nil {
		return nil, err
	}
	now, err := empty.with(before.objects)
	if err != nil {
		return nil, err
	}
	in, err := read(now, applied)
	if err != nil {
		return nil, err
	}
	next, err := now.with(in.objects)
	if err != nil {
		return nil, err
	}
	var names []string
	t := touchedBy(in.objects)
	for _, k := range sortedObjects(next, string(mesh.KindVirtualNode)) {
		if t.has(next.graph.Node(k.mesh, k.name)) {
			names = append(names, k.name)
		}
	}
	return slices.Compact(names), nil
}

// ServeStopped serves a face that was stopped before.
func ServeStopped(l net.Listener) error {
	f := face{grpc.NewServer(), l}
	f.server.Stop()
	return f.serve()
}
