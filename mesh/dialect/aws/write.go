package aws

import (
	"bytes"
	"encoding/json"
	"slices"

	"signet.example/mesh"
	"signet.example/mesh/dialect"
)

// Input is that of one create-… command.
type Input struct {
	// Command is the one that takes it, such as create-virtual-node.
	Command string
	Kind    mesh.Kind
	// Mesh, Parent and Name are App Mesh's; Parent is a route's router or a gateway route's gateway.
	Mesh, Parent, Name string
	JSON               []byte
}

var commands = map[mesh.Kind]string{
	mesh.KindMesh: "create-mesh", mesh.KindVirtualNode: "create-virtual-node", mesh.KindVirtualService: "create-virtual-service",
	mesh.KindVirtualRouter: "create-virtual-router", dialect.KindRoute: "create-route",
	mesh.KindVirtualGateway: "create-virtual-gateway", mesh.KindGatewayRoute: "create-gateway-route",
}

// Write writes resources as inputs of the AWS CLI, in an order in which they can be
// created, and lists what those cannot say.
func Write(rs []*mesh.Resource) ([]Input, []dialect.Finding, error) {
	list, losses := dialect.Write(rs, dialect.AWS)
	var out []Input
	for _, w := range list {
		k := kinds[slices.IndexFunc(kinds, func(k kind) bool { return k.Kind == w.Kind })]
		var whole dialect.Members
		add := func(name, value string) {
			if name != "" && value != "" {
				whole = append(whole, dialect.Pair{Name: name, Value: value})
			}
		}
		if w.Kind != mesh.KindMesh {
			add("meshName", w.Mesh)
		}
		add(k.parent, w.Parent)
		add(k.name, w.Name)
		whole = append(whole, dialect.Pair{Name: "spec", Value: w.Spec})
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(whole); err != nil {
			return nil, nil, err
		}
		out = append(out, Input{Command: commands[w.Kind], Kind: w.Kind, Mesh: w.Mesh, Parent: w.Parent, Name: w.Name, JSON: b.Bytes()})
	}
	return out, losses, nil
}
