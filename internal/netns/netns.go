// Package netns is about the network namespace that a process is in.
package netns

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
)

// HasIPv6 reports whether it has IPv6: else a listener of it could not be.
func HasIPv6() bool {
	own, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(own, func(a net.Addr) bool { return a.String() == "::1/128" })
}

// GlobalIPv6 is an address of it, with its prefix, by which other hosts are reached by IPv6; "" for none.
func GlobalIPv6() string {
	own, _ := net.InterfaceAddrs() // without them there is none to tell
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is6() && p.Addr().IsGlobalUnicast() {
			return p.String()
		}
	}
	return ""
}

// OfHost reports whether this is the first network namespace of the kernel: the settings that
// all namespaces have in common are in that one alone. Where it cannot be seen, it may be.
func OfHost() bool {
	_, err := os.Stat("/proc/sys/net/core/netdev_budget")
	return !errors.Is(err, fs.ErrNotExist)
}

// AddressTo is the address by which a server, host:port, is reached. It sends nothing but to
// a name server.
func AddressTo(ctx context.Context, server string) (netip.Addr, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "udp", server)
	if err != nil {
		return netip.Addr{}, err
	}
	own, err := netip.ParseAddrPort(conn.LocalAddr().String())
	return own.Addr().Unmap(), errors.Join(err, conn.Close())
}
