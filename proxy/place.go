package proxy

import (
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"
)

// The two sides of a proxy that face its application are each an address, or a
// Unix socket, which nobody else can take while its owner is away.
const (
	// UnixPrefix begins the name of a Unix socket where an address could stand.
	UnixPrefix = "unix:"
	// portMark stands for the listener's port in the name of an application's sockets.
	portMark = "{port}"
	// DefaultEgressPort is App Mesh's port for outbound calls.
	DefaultEgressPort = 15001
	// DefaultUID is App Mesh's user of a proxy's container, and that of the agent's image.
	DefaultUID = 1337
	// defaultEgressMode lets in the proxy's own user and the group of the folder.
	defaultEgressMode = 0o660
	// MaxSocketPath is what a Unix socket's name may have: 108 bytes with the final NUL.
	MaxSocketPath = 107
)

// Place is where an application listens, on the ports of its virtual node's
// listeners.
type Place struct {
	Addr   netip.Addr
	Socket string // with portMark, once and in the file's name; empty for an address
}

// ParsePlace reads the address of one host, or unix:/folder/{port}.sock.
func ParsePlace(text string) (Place, error) {
	if socket, ok := strings.CutPrefix(text, UnixPrefix); ok {
		// One folder for all ports: who may write there is looked at once.
		folder, file := path.Split(socket)
		if strings.Count(file, portMark) != 1 || strings.Contains(folder, portMark) {
			return Place{}, fmt.Errorf("want an IP address or unix:/folder/%s.sock, with %s once and in the file's name, got %.128q", portMark, portMark, text)
		}
		return Place{Socket: socket}, validSocket(strings.Replace(socket, portMark, "65535", 1))
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return Place{}, fmt.Errorf("want an IP address or unix:/folder/%s.sock, got %.64q", portMark, text)
	}
	if !oneHost(addr) {
		return Place{}, fmt.Errorf("%s is not the address of one host", addr)
	}
	return Place{Addr: addr}, nil
}

func (p Place) String() string {
	if p.Socket != "" {
		return UnixPrefix + p.Socket
	}
	return p.Addr.String()
}

// SocketFor is the path of the application's socket for one port; "" where it
// listens on an address.
func (p Place) SocketFor(port uint32) string {
	return strings.Replace(p.Socket, portMark, strconv.FormatUint(uint64(port), 10), 1)
}

// Egress is where an outbound listener listens. Whoever can connect there asks to
// call with the proxy's identity.
type Egress struct {
	netip.AddrPort
	Socket string // in the place of an address
	Mode   uint32 // of the socket: 0600, or 0660 for the group of its folder
}

// ParseEgress reads an address with its port, or unix:/path with the mode of the
// socket as chmod writes it, "" for 0660.
func ParseEgress(text, mode string) (Egress, error) {
	socket, ok := strings.CutPrefix(text, UnixPrefix)
	if !ok {
		at, err := netip.ParseAddrPort(text)
		switch {
		case err != nil:
			return Egress{}, fmt.Errorf("want an IP address with its port, such as 127.0.0.1:%d, or unix:/folder/name.sock, got %.64q", DefaultEgressPort, text)
		case mode != "":
			return Egress{}, fmt.Errorf("%s is not a Unix socket: leave egress_mode out", at)
		}
		return Egress{AddrPort: at}, nil
	}
	e := Egress{Socket: socket, Mode: defaultEgressMode}
	switch mode {
	case "", "0660", "660":
	case "0600", "600":
		e.Mode = 0o600
	default:
		return Egress{}, fmt.Errorf("egress_mode: want \"0660\" (the proxy's user and the group of the socket's folder) or \"0600\" (the proxy's user alone), got %.16q: whoever can open the socket calls as this proxy", mode)
	}
	return e, validSocket(socket)
}

// EgressPort is where the outbound listener of a proxy listens that names a port
// and no address: never one that other hosts reach.
func EgressPort(bind string, port uint16) Egress {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if a, err := netip.ParseAddr(bind); err == nil && a.IsLoopback() {
		loopback = a
	}
	return Egress{AddrPort: netip.AddrPortFrom(loopback, port)}
}

func (e Egress) String() string {
	if e.Socket != "" {
		return UnixPrefix + e.Socket
	}
	return e.AddrPort.String()
}

// EgressListenerPrefix begins the names of the listeners that applications call.
const EgressListenerPrefix = "lds_egress_"

// Listener is the name of the listener there: App Mesh's, where a Unix socket has its
// path in the place of address and port.
func (e Egress) Listener() string {
	if e.Socket != "" {
		return EgressListenerPrefix + UnixPrefix + e.Socket
	}
	return EgressListenerPrefix + e.Addr().String() + "_" + strconv.FormatUint(uint64(e.Port()), 10)
}

// Validate refuses an outbound listener that other hosts reach, unless that was
// asked for by name (open), and a socket that others than the proxy's user and
// its group can open.
func (e Egress) Validate(open bool) error {
	a := e.Addr()
	switch {
	case e.Socket != "" && open:
		return fmt.Errorf("%s is a Unix socket: leave egress_open out", e)
	case e.Socket != "" && e.IsValid():
		return fmt.Errorf("%s is given beside %s", e, e.AddrPort)
	case e.Socket != "" && e.Mode != 0o600 && e.Mode != 0o660:
		return fmt.Errorf("want mode 0600 or 0660 for %s, got %#o", e, e.Mode)
	case e.Socket != "":
		return validSocket(e.Socket)
	case e.Mode != 0:
		return fmt.Errorf("%s is not a Unix socket: leave egress_mode out", e)
	case e.Port() == 0 || !oneHost(a):
		return fmt.Errorf("%s is not the address of one host with a port", e)
	case !a.IsLoopback() && !open:
		return fmt.Errorf("%s is not a loopback address: other hosts reach it, and who calls from there cannot be seen; use an address such as 127.0.0.1 or a Unix socket, or allow it with egress_open: true", e)
	case a.IsLoopback() && open:
		return fmt.Errorf("%s is a loopback address: leave egress_open out", e)
	}
	return nil
}

// oneHost reports whether a is the address of one host. An unspecified one would
// also take the application's own address, and the proxy call itself.
func oneHost(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && a.Zone() == "" && !a.Is4In6()
}

func validSocket(name string) error {
	switch {
	case !path.IsAbs(name) || path.Clean(name) != name || name == "/" || control(name):
		return fmt.Errorf("want a clean absolute path, got %.128q", name)
	case len(name) > MaxSocketPath:
		return fmt.Errorf("%.128q is longer than a socket's path may be (%d)", name, MaxSocketPath)
	}
	return nil
}
