// Package tcpsock asks whether this process could listen on a TCP address, without
// taking it from whoever starts to at that moment.
package tcpsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// errBound ends net.ListenConfig.Listen before it listens.
var errBound = errors.New("bound")

// Try returns why listening on an address would fail; with port 0, whether this host
// has the address at all.
//
// It binds as net.Listen does, with SO_REUSEADDR, and does not listen: of two sockets
// that are bound so neither keeps the other from listening, and one that listens
// keeps all others from being bound.
func Try(ctx context.Context, address string) error {
	bind := func(network, address string, c syscall.RawConn) error {
		at, err := sockaddr(network, address)
		if err != nil {
			return err
		}
		var bound error
		err = c.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) // port 0 takes none, where the kernel knows how
			bound = os.NewSyscallError("bind", unix.Bind(int(fd), at))
		})
		if err = errors.Join(err, bound); err != nil {
			return err
		}
		return errBound
	}
	config := net.ListenConfig{Control: bind}
	config.SetMultipathTCP(false) // not every kernel knows the option for it; the port is the same
	l, err := config.Listen(ctx, "tcp", address)
	if err == nil {
		return errors.Join(errors.New("internal error: listened where it was only to ask"), l.Close())
	}
	if errors.Is(err, errBound) {
		return nil
	}
	return err
}

// TryAddress returns why this host could not listen on an address, whatever the port.
func TryAddress(ctx context.Context, address string) error {
	err := Try(ctx, net.JoinHostPort(address, "0"))
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("this host does not have the address %s: `ip address` lists those that it has", address)
	}
	return err
}

// sockaddr is what net.ListenConfig found an address to be, for the socket that it made.
func sockaddr(network, address string) (unix.Sockaddr, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	n := int(number)
	var ip netip.Addr
	if host != "" {
		if ip, err = netip.ParseAddr(host); err != nil {
			return nil, err
		}
	}
	if network == "tcp4" {
		if !ip.IsValid() {
			ip = netip.IPv4Unspecified()
		}
		if !ip.Unmap().Is4() {
			return nil, fmt.Errorf("%s: not an IPv4 address", address)
		}
		return &unix.SockaddrInet4{Port: n, Addr: ip.Unmap().As4()}, nil
	}
	if !ip.IsValid() {
		ip = netip.IPv6Unspecified()
	}
	at := &unix.SockaddrInet6{Port: n, Addr: ip.As16()}
	if zone := ip.Zone(); zone != "" {
		i, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", address, err)
		}
		at.ZoneId = uint32(i.Index) //nolint:gosec // small and positive
	}
	return at, nil
}
