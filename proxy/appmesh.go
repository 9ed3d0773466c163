package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"
)

const (
	// appMeshPrefix begins the keys of the metadata that App Mesh's own agent writes.
	appMeshPrefix = "aws.appmesh."
	// appMeshInterfaces has the addresses of a task: {ipv4: {eth0: ["192.0.2.7/24"]}, ipv6: {…}}.
	appMeshInterfaces = "aws.appmesh.task.interfaces"
)

// OfAppMesh reports whether a node's metadata is what App Mesh's own agent writes. It has
// no Shape.
func OfAppMesh(metadata *structpb.Struct) bool {
	fields := metadata.GetFields()
	if fields[ShapeKey] != nil {
		return false
	}
	for key := range fields {
		if strings.HasPrefix(key, appMeshPrefix) {
			return true
		}
	}
	return false
}

// Where is where an Envoy is whose bootstrap does not say it, as an operator has it, who may leave
// out what has a default.
type Where struct {
	// Bind is the IP address of the listeners; by default the one of the task's interfaces.
	Bind string `yaml:"bind"`
	// App is where the application listens, as [ParsePlace] reads it; by default 127.0.0.1.
	App string `yaml:"app"`
	// Egress is where the outbound listener listens, EgressMode the mode of a socket there, as
	// [ParseEgress] reads them; by default as [EgressPort] has it.
	Egress     string `yaml:"egress"`
	EgressMode string `yaml:"egress_mode"`
}

// example stands for an address that is not known before a node's metadata is.
const example = "192.0.2.1"

// Given reports whether the operator says anything.
func (w Where) Given() bool { return w != Where{} }

// Validate refuses what no Envoy could be at.
func (w Where) Validate() error {
	w.Bind = cmp.Or(w.Bind, example)
	s, err := w.Shape(nil)
	if err != nil {
		return err
	}
	return s.validWhere()
}

// Shape is that of a node with this metadata, to be validated.
func (w Where) Shape(metadata *structpb.Struct) (Shape, error) {
	s := Shape{Bind: w.Bind, App: cmp.Or(w.App, "127.0.0.1")}
	if s.Bind == "" {
		var err error
		if s.Bind, err = taskAddress(metadata.GetFields()[appMeshInterfaces].GetStructValue()); err != nil {
			return Shape{}, fmt.Errorf("%s: %w: app_mesh.bind in the file of Signet's agent says which address the listeners have", appMeshInterfaces, err)
		}
	}
	if w.Egress == "" && w.EgressMode == "" {
		s.Egress = EgressPort(s.Bind, DefaultEgressPort)
		return s, nil
	}
	var err error
	if s.Egress, err = ParseEgress(w.Egress, w.EgressMode); err != nil {
		return Shape{}, fmt.Errorf("egress: %w", err)
	}
	return s, nil
}

// taskAddress is the one address of a task's interfaces that others reach, IPv4 before IPv6.
func taskAddress(interfaces *structpb.Struct) (string, error) {
	for _, family := range []string{"ipv4", "ipv6"} {
		found := map[string]bool{}
		for name, list := range interfaces.GetFields()[family].GetStructValue().GetFields() {
			for _, v := range list.GetListValue().GetValues() {
				at, err := netip.ParsePrefix(v.GetStringValue())
				if err != nil {
					return "", fmt.Errorf("%.64q of %.64q is not an address with its prefix", v.GetStringValue(), name)
				}
				if name != "lo" && !at.Addr().IsLinkLocalUnicast() { // the platform's own are link-local
					found[at.Addr().String()] = true
				}
			}
		}
		switch list := slices.Sorted(maps.Keys(found)); len(list) {
		case 0:
		case 1:
			return list[0], nil
		default:
			return "", fmt.Errorf("the task has several addresses, %.256s", strings.Join(list, ", "))
		}
	}
	return "", errors.New("it names no address")
}
