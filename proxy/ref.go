package proxy

import (
	"cmp"
	"fmt"
	"strings"
)

// Kind is the kind of object that a proxy runs for, as App Mesh spells it in ARNs.
type Kind string

// VirtualNode is the only kind that is served in this version.
const VirtualNode Kind = "virtualNode"

// Ref names the object that a proxy runs for. It selects among what a peer is
// bound to and grants nothing (D6).
type Ref struct {
	Mesh string
	Kind Kind
	Name string
}

// Node is the Ref of a virtual node.
func Node(mesh, name string) Ref { return Ref{Mesh: mesh, Kind: VirtualNode, Name: name} }

// String is the xDS node id, as App Mesh's agent writes it:
// "mesh/<mesh>/virtualNode/<name>".
func (r Ref) String() string { return "mesh/" + r.Mesh + "/" + string(r.Kind) + "/" + r.Name }

// Compare orders Refs by mesh, kind and name.
func (r Ref) Compare(o Ref) int {
	return cmp.Or(strings.Compare(r.Mesh, o.Mesh), strings.Compare(string(r.Kind), string(o.Kind)), strings.Compare(r.Name, o.Name))
}

// maxNodeID bounds what is parsed of a stranger: an ARN with two names of 255.
const maxNodeID = 1024

// ParseRef reads a node id in the form of String or as the full ARN,
// arn:aws:appmesh:<region>:<account>:mesh/<mesh>/virtualNode/<name>.
func ParseRef(s string) (Ref, error) {
	if len(s) > maxNodeID {
		return Ref{}, fmt.Errorf("node id of %d bytes: at most %d", len(s), maxNodeID)
	}
	resource := s
	if strings.HasPrefix(s, "arn:") {
		parts := strings.SplitN(s, ":", 6)
		if len(parts) != 6 || parts[2] != "appmesh" && parts[2] != "appmesh-preview" {
			return Ref{}, fmt.Errorf("node id %q: not the ARN of an App Mesh resource", s)
		}
		resource = parts[5]
	}
	parts := strings.Split(resource, "/")
	if len(parts) != 4 || parts[0] != "mesh" || parts[1] == "" || parts[3] == "" {
		return Ref{}, fmt.Errorf("node id %q: want mesh/<mesh>/virtualNode/<node>", s)
	}
	if Kind(parts[2]) != VirtualNode {
		return Ref{}, fmt.Errorf("node id %q: %s is not served by this version, virtualNode is", s, parts[2])
	}
	return Node(parts[1], parts[3]), nil
}
