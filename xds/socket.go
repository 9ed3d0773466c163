package xds

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

const (
	// unixPrefix begins the name of a Unix socket where an address could stand.
	unixPrefix = "unix:"
	// portMark stands for the listener's port in the name of an application's sockets.
	portMark = "{port}"
	// defaultEgressMode lets in the socket's owner and its group.
	defaultEgressMode = 0o660
)

// appSocket is the name of the application's sockets with its portMark, where it
// listens on such.
func (s Shape) appSocket() (template string, ok bool) { return strings.CutPrefix(s.App, unixPrefix) }

// appAt is where the application listens for one port of the node.
func (s Shape) appAt(p uint32) *corev3.Address {
	if template, ok := s.appSocket(); ok {
		return pipe(strings.ReplaceAll(template, portMark, port(p)), 0)
	}
	return address(s.App, p)
}

// validAppSocket wants one folder for all ports: who may write there is looked
// at once.
func validAppSocket(template string) error {
	folder, file := path.Split(template)
	if strings.Count(file, portMark) != 1 || strings.Contains(folder, portMark) {
		return fmt.Errorf("%w: app: want unix:/folder/%s.sock with %s once, in the file's name, got %q", ErrShape, portMark, portMark, unixPrefix+template)
	}
	return validSocket("app", strings.Replace(template, portMark, "65535", 1))
}

// validEgressSocket: whoever can open the socket calls as the proxy, so that its
// mode gives nothing to others than its owner and its group.
func (s Shape) validEgressSocket() error {
	switch {
	case s.Egress.IsValid():
		return fmt.Errorf("%w: egress: both %s and the socket %s", ErrShape, s.Egress, s.EgressSocket)
	case s.EgressOpen:
		return fmt.Errorf("%w: egress_open: is for an address that other hosts reach, and egress is a socket", ErrShape)
	case s.EgressMode != 0o600 && s.EgressMode != 0o660:
		return fmt.Errorf("%w: egress_mode: want 0600 (the proxy's own user) or 0660 (its group, too), got %#o", ErrShape, s.EgressMode)
	case s.EgressSocket == s.AuthzSocket || s.EgressSocket == s.WayoutSocket:
		return fmt.Errorf("%w: egress: %s is the agent's own socket", ErrShape, s.EgressSocket)
	}
	return validSocket("egress", s.EgressSocket)
}

// parseEgressMode reads a mode as chmod writes it.
func parseEgressMode(text string) (uint32, error) {
	mode, err := strconv.ParseUint(text, 8, 32)
	if err != nil {
		return 0, fmt.Errorf("%w: egress_mode: want 0600 or 0660, got %.16q", ErrShape, text)
	}
	return uint32(mode), nil
}

func pipe(name string, mode uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: name, Mode: mode}}}
}
