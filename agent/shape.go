package agent

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
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
// itself. Where its ext_authz goes is not its own to say. What the server would
// refuse is refused here: its refusal would reach the log and not the proxy.
func shapeOf(n *corev3.Node, authzSocket string) (shape, error) {
	fields := n.GetMetadata().GetFields()[shapeKey].GetStructValue().GetFields()
	if fields == nil {
		return shape{}, fmt.Errorf("the node's metadata has no %q", shapeKey)
	}
	s := shape{egress: defaultEgress, authzSocket: authzSocket}
	var ignored string
	into := map[string]*string{
		"bind": &s.bind, "app": &s.app, "envoy_version": &s.envoyVersion, "authz_socket": &ignored, "proxy": &ignored,
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if name == "egress" {
			port := fields[name].GetNumberValue()
			if port < 1 || port > 65535 || port != math.Trunc(port) {
				return shape{}, fmt.Errorf("%s: egress: want a number from 1 to 65535", shapeKey)
			}
			s.egress = int(port)
			continue
		}
		text, ok := fields[name].GetKind().(*structpb.Value_StringValue)
		if into[name] == nil || !ok {
			return shape{}, fmt.Errorf("%s: %.64q is not known, or not a text", shapeKey, name)
		}
		*into[name] = text.StringValue
	}
	bind, errBind := netip.ParseAddr(s.bind)
	app, errApp := netip.ParseAddr(s.app)
	switch {
	case errBind != nil || errApp != nil:
		return shape{}, fmt.Errorf("%s: bind and app: want an IP address each, got %.64q and %.64q", shapeKey, s.bind, s.app)
	case bind == app:
		return shape{}, fmt.Errorf("%s: bind: %s is the application's address too: the proxy would call itself", shapeKey, bind)
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
