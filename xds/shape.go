package xds

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// DefaultEgress is App Mesh's port for outbound calls.
const DefaultEgress = 15001

// shapeKey is where a node's metadata carries its Shape.
const shapeKey = "signet.shape"

// sunPathMax is what a Unix socket's name may have: 108 bytes with the final NUL.
const sunPathMax = 107

// Shape is what makes two proxies of one virtual node need different bytes. An
// agent declares it; it is validated and never trusted to grant anything: who
// may be which virtual node is decided by bindings (DESIGN decisions 2 and 6).
type Shape struct {
	// Bind is the address that the listeners bind: a loopback or host address.
	Bind string
	// App is the address where the application listens, on the same ports.
	App string
	// Egress is the port of the outbound listener on Bind.
	Egress int
	// AuthzSocket is the agent's Unix socket that answers ext_authz.
	AuthzSocket string
	// EnvoyVersion is the proxy's version, such as "1.40.0"; empty if not known.
	EnvoyVersion string
	// Proxy is the agent's name for the proxy, or the like; it is not used in
	// any resource, so that replicas share their view's bytes.
	Proxy string
}

// ErrShape is wrapped by every refusal of a Shape.
var ErrShape = errors.New("shape of the proxy")

// Envoy older than this has known holes in what we rely on (ext_authz and RBAC,
// SECURITY 2).
const minEnvoyMajor, minEnvoyMinor = 1, 38

var (
	envoyVersion = regexp.MustCompile(`^([0-9]{1,4})\.([0-9]{1,4})(\.[0-9]{1,4})?(-[0-9A-Za-z.-]{1,32})?$`)
	proxyName    = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._-]{0,62}$`)
)

// Validate refuses a Shape that no proxy could run, or that would loop.
func (s Shape) Validate() error {
	bind, err := hostAddress("bind", s.Bind)
	if err != nil {
		return err
	}
	app, err := hostAddress("app", s.App)
	if err != nil {
		return err
	}
	// The local cluster goes to App on the listener's own port: the same address
	// would make the proxy its own client, without end.
	if bind == app {
		return fmt.Errorf("%w: bind and app are both %s", ErrShape, bind)
	}
	if s.Egress < 1 || s.Egress > 65535 {
		return fmt.Errorf("%w: egress port %d", ErrShape, s.Egress)
	}
	if err := validSocket(s.AuthzSocket); err != nil {
		return err
	}
	if s.Proxy != "" && !proxyName.MatchString(s.Proxy) {
		return fmt.Errorf("%w: proxy name %q", ErrShape, s.Proxy)
	}
	return validEnvoy(s.EnvoyVersion)
}

// hostAddress parses one address. An unspecified one would also take the
// application's own address, and so give the loop that Validate refuses.
func hostAddress(field, s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%w: %s: %w", ErrShape, field, err)
	}
	if a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" || a.Is4In6() {
		return netip.Addr{}, fmt.Errorf("%w: %s: %s is not the address of one host", ErrShape, field, s)
	}
	return a, nil
}

func validSocket(s string) error {
	switch {
	case !path.IsAbs(s) || path.Clean(s) != s || s == "/":
		return fmt.Errorf("%w: authorization socket %q is not a clean absolute path", ErrShape, s)
	case len(s) > sunPathMax:
		return fmt.Errorf("%w: authorization socket %q: longer than %d bytes", ErrShape, s, sunPathMax)
	case strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		return fmt.Errorf("%w: authorization socket %q: control characters", ErrShape, s)
	}
	return nil
}

func validEnvoy(v string) error {
	if v == "" {
		return nil
	}
	m := envoyVersion.FindStringSubmatch(v)
	if m == nil {
		return fmt.Errorf("%w: Envoy version %q", ErrShape, v)
	}
	major, _ := strconv.Atoi(m[1]) // at most four digits: cannot fail
	minor, _ := strconv.Atoi(m[2])
	if major < minEnvoyMajor || major == minEnvoyMajor && minor < minEnvoyMinor {
		return fmt.Errorf("%w: Envoy %s: at least %d.%d is needed", ErrShape, v, minEnvoyMajor, minEnvoyMinor)
	}
	return nil
}

// Metadata is the Shape as node metadata, which [ShapeFromNode] reads.
func (s Shape) Metadata() *structpb.Struct {
	text := structpb.NewStringValue
	shape := &structpb.Struct{Fields: map[string]*structpb.Value{
		"bind":          text(s.Bind),
		"app":           text(s.App),
		"egress":        structpb.NewNumberValue(float64(s.Egress)),
		"authz_socket":  text(s.AuthzSocket),
		"envoy_version": text(s.EnvoyVersion),
		"proxy":         text(s.Proxy),
	}}
	return &structpb.Struct{Fields: map[string]*structpb.Value{shapeKey: structpb.NewStructValue(shape)}}
}

// ShapeFromNode reads and validates the Shape in a node's metadata.
func ShapeFromNode(n *corev3.Node) (Shape, error) {
	st := n.GetMetadata().GetFields()[shapeKey].GetStructValue()
	if st == nil {
		return Shape{}, fmt.Errorf("%w: node metadata has no %s", ErrShape, shapeKey)
	}
	s := Shape{Egress: DefaultEgress}
	into := map[string]*string{
		"bind": &s.Bind, "app": &s.App, "authz_socket": &s.AuthzSocket,
		"envoy_version": &s.EnvoyVersion, "proxy": &s.Proxy,
	}
	for key, v := range st.GetFields() {
		if key == "egress" {
			port, ok := v.GetKind().(*structpb.Value_NumberValue)
			if !ok || port.NumberValue != float64(int(port.NumberValue)) {
				return Shape{}, fmt.Errorf("%w: egress is not a port number", ErrShape)
			}
			s.Egress = int(port.NumberValue)
			continue
		}
		// What we do not know could change what the proxy needs: refused.
		field, known := into[key]
		str, isString := v.GetKind().(*structpb.Value_StringValue)
		if !known || !isString {
			return Shape{}, fmt.Errorf("%w: field %q", ErrShape, key)
		}
		*field = str.StringValue
	}
	return s, s.Validate()
}
