package dns

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// Config is where it listens and whom it asks. The zero value is no name server.
type Config struct {
	// Listen is a loopback address with its port, for UDP and TCP.
	Listen string `yaml:"listen"`
	// Upstreams are the name servers that are asked for what is no service, each an address,
	// with its port where that is not 53. Default: those of /etc/resolv.conf at the start.
	Upstreams []string `yaml:"upstreams"`
}

const (
	resolvConf = "/etc/resolv.conf"
	port       = 53
	// mostUpstreams is how many are asked, one after the other, as resolvers do.
	mostUpstreams = 3
)

// Validate reports what is wrong, by the field.
func (c Config) Validate() (field string, err error) {
	if c.Listen == "" {
		if len(c.Upstreams) > 0 {
			return "upstreams", errors.New("is given without listen: there is no name server that would ask them")
		}
		return "", nil
	}
	at, err := netip.ParseAddrPort(c.Listen)
	switch {
	case err != nil || at.Port() == 0:
		return "listen", fmt.Errorf("want a loopback address with its port, such as 127.0.0.1:%d, got %.64q", port, c.Listen)
	case !at.Addr().IsLoopback():
		return "listen", fmt.Errorf("%s is not a loopback address: other hosts could have it ask for them", at)
	case len(c.Upstreams) > mostUpstreams:
		return "upstreams", fmt.Errorf("there are %d, and %d at most are asked", len(c.Upstreams), mostUpstreams)
	}
	for _, text := range c.Upstreams {
		up, err := upstream(text)
		if err != nil {
			return "upstreams", err
		}
		if up == written(at) {
			return "upstreams", fmt.Errorf("%s is where it listens itself", up)
		}
	}
	return "", nil
}

func upstream(text string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return written(netip.AddrPortFrom(a, port)), nil
	}
	at, err := netip.ParseAddrPort(text)
	if err != nil || at.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("want the address of a name server, with its port where that is not %d, got %.64q", port, text)
	}
	return written(at), nil
}

// written is an address in its one form, so that it is known for the server's own: who asks itself
// would ask without end. The kernel takes no address (0.0.0.0) for this host's.
func written(at netip.AddrPort) netip.AddrPort {
	a := at.Addr().Unmap()
	switch {
	case a == netip.IPv4Unspecified():
		a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case a.IsUnspecified(), a.IsLoopback() && a.Is6():
		a = netip.IPv6Loopback()
	}
	return netip.AddrPortFrom(a, at.Port())
}

// upstreams are those that are named, or else the host's own without itself.
func (c Config) upstreams(file string) ([]netip.AddrPort, error) {
	list := c.Upstreams
	own, _ := upstream(c.Listen) // Validate has refused what is none
	if len(list) == 0 {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("which name servers to ask: %w; name them in dns.upstreams", err)
		}
		defer func() { _ = f.Close() }() // read
		for s := bufio.NewScanner(f); s.Scan(); {
			if words := strings.Fields(s.Text()); len(words) > 1 && words[0] == "nameserver" {
				list = append(list, words[1])
			}
		}
	}
	var ups []netip.AddrPort
	for _, text := range list {
		if at, err := upstream(text); err == nil && at != own && !slices.Contains(ups, at) {
			ups = append(ups, at)
		}
	}
	if len(ups) == 0 {
		return nil, fmt.Errorf("%s names no other name server than %s: name those to ask in dns.upstreams", file, c.Listen)
	}
	return ups[:min(len(ups), mostUpstreams)], nil
}
