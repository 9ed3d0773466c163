package proxy

import (
	"errors"
	"fmt"
	"math"
	"net/netip"

	"google.golang.org/protobuf/types/known/structpb"
)

// captureKey is where a node's metadata carries Shape.Capture: beside the others, since a server
// of the release before refuses a field of theirs that it does not know.
const captureKey = "signet.capture"

// CapturePrefix begins the name of the listener to which connections for an application's ports
// are redirected: none of these ports is its own.
const CapturePrefix = "lds_capture_"

// DefaultIngressPort is App Mesh's port for what is redirected of inbound connections.
const DefaultIngressPort = 15000

// Capture is what reaches a proxy by redirection, so that those who connect have it not as
// their destination. The zero Capture is nothing.
type Capture struct {
	// Egress is the port of the way out, at 127.0.0.1, if the application's own connections are
	// redirected there, else 0.
	Egress uint16 `yaml:"egress"`
	// Ingress is the port to which connections for the application's ports are redirected;
	// 0 if they are not: then the proxy listens on these ports itself.
	Ingress uint16 `yaml:"ingress"`
	// IPv6: the network namespace has it, so that connections by it are redirected, too.
	IPv6 bool `yaml:"-"`
}

// With is c in a network namespace with IPv6 or without.
func (c Capture) With(ipv6 bool) Capture {
	c.IPv6 = ipv6 && c.Egress|c.Ingress != 0
	return c
}

// EgressLoopback is where the kernel redirects a connection that is made on this host.
func EgressLoopback() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 1}) }

// LedTo is the end of the way out to which a connection to that address is redirected; none
// where nothing is. What is on loopback never is: who calls the way out itself, or a service at its
// own address, calls there.
func (c Capture) LedTo(a netip.Addr) netip.AddrPort {
	switch {
	case c.Egress == 0, a.IsLoopback():
		return netip.AddrPort{}
	case a.Is4():
		return netip.AddrPortFrom(EgressLoopback(), c.Egress)
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), c.Egress)
}

// ValidCapture refuses a Capture to which nothing could be redirected.
func (s Shape) ValidCapture() error {
	c := s.Capture
	switch {
	case c == Capture{}:
		return nil
	case s.Alone:
		return errors.New("a gateway has no application, whose connections could be redirected")
	case c.Egress == 0 && c.Ingress == 0:
		return errors.New("ipv6 is given, and nothing is redirected")
	case c.Egress != 0 && (s.Egress.Socket != "" || s.Egress.Addr() != EgressLoopback() || s.Egress.Port() != c.Egress):
		return fmt.Errorf("egress: what the application calls is redirected to %s:%d, and the way out is at %s: let egress be the same", EgressLoopback(), c.Egress, s.Egress)
	case c.Ingress != 0 && s.Egress.Socket == "" && s.Egress.Port() == c.Ingress:
		return fmt.Errorf("ingress: %d is the port of the way out", c.Ingress)
	}
	return nil
}

// metadata is nil for the zero Capture.
func (c Capture) metadata() *structpb.Value {
	fields := map[string]*structpb.Value{}
	for name, port := range map[string]uint16{"egress": c.Egress, "ingress": c.Ingress} {
		if port != 0 {
			fields[name] = structpb.NewNumberValue(float64(port))
		}
	}
	if c.IPv6 {
		fields["ipv6"] = structpb.NewBoolValue(true)
	}
	if len(fields) == 0 {
		return nil
	}
	return structpb.NewStructValue(&structpb.Struct{Fields: fields})
}

func parseCapture(v *structpb.Value) (Capture, error) {
	var c Capture
	ports := map[string]*uint16{"egress": &c.Egress, "ingress": &c.Ingress}
	for name, field := range v.GetStructValue().GetFields() {
		n := field.GetNumberValue()
		switch {
		case name == "ipv6":
			c.IPv6 = field.GetBoolValue()
		case ports[name] != nil && n >= 1 && n <= math.MaxUint16 && n == math.Trunc(n):
			*ports[name] = uint16(n)
		default:
			return Capture{}, fmt.Errorf("%s: %.64q is not known, or no port", captureKey, name)
		}
	}
	return c, nil
}
