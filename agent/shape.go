package agent

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// shape is what the server must know of a proxy to translate for it, as node
// metadata under shapeKey. The server validates it; it grants nothing.
type shape struct {
	bind, app    string
	egress       egressAt
	egressOpen   bool
	authzSocket  string
	wayout       string // the socket that decides who may call out
	logDir       string
	envoyVersion string
}

const (
	shapeKey = "signet.shape"
	// logDirKey is where the agent's own stream names its folder for access logs.
	logDirKey = "signet.access_log_dir"
)

// validLogDir is the server's rule, too: never the folders of devices and kernel.
func validLogDir(dir string) bool {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir || dir == "/" || len(dir) > 255 ||
		strings.ContainsFunc(dir, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return false
	}
	top, _, _ := strings.Cut(dir[1:], "/")
	return !slices.Contains([]string{"dev", "proc", "sys"}, top)
}

func (s shape) metadata() *structpb.Struct {
	text := structpb.NewStringValue
	fields := &structpb.Struct{Fields: map[string]*structpb.Value{
		"bind": text(s.bind), "app": text(s.app), "egress": text(s.egress.String()),
		"authz_socket": text(s.authzSocket), "wayout_socket": text(s.wayout),
	}}
	if s.egress.socket != "" {
		fields.Fields["egress_mode"] = text(fmt.Sprintf("%#o", s.egress.mode))
	}
	if s.egressOpen {
		fields.Fields["egress_open"] = structpb.NewBoolValue(true)
	}
	if s.logDir != "" {
		fields.Fields["access_log_dir"] = text(s.logDir)
	}
	if s.envoyVersion != "" {
		fields.Fields["envoy_version"] = text(s.envoyVersion)
	}
	return &structpb.Struct{Fields: map[string]*structpb.Value{shapeKey: structpb.NewStructValue(fields)}}
}

// shapeOf reads the shape that a proxy which the agent did not start declares of
// itself; ours is what is not its own to say: who decides for it, and where it
// may log. What the server would refuse is refused here: its refusal would reach
// the log and not the proxy.
func shapeOf(n *corev3.Node, ours shape) (shape, error) {
	fields := n.GetMetadata().GetFields()[shapeKey].GetStructValue().GetFields()
	if fields == nil {
		return shape{}, fmt.Errorf("the node's metadata has no %q", shapeKey)
	}
	s := ours
	var ignored, mode string
	into := map[string]*string{
		"bind": &s.bind, "app": &s.app, "envoy_version": &s.envoyVersion, "proxy": &ignored,
		"authz_socket": &ignored, "wayout_socket": &ignored, "access_log_dir": &ignored, "egress_mode": &mode,
	}
	egress := structpb.NewNumberValue(defaultEgressPort)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		open, isBool := fields[name].GetKind().(*structpb.Value_BoolValue)
		text, isText := fields[name].GetKind().(*structpb.Value_StringValue)
		switch {
		case name == "egress":
			egress = fields[name]
		case name == "egress_open" && isBool:
			s.egressOpen = open.BoolValue
		case into[name] != nil && isText:
			*into[name] = text.StringValue
		default:
			return shape{}, fmt.Errorf("%s: %.64q is not known, or not of the right type", shapeKey, name)
		}
	}
	if err := s.validAddresses(); err != nil {
		return shape{}, err
	}
	var err error
	if s.egress, err = egressOf(egress, mode, s.bind); err == nil {
		err = s.egress.valid(s.egressOpen)
	}
	if err != nil {
		return shape{}, fmt.Errorf("%s: egress: %w", shapeKey, err)
	}
	return s, nil
}

func (s shape) validAddresses() error {
	bind, err := netip.ParseAddr(s.bind)
	if err != nil {
		return fmt.Errorf("%s: bind: want an IP address, got %.64q", shapeKey, s.bind)
	}
	app, err := parsePlace(s.app)
	switch {
	case err != nil:
		return fmt.Errorf("%s: app: %w", shapeKey, err)
	case bind == app.addr:
		return fmt.Errorf("%s: bind: %s is the application's address too: the proxy would call itself", shapeKey, bind)
	}
	return nil
}

// tryApp looks at the folder of an application on sockets: no proxy is to connect
// to what somebody else puts there.
func (s shape) tryApp() error {
	app, err := parsePlace(s.app)
	if err == nil {
		err = app.tryFolder()
	}
	if err != nil {
		return fmt.Errorf("app: %w", err)
	}
	return nil
}

// egressOf reads where the outbound listener is to be. A port alone never means an
// address that other hosts reach.
func egressOf(v *structpb.Value, mode, bind string) (egressAt, error) {
	if text, ok := v.GetKind().(*structpb.Value_StringValue); ok {
		return parseEgress(text.StringValue, mode)
	}
	port := v.GetNumberValue()
	switch {
	case port < 1 || port > math.MaxUint16 || port != math.Trunc(port):
		return egressAt{}, errors.New("want an address with its port, such as 127.0.0.1:15001, or a number from 1 to 65535")
	case mode != "":
		return egressAt{}, errors.New("a port is not a Unix socket: leave egress_mode out")
	}
	return egressAt{AddrPort: netip.AddrPortFrom(loopbackFor(bind), uint16(port))}, nil
}

// loopbackFor is where a proxy's outbound listener listens if nothing names an
// address for it.
func loopbackFor(bind string) netip.Addr {
	if a, err := netip.ParseAddr(bind); err == nil && a.IsLoopback() {
		return a
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
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
