package xds

import (
	"fmt"
	"strings"
)

// NodeID is the xDS node id of a virtual node, as App Mesh's agent writes it.
// It selects among what a peer is bound to and grants nothing (D6).
func NodeID(mesh, node string) string {
	return "mesh/" + mesh + "/virtualNode/" + node
}

// maxNodeID bounds what is parsed of a stranger: an ARN with two names of 255.
const maxNodeID = 1024

// ParseNodeID reads a node id in the form of [NodeID] or as the full ARN,
// arn:aws:appmesh:<region>:<account>:mesh/<mesh>/virtualNode/<node>.
func ParseNodeID(s string) (mesh, node string, err error) {
	if len(s) > maxNodeID {
		return "", "", fmt.Errorf("node id of %d bytes: at most %d", len(s), maxNodeID)
	}
	resource := s
	if strings.HasPrefix(s, "arn:") {
		parts := strings.SplitN(s, ":", 6)
		if len(parts) != 6 || parts[2] != "appmesh" && parts[2] != "appmesh-preview" {
			return "", "", fmt.Errorf("node id %q: not the ARN of an App Mesh resource", s)
		}
		resource = parts[5]
	}
	parts := strings.Split(resource, "/")
	if len(parts) != 4 || parts[0] != "mesh" || parts[1] == "" || parts[3] == "" {
		return "", "", fmt.Errorf("node id %q: want mesh/<mesh>/virtualNode/<node>", s)
	}
	if parts[2] != "virtualNode" {
		return "", "", fmt.Errorf("node id %q: %s is not served by this version, virtualNode is", s, parts[2])
	}
	return parts[1], parts[3], nil
}
