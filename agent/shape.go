package agent

import (
	"errors"
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// shape is what the server must know of a proxy to translate for it, as node
// metadata under shapeKey. The server validates it; it grants nothing.
type shape struct {
	bind, app    string
	egress       int
	authzSocket  string
	envoyVersion string
}

const shapeKey = "signet.shape"

func (s shape) metadata() *structpb.Struct {
	text := structpb.NewStringValue
	fields := &structpb.Struct{Fields: map[string]*structpb.Value{
		"bind": text(s.bind), "app": text(s.app), "egress": structpb.NewNumberValue(float64(s.egress)),
		"authz_socket": text(s.authzSocket),
	}}
	if s.envoyVersion != "" {
		fields.Fields["envoy_version"] = text(s.envoyVersion)
	}
	return &structpb.Struct{Fields: map[string]*structpb.Value{shapeKey: structpb.NewStructValue(fields)}}
}

// shapeOf reads the shape that a proxy which the agent did not start declares of
// itself. Where its ext_authz goes is not its own to say.
func shapeOf(n *corev3.Node, authzSocket string) (shape, error) {
	fields := n.GetMetadata().GetFields()[shapeKey].GetStructValue().GetFields()
	if fields == nil {
		return shape{}, fmt.Errorf("the node's metadata has no %q", shapeKey)
	}
	s := shape{
		bind: fields["bind"].GetStringValue(), app: fields["app"].GetStringValue(),
		egress: int(fields["egress"].GetNumberValue()), authzSocket: authzSocket,
		envoyVersion: fields["envoy_version"].GetStringValue(),
	}
	if s.bind == "" || s.app == "" {
		return shape{}, fmt.Errorf("the %q of the node's metadata needs bind and app", shapeKey)
	}
	if s.egress == 0 {
		s.egress = defaultEgress
	}
	return s, nil
}

// nodeID is the xDS node id of a virtual node, as App Mesh writes it.
func nodeID(mesh, node string) string { return "mesh/" + mesh + "/virtualNode/" + node }

var errNodeID = errors.New("the node id is not mesh/<mesh>/virtualNode/<node>")

// parseNodeID reads a node id; the ARN form ends with the same part.
func parseNodeID(id string) (mesh, node string, err error) {
	if strings.HasPrefix(id, "arn:") {
		parts := strings.SplitN(id, ":", 6)
		if len(parts) != 6 {
			return "", "", errNodeID
		}
		id = parts[5]
	}
	parts := strings.Split(id, "/")
	if len(parts) != 4 || parts[0] != "mesh" || parts[2] != "virtualNode" || parts[1] == "" || parts[3] == "" {
		return "", "", errNodeID
	}
	return parts[1], parts[3], nil
}
