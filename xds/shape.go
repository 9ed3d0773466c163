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

// DefaultEgressPort is App Mesh's port for outbound calls.
const DefaultEgressPort = 15001

// shapeKey is where a node's metadata carries its Shape.
const shapeKey = "signet.shape"

// sunPathMax is what a Unix socket's name may have: 108 bytes with the final NUL.
const sunPathMax = 107

// Shape is what makes two proxies of one virtual node need different bytes. An
// agent declares it; it is validated and never trusted to grant anything: who
// may be which virtual node is decided by bindings (D2, D6).
type Shape struct {
	// Bind is the address that the listeners bind: a loopback or host address.
	Bind string
	// App is the address where the application listens, on the same ports, or
	// unix:/folder/{port}.sock: a socket for each port.
	App string
	// Egress is where the outbound listener listens. Whoever can connect there
	// calls with the proxy's identity, so that it is a loopback address unless
	// EgressOpen names the exception.
	Egress netip.AddrPort
	// EgressOpen lets Egress be an address that other hosts reach.
	EgressOpen bool
	// EgressSocket is the outbound listener as a Unix socket, in the place of
	// Egress. Whoever can open it calls with the proxy's identity.
	EgressSocket string
	// EgressMode is that socket's: 0600, or 0660 for the group of its folder.
	EgressMode uint32
	// AuthzSocket is the agent's Unix socket that answers ext_authz.
	AuthzSocket string
	// AccessLogDir is the folder in which the agent's operator lets access logs be
	// written; empty for none.
	AccessLogDir string
	// WayoutSocket is the agent's Unix socket that answers who may call out.
	WayoutSocket string
	// EnvoyVersion is the proxy's version, such as "1.40.0"; empty if not known.
	EnvoyVersion string
	// Proxy is the agent's name for the proxy, or the like; it is not used in
	// any resource, so that replicas share their view's bytes.
	Proxy string
}

// ErrShape is wrapped by every refusal of a Shape.
var ErrShape = errors.New("shape of the proxy")

// Envoy older than this has known holes in what we rely on: ext_authz and RBAC (A01, A03).
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
	if err := s.validApp(bind); err != nil {
		return err
	}
	if err := s.validEgress(); err != nil {
		return err
	}
	if err := errors.Join(validSocket("authz_socket", s.AuthzSocket), validSocket("wayout_socket", s.WayoutSocket)); err != nil {
		return err
	}
	if s.AccessLogDir != "" && !ValidLogDir(s.AccessLogDir) {
		return fmt.Errorf("%w: access_log_dir %q is not the clean absolute path of a folder for logs", ErrShape, s.AccessLogDir)
	}
	if s.Proxy != "" && !proxyName.MatchString(s.Proxy) {
		return fmt.Errorf("%w: proxy name %q", ErrShape, s.Proxy)
	}
	return validEnvoy(s.EnvoyVersion)
}

func (s Shape) validApp(bind netip.Addr) error {
	if template, ok := s.appSocket(); ok {
		return validAppSocket(template)
	}
	app, err := hostAddress("app", s.App)
	// The local cluster goes to App on the listener's own port: the same address
	// would make the proxy its own client, without end.
	if err == nil && bind == app {
		err = fmt.Errorf("%w: bind and app are both %s", ErrShape, bind)
	}
	return err
}

// validEgress refuses an outbound listener that other hosts reach, unless that
// was asked for by name.
func (s Shape) validEgress() error {
	if s.EgressSocket != "" {
		return s.validEgressSocket()
	}
	a := s.Egress.Addr()
	switch {
	case s.EgressMode != 0:
		return fmt.Errorf("%w: egress_mode: is for a Unix socket, and egress is %s", ErrShape, s.Egress)
	case !oneHost(a) || s.Egress.Port() == 0:
		return fmt.Errorf("%w: egress: want an address of one host with a port, such as 127.0.0.1:%d, got %s", ErrShape, DefaultEgressPort, s.Egress)
	case !a.IsLoopback() && !s.EgressOpen:
		return fmt.Errorf("%w: egress: %s is not a loopback address: other hosts reach it, and who calls from there cannot be seen; egress_open: true allows that", ErrShape, s.Egress)
	case a.IsLoopback() && s.EgressOpen:
		return fmt.Errorf("%w: egress_open: is for an address that other hosts reach, and egress is %s", ErrShape, s.Egress)
	}
	return nil
}

// egressTakes reports whether the outbound listener stands where a listener of
// this port, or the application behind it, should.
func (s Shape) egressTakes(port uint32) bool {
	if s.EgressSocket != "" {
		return s.appAt(port).GetPipe().GetPath() == s.EgressSocket
	}
	at := s.Egress.Addr().String()
	same := func(text string) bool { a, err := netip.ParseAddr(text); return err == nil && a.String() == at }
	return port == uint32(s.Egress.Port()) && (same(s.Bind) || same(s.App))
}

