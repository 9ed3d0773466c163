package proxy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Kind is the kind of object that a proxy runs for, as App Mesh spells it in ARNs.
type Kind string

// The kinds that are served.
const (
	VirtualNode    Kind = "virtualNode"
	VirtualGateway Kind = "virtualGateway"
)

// Kinds lists those that are served.
func Kinds() []Kind { return []Kind{VirtualNode, VirtualGateway} }

// Words is the kind for people.
func (k Kind) Words() string {
	if k == VirtualGateway {
		return "virtual gateway"
	}
	return "virtual node"
}

// Ref names the object that a proxy runs for. It selects among what a peer is
// bound to and grants nothing (D6).
type Ref struct {
	Mesh string
	Kind Kind
	Name string
}

// Node is the Ref of a virtual node.
func Node(mesh, name string) Ref { return Ref{Mesh: mesh, Kind: VirtualNode, Name: name} }

// For is the Ref of a virtual node or of a virtual gateway. Of one mesh there is only
// one of a name, as both have the same form of identity.
func For(mesh, name string, gateway bool) Ref {
	if gateway {
		return Ref{Mesh: mesh, Kind: VirtualGateway, Name: name}
	}
	return Node(mesh, name)
}

// Gateway reports whether it is a virtual gateway.
func (r Ref) Gateway() bool { return r.Kind == VirtualGateway }

// String is the xDS node id, as App Mesh's agent writes it:
// "mesh/<mesh>/virtualNode/<name>", or with virtualGateway.
func (r Ref) String() string { return "mesh/" + r.Mesh + "/" + string(r.Kind) + "/" + r.Name }

// Compare orders Refs by mesh, kind and name.
func (r Ref) Compare(o Ref) int {
	return cmp.Or(strings.Compare(r.Mesh, o.Mesh), strings.Compare(string(r.Kind), string(o.Kind)), strings.Compare(r.Name, o.Name))
}

// maxNodeID bounds what is parsed of a stranger: an ARN with two names of 255.
const maxNodeID = 1024

// ParseRef reads a node id in the form of String or as the full ARN,
// arn:aws:appmesh:<region>:<account>:mesh/<mesh>/virtualNode/<name>, or with virtualGateway.
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
		return Ref{}, fmt.Errorf("node id %q: want mesh/<mesh>/virtualNode/<node> or mesh/<mesh>/virtualGateway/<gateway>", s)
	}
	if !slices.Contains(Kinds(), Kind(parts[2])) {
		return Ref{}, fmt.Errorf("node id %q: %s is not served, virtualNode and virtualGateway are", s, parts[2])
	}
	return Ref{Mesh: parts[1], Kind: Kind(parts[2]), Name: parts[3]}, nil
}
