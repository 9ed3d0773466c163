package attestation

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ownAddress reports whether a connection from here to the address stays in this network
// namespace, by the kernel's own choice of a route (rtnetlink(7)). The list of addresses
// does not tell: all of 127.0.0.0/8 is here, and by a local route any network can be.
func ownAddress(a netip.Addr) (bool, error) {
	fd, err := askKernel(unix.NETLINK_ROUTE, routeRequest(a))
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written that matters
	buf := make([]byte, 8<<10)
	n, err := kernelSays(fd, buf)
	if err != nil {
		return false, err
	}
	return parseRoute(buf[:n])
}

// routeRequest is RTM_GETROUTE for one destination.
func routeRequest(a netip.Addr) []byte {
	to := a.AsSlice()
	b := make([]byte, sizeNlmsghdr+unix.SizeofRtMsg+unix.SizeofRtAttr+len(to))
	binary.NativeEndian.PutUint32(b, uint32(len(b))) //nolint:gosec // 48 at most
	binary.NativeEndian.PutUint16(b[4:], unix.RTM_GETROUTE)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	route := b[sizeNlmsghdr:]
	route[0], route[1] = unix.AF_INET6, byte(8*len(to)) //nolint:gosec // 128 at most
	if a.Is4() {
		route[0] = unix.AF_INET
	}
	attr := route[unix.SizeofRtMsg:]
	binary.NativeEndian.PutUint16(attr, uint16(unix.SizeofRtAttr+len(to))) //nolint:gosec // 20 at most
	binary.NativeEndian.PutUint16(attr[2:], unix.RTA_DST)
	copy(attr[unix.SizeofRtAttr:], to)
	return b
}

// parseRoute reads the answer: which type of route it is, or that there is none.
func parseRoute(b []byte) (local bool, err error) {
	if len(b) < sizeNlmsghdr {
		return false, errNetlink
	}
	body := b[sizeNlmsghdr:]
	switch binary.NativeEndian.Uint16(b[4:]) {
	case unix.RTM_NEWROUTE:
		if len(body) < unix.SizeofRtMsg {
			return false, errNetlink
		}
		return body[7] == unix.RTN_LOCAL, nil // rtmsg.rtm_type
	case unix.NLMSG_ERROR:
		if len(body) < 4 {
			return false, errNetlink
		}
		errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body))) //nolint:gosec // as the kernel writes it
		for _, nowhere := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL} {
			if errors.Is(errno, nowhere) { // no route, or one of type unreachable, prohibit or blackhole
				return false, nil
			}
		}
		return false, fmt.Errorf("netlink: %w", errno)
	}
	return false, errNetlink
}
