package proxy

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"

	"google.golang.org/protobuf/types/known/structpb"
)

// ShapeKey is where a node's metadata carries its Shape.
const ShapeKey = "signet.shape"

// answersKey is where it carries Shape.Answers: beside the others, since a server of the release
// before refuses a field of theirs that it does not know.
const answersKey = "signet.answers"

// underscoresKey is where it carries Shape.Underscores, beside the others for the same reason.
const underscoresKey = "signet.underscores"

// serviceAddressesKey is where it carries Shape.ServiceAddresses: a server of the release before
// gives the proxy none of them, and all the rest.
const serviceAddressesKey = "signet.service_addresses"

// connectionsKey is where it carries Shape.Connections, beside the others for the same reason.
const connectionsKey = "signet.connections"

// DefaultConnections is how many connections the ways in of a proxy take where its host lets it
// have the files.
const DefaultConnections = 25_000

// Shape is what makes two proxies of one virtual node need different bytes. An
// agent declares it; it is validated and never trusted to grant anything: who
// may be which virtual node is decided by bindings (D2, D6).
type Shape struct {
	// Bind is the address that the listeners bind: a loopback or host address.
	Bind string
	// App is where the application listens, as [ParsePlace] reads it.
	App string
	// Egress is where the outbound listener listens.
	Egress Egress
	// Alone: there is no application behind it, as behind a gateway, so that App and
	// Egress are not set. It is not declared: see Suit.
	Alone bool
	// EgressOpen lets Egress be an address that other hosts reach.
	EgressOpen bool
	// Capture is what reaches it by redirection.
	Capture Capture
	// AuthzSocket is the agent's Unix socket that answers ext_authz.
	AuthzSocket string
	// WayoutSocket is the agent's Unix socket that answers who may call out.
	WayoutSocket string
	// AccessLogDir is the folder in which the agent's operator lets access logs be
	// written; empty for none.
	AccessLogDir string
	// Answers: what starts the proxy takes the line of every answer that it makes by itself,
	// and not of denials alone.
	Answers bool
	// Underscores: the agent that decides about the proxy's requests refuses headers with
	// underscores by their names.
	Underscores bool
	// ServiceAddresses: the application finds each backend at its service's own address, too.
	ServiceAddresses bool
	// Connections is how many connections its ways in take, of which each other listener has a
	// share; 0: DefaultConnections.
	Connections uint32
	// EnvoyVersion is the proxy's version, such as "1.40.0"; empty if not known.
	EnvoyVersion string
	// Proxy is the agent's name for the proxy, or the like; it is not used in
	// any resource, so that replicas share their view's bytes.
	Proxy string
}

// ErrShape is wrapped by every refusal of a Shape.
var ErrShape = errors.New(ShapeKey)

// ErrOldEnvoy is wrapped by the refusal of a version of Envoy that is too old.
var ErrOldEnvoy = fmt.Errorf("at least %d.%d is needed", minEnvoyMajor, minEnvoyMinor)

// Envoy older than this has known holes in what we rely on: ext_authz and RBAC (A01, A03).
const minEnvoyMajor, minEnvoyMinor = 1, 38