// hostAddress parses one address. An unspecified one would also take the
// application's own address, and so give the loop that Validate refuses.
func hostAddress(field, s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%w: %s: %w", ErrShape, field, err)
	}
	if !oneHost(a) {
		return netip.Addr{}, fmt.Errorf("%w: %s: %s is not the address of one host", ErrShape, field, s)
	}
	return a, nil
}

func oneHost(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && a.Zone() == "" && !a.Is4In6()
}

func validSocket(field, s string) error {
	switch {
	case !path.IsAbs(s) || path.Clean(s) != s || s == "/":
		return fmt.Errorf("%w: %s: %q is not a clean absolute path", ErrShape, field, s)
	case len(s) > sunPathMax:
		return fmt.Errorf("%w: %s: %q: longer than %d bytes", ErrShape, field, s, sunPathMax)
	case control(s):
		return fmt.Errorf("%w: %s: %q: control characters", ErrShape, field, s)
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
		"authz_socket":  text(s.AuthzSocket),
		"wayout_socket": text(s.WayoutSocket),
		"envoy_version": text(s.EnvoyVersion),
		"proxy":         text(s.Proxy),
	}}
	if s.EgressSocket != "" {
		shape.Fields["egress"] = text(unixPrefix + s.EgressSocket)
		shape.Fields["egress_mode"] = text(fmt.Sprintf("%#o", s.EgressMode))
	} else {
		shape.Fields["egress"] = text(s.Egress.String())
	}
	if s.AccessLogDir != "" {
		shape.Fields["access_log_dir"] = text(s.AccessLogDir)
	}
	if s.EgressOpen {
		shape.Fields["egress_open"] = structpb.NewBoolValue(true)
	}
	return &structpb.Struct{Fields: map[string]*structpb.Value{shapeKey: structpb.NewStructValue(shape)}}
}

// ShapeFromNode reads and validates the Shape in a node's metadata.
func ShapeFromNode(n *corev3.Node) (Shape, error) {
	st := n.GetMetadata().GetFields()[shapeKey].GetStructValue()
	if st == nil {
		return Shape{}, fmt.Errorf("%w: node metadata has no %s", ErrShape, shapeKey)
	}
	var s Shape
	var mode string
	into := map[string]*string{
		"bind": &s.Bind, "app": &s.App, "authz_socket": &s.AuthzSocket, "wayout_socket": &s.WayoutSocket,
		"envoy_version": &s.EnvoyVersion, "proxy": &s.Proxy, "access_log_dir": &s.AccessLogDir, "egress_mode": &mode,
	}
	egress := structpb.NewNumberValue(DefaultEgressPort)
	for key, v := range st.GetFields() {
		open, isBool := v.GetKind().(*structpb.Value_BoolValue)
		str, isString := v.GetKind().(*structpb.Value_StringValue)
		switch {
		case key == "egress":
			egress = v
		case key == "egress_open" && isBool:
			s.EgressOpen = open.BoolValue
		case into[key] != nil && isString:
			*into[key] = str.StringValue
		default: // what we do not know could change what the proxy needs
			return Shape{}, fmt.Errorf("%w: field %q", ErrShape, key)
		}
	}
	if err := s.setEgress(egress, mode); err != nil {
		return Shape{}, err
	}
	return s, s.Validate()
}

// setEgress reads where the outbound listener listens.
func (s *Shape) setEgress(v *structpb.Value, mode string) (err error) {
	if mode != "" {
		if s.EgressMode, err = parseEgressMode(mode); err != nil {
			return err
		}
	}
	if socket, ok := strings.CutPrefix(v.GetStringValue(), unixPrefix); ok {
		if mode == "" {
			s.EgressMode = defaultEgressMode
		}
		s.EgressSocket = socket
		if socket == "" { // not as if there were none
			return fmt.Errorf("%w: egress: %q has no path", ErrShape, v.GetStringValue())
		}
		return nil
	}
	s.Egress, err = egressOf(v, s.Bind)
	return err
}

// egressOf reads an address with its port. A port alone, as agents before it were
// two sent it, never means an address that other hosts reach.
func egressOf(v *structpb.Value, bind string) (netip.AddrPort, error) {
	if text, ok := v.GetKind().(*structpb.Value_StringValue); ok {
		at, err := netip.ParseAddrPort(text.StringValue)
		if err != nil {
			return at, fmt.Errorf("%w: egress: %w", ErrShape, err)
		}
		return at, nil
	}
	number, ok := v.GetKind().(*structpb.Value_NumberValue)
	if !ok || !(number.NumberValue >= 1 && number.NumberValue <= 65535) || number.NumberValue != float64(int(number.NumberValue)) {
		return netip.AddrPort{}, fmt.Errorf("%w: egress is neither an address with a port nor a port", ErrShape)
	}
	return netip.AddrPortFrom(loopbackFor(bind), uint16(number.NumberValue)), nil
}

// loopbackFor is where the outbound listener of a proxy listens that names no
// address for it.
func loopbackFor(bind string) netip.Addr {
	if a, err := netip.ParseAddr(bind); err == nil && a.IsLoopback() {
		return a
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}
