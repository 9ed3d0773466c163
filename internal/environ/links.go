package environ

import (
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// WithoutLinks is an environment without the variables that Kubernetes gives each container for
// each service of its namespace (enableServiceLinks): of a service named signet they begin as a
// program's own would. They are known by their names and by what they say; a service has its
// address among them.
func WithoutLinks(environ []string) []string {
	hosts := map[string]string{} // by what the names of a service's variables begin with
	for _, one := range environ {
		name, value, _ := strings.Cut(one, "=")
		service, ok := strings.CutSuffix(name, "_SERVICE_HOST")
		if _, err := netip.ParseAddr(value); ok && err == nil {
			hosts[service] = value
		}
	}
	return slices.DeleteFunc(slices.Clone(environ), func(one string) bool {
		name, value, _ := strings.Cut(one, "=")
		for service, host := range hosts {
			if rest, ok := strings.CutPrefix(name, service+"_"); ok && link(rest, value, host) {
				return true
			}
		}
		return false
	})
}

// portLink is a variable of one port of a service: PORT_8443_TCP, and what it ends in.
var portLink = regexp.MustCompile(`^PORT_([0-9]{1,5})_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?$`)

// link reports whether a variable is what Kubernetes says of a service with this address.
func link(rest, value, host string) bool {
	url := func(protocol, port string) bool { return value == protocol+"://"+net.JoinHostPort(host, port) }
	switch _, err := strconv.ParseUint(value, 10, 16); {
	case rest == "SERVICE_HOST":
		return value == host
	case rest == "SERVICE_PORT", strings.HasPrefix(rest, "SERVICE_PORT_"): // of its first port, and of each that has a name
		return err == nil
	case rest == "PORT":
		protocol, port, _ := strings.Cut(value, "://")
		port = port[strings.LastIndexByte(port, ':')+1:]
		return slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) && url(protocol, port)
	}
	m := portLink.FindStringSubmatch(rest)
	if m == nil {
		return false
	}
	port, protocol := m[1], strings.ToLower(m[2])
	switch m[3] {
	case "_PROTO":
		return value == protocol
	case "_PORT":
		return value == port
	case "_ADDR":
		return value == host
	}
	return url(protocol, port)
}