var (
	envoyVersion = regexp.MustCompile(`^([0-9]{1,4})\.([0-9]{1,4})(\.[0-9]{1,4})?(-[0-9A-Za-z.-]{1,32})?$`)
	proxyName    = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._-]{0,62}$`)
)

// ValidName reports whether s can be the name of a proxy, which becomes a file's
// name and a selector's value.
func ValidName(s string) bool { return proxyName.MatchString(s) }

// Validate refuses a Shape that no proxy could run, or that would loop.
func (s Shape) Validate() error {
	if err := s.validWhere(); err != nil {
		return fmt.Errorf("%w: %w", ErrShape, err)
	}
	for _, field := range []struct {
		name string
		err  error
	}{
		{"authz_socket", validSocket(s.AuthzSocket)},
		{"wayout_socket", validSocket(s.WayoutSocket)},
		{"access_log_dir", s.validLogDir()},
		{"proxy", s.validProxy()},
		{"envoy_version", ValidEnvoy(s.EnvoyVersion)},
	} {
		if field.err != nil {
			return fmt.Errorf("%w: %s: %w", ErrShape, field.name, field.err)
		}
	}
	return nil
}

// validWhere refuses a place at which no proxy could be, naming what of it is wrong.
func (s Shape) validWhere() error {
	for _, field := range []struct {
		name string
		err  error
	}{{"bind", s.validBind()}, {"app", s.validApp()}, {"egress", s.validEgress()}, {"service_addresses", s.validServiceAddresses()}, {"capture", s.ValidCapture()}} {
		if field.err != nil {
			return fmt.Errorf("%s: %w", field.name, field.err)
		}
	}
	return nil
}

func (s Shape) validBind() error {
	a, err := netip.ParseAddr(s.Bind)
	switch {
	case err != nil:
		return fmt.Errorf("want an IP address, got %.64q", s.Bind)
	case !oneHost(a):
		return fmt.Errorf("%s is not the address of one host", a)
	}
	return nil
}

// Suit makes s the Shape of a proxy that runs for r: a gateway has no application, and
// nobody calls out through it.
func (s *Shape) Suit(r Ref) {
	if s.Alone = r.Gateway(); s.Alone {
		s.App, s.Egress, s.EgressOpen, s.ServiceAddresses, s.Capture = "", Egress{}, false, false, Capture{}
		s.Connections = 0
	}
}

func (s Shape) validApp() error {
	if s.Alone {
		if s.App != "" {
			return errors.New("a gateway has no application")
		}
		return nil
	}
	app, err := ParsePlace(s.App)
	if err != nil {
		return err
	}
	// The local cluster goes to App on the listener's own port: the same address
	// would make the proxy its own client, without end.
	if bind, err := netip.ParseAddr(s.Bind); err == nil && bind == app.Addr {
		return fmt.Errorf("%s is bind, too: the proxy would call itself", bind)
	}
	return nil
}

func (s Shape) validEgress() error {
	if s.Alone {
		if s.Egress != (Egress{}) || s.EgressOpen {
			return errors.New("a gateway has no outbound listener")
		}
		return nil
	}
	if s.Egress.Socket != "" && (s.Egress.Socket == s.AuthzSocket || s.Egress.Socket == s.WayoutSocket) {
		return fmt.Errorf("%s is the agent's own socket", s.Egress)
	}
	return s.Egress.Validate(s.EgressOpen)
}

func (s Shape) validLogDir() error {
	if s.AccessLogDir != "" && !ValidLogDir(s.AccessLogDir) {
		return fmt.Errorf("%.128q is not the clean absolute path of a folder for logs", s.AccessLogDir)
	}
	return nil
}

func (s Shape) validProxy() error {
	if s.Proxy != "" && !ValidName(s.Proxy) {
		return fmt.Errorf("%.64q is not a name", s.Proxy)
	}
	return nil
}

// ValidEnvoy refuses what is not a version of Envoy, and one that is too old. A version that
// is not known, "", is let through.
func ValidEnvoy(version string) error {
	if version == "" {
		return nil
	}
	m := envoyVersion.FindStringSubmatch(version)
	if m == nil {
		return fmt.Errorf("%.64q is not a version of Envoy", version)
	}
	major, _ := strconv.Atoi(m[1]) // at most four digits: cannot fail
	minor, _ := strconv.Atoi(m[2])
	if major < minEnvoyMajor || major == minEnvoyMajor && minor < minEnvoyMinor {
		return fmt.Errorf("%w, this is %s", ErrOldEnvoy, version)
	}
	return nil
}

// EgressTakes reports whether the outbound listener stands where the listener of
// this port, or the application behind it, should.
func (s Shape) EgressTakes(port uint32) bool {
	if s.Alone {
		return false
	}
	app, err := ParsePlace(s.App)
	if err != nil {
		return false
	}
	if s.Egress.Socket != "" {
		return app.SocketFor(port) == s.Egress.Socket
	}
	bind, err := netip.ParseAddr(s.Bind)
	at := s.Egress.Addr()
	return port == uint32(s.Egress.Port()) && (at == app.Addr || err == nil && at == bind)
}

// Logs reports whether a proxy of this shape writes an access log to file.
func (s Shape) Logs(file string) bool { return StandardLog(file) || LogWithin(s.AccessLogDir, file) }

// Metadata is the Shape as node metadata, which [ParseShape] reads. What is not
// set is left out: an older reader refuses a field that it does not know.
func (s Shape) Metadata() *structpb.Struct {
	shape := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	egress := s.Egress.String()
	if s.Alone {
		egress = ""
	}
	for name, text := range map[string]string{
		"bind": s.Bind, "app": s.App, "egress": egress,
		"authz_socket": s.AuthzSocket, "wayout_socket": s.WayoutSocket, "access_log_dir": s.AccessLogDir,
		"envoy_version": s.EnvoyVersion, "proxy": s.Proxy,
	} {
		if text != "" {
			shape.Fields[name] = structpb.NewStringValue(text)
		}
	}
	if s.Egress.Socket != "" {
		shape.Fields["egress_mode"] = structpb.NewStringValue(fmt.Sprintf("%#o", s.Egress.Mode))
	}
	if s.EgressOpen {
		shape.Fields["egress_open"] = structpb.NewBoolValue(true)
	}
	all := &structpb.Struct{Fields: map[string]*structpb.Value{ShapeKey: structpb.NewStructValue(shape)}}
	if c := s.Capture.metadata(); c != nil {
		all.Fields[captureKey] = c
	}
	for key, is := range map[string]bool{answersKey: s.Answers, underscoresKey: s.Underscores, serviceAddressesKey: s.ServiceAddresses} {
		if is {
			all.Fields[key] = structpb.NewBoolValue(true)
		}
	}
	if s.Connections != 0 {
		all.Fields[connectionsKey] = structpb.NewNumberValue(float64(s.Connections))
	}
	return all
}

// ParseShape reads and validates the Shape in a node's metadata. settle, if not
// nil, sets what is not the node's to say before it is validated.
func ParseShape(metadata *structpb.Struct, settle func(*Shape)) (Shape, error) {
	shape := metadata.GetFields()[ShapeKey].GetStructValue()
	if shape == nil {
		return Shape{}, fmt.Errorf("%w: the node's metadata has none", ErrShape)
	}
	is := func(key string) bool { return metadata.GetFields()[key].GetBoolValue() }
	s := Shape{Answers: is(answersKey), Underscores: is(underscoresKey), ServiceAddresses: is(serviceAddressesKey)}
	var mode string
	into := map[string]*string{
		"bind": &s.Bind, "app": &s.App, "authz_socket": &s.AuthzSocket, "wayout_socket": &s.WayoutSocket,
		"envoy_version": &s.EnvoyVersion, "proxy": &s.Proxy, "access_log_dir": &s.AccessLogDir, "egress_mode": &mode,
	}
	egress := structpb.NewNumberValue(DefaultEgressPort)
	fields := shape.GetFields()
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		open, isBool := fields[name].GetKind().(*structpb.Value_BoolValue)
		text, isText := fields[name].GetKind().(*structpb.Value_StringValue)
		switch {
		case name == "egress":
			egress = fields[name]
		case name == "egress_open" && isBool:
			s.EgressOpen = open.BoolValue
		case into[name] != nil && isText:
			*into[name] = text.StringValue
		default: // what we do not know could change what the proxy needs
			return Shape{}, fmt.Errorf("%w: %.64q is not known, or not of the right type", ErrShape, name)
		}
	}
	var err error
	if s.Egress, err = egressOf(egress, mode, s.Bind); err != nil {
		return Shape{}, fmt.Errorf("%w: egress: %w", ErrShape, err)
	}
	if s.Capture, err = parseCapture(metadata.GetFields()[captureKey]); err != nil {
		return Shape{}, fmt.Errorf("%w: %w", ErrShape, err)
	}
	if s.Connections, err = parseConnections(metadata.GetFields()[connectionsKey]); err != nil {
		return Shape{}, fmt.Errorf("%w: %w", ErrShape, err)
	}
	if settle != nil {
		settle(&s)
	}
	return s, s.Validate()
}

func parseConnections(v *structpb.Value) (uint32, error) {
	n := v.GetNumberValue()
	switch {
	case v == nil:
		return 0, nil
	case !(n >= 1 && n <= math.MaxInt32) || n != math.Trunc(n):
		return 0, fmt.Errorf("%s: want how many connections the ways in take, as a whole number from 1", connectionsKey)
	}
	return uint32(n), nil
}

// egressOf reads an address with its port, a socket, or a port alone, as agents of
// the first versions send it.
func egressOf(v *structpb.Value, mode, bind string) (Egress, error) {
	if text, ok := v.GetKind().(*structpb.Value_StringValue); ok {
		return ParseEgress(text.StringValue, mode)
	}
	port := v.GetNumberValue()
	switch {
	case !(port >= 1 && port <= math.MaxUint16) || port != math.Trunc(port):
		return Egress{}, fmt.Errorf("want an address with its port, such as 127.0.0.1:%d, or a number from 1 to 65535", DefaultEgressPort)
	case mode != "":
		return Egress{}, errors.New("a port is not a Unix socket: leave egress_mode out")
	}
	return EgressPort(bind, uint16(port)), nil
}
