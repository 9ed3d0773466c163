package attestation

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// maxCallers bounds the sockets of this host that are connected to one destination.
const maxCallers = 1024

// calling are the states of a socket that connects and has not heard of the other end's close. Those
// that wait for late packets after their end (TIME_WAIT) are many where an application closes first.
const calling = 1<<tcpEstablished | 1<<tcpFinWait1

// RedirectedOwners are who can have made a connection to remote that the
// kernel led to at on this host, where it comes from local. All connections that are led there
// have one destination, so that the kernel rewrites the source port of one whose port another
// has: then no socket has these four addresses, or another connection's has (measured).
//
// So an answer is about a socket that has carried what the accepted one did, by the counts of both.
// Where the four addresses do not find it, it is among those from local's address to
// remote, and the owners of all these are the answer.
func RedirectedOwners(local, remote, at netip.AddrPort) ([]SocketOwner, error) {
	local, remote, at = unmapped(local), unmapped(remote), unmapped(at)
	var owners []SocketOwner
	owner, err := atItsPort(local, remote, at)
	if owners = append(owners, owner); errors.Is(err, ErrNoOwner) { // then all that the host has are looked at, which takes longer
		owners, err = atAnyPort(local, remote, at)
	}
	if err != nil {
		return nil, fmt.Errorf("sock_diag: %s to %s, redirected to %s: %w", local, remote, at, err)
	}
	return owners, nil
}

// atItsPort is the owner of the socket with the four addresses, if it is the accepted one's.
func atItsPort(local, remote, at netip.AddrPort) (SocketOwner, error) {
	before, err := accepted(at, local)
	if err != nil {
		return SocketOwner{}, err
	}
	caller, err := connected(local, remote)
	if err != nil {
		return SocketOwner{}, err
	}
	after, err := accepted(at, local)
	if err == nil && !caller.carried.fits(before.carried, after.carried) {
		err = ErrNoOwner
	}
	return caller.owner, err
}

// atAnyPort are the owners of those from there who can be the accepted one's.
func atAnyPort(local, remote, at netip.AddrPort) ([]SocketOwner, error) {
	before, err := accepted(at, local)
	if err != nil {
		return nil, err
	}
	callers, err := callersOf(local.Addr(), remote)
	if err != nil {
		return nil, err
	}
	after, err := accepted(at, local) // whoever reset it was no caller by then
	if err != nil {
		return nil, err
	}
	return ownersOf(callers, before, after)
}

// ownersOf are the owners, each once, of all who can have the other end of an accepted socket, one at least.
func ownersOf(callers []diagSocket, before, after diagSocket) ([]SocketOwner, error) {
	if after.state != tcpEstablished { // its caller ended it, and its socket may be gone
		return nil, ErrNoOwner
	}
	if !slices.ContainsFunc(callers, func(s diagSocket) bool { return s.carried.fits(before.carried, after.carried) }) {
		return nil, ErrNoOwner
	}
	var owners []SocketOwner
	for _, s := range callers {
		if s.inode == 0 || !s.owner.Known() {
			if s.carried.known && !s.carried.fits(before.carried, after.carried) { // of another connection, which ends
				continue
			}
			return nil, fmt.Errorf("beside whom somebody calls there who closed it, or is not known: %w", ErrNoOwner)
		}
		if !slices.Contains(owners, s.owner) {
			owners = append(owners, s.owner)
		}
	}
	return owners, nil
}

// accepted is the socket at this end of a connection that comes from there.
func accepted(at, from netip.AddrPort) (diagSocket, error) {
	s, err := connected(at, from)
	if err != nil {
		return diagSocket{}, fmt.Errorf("what %s accepted from %s: %w", at, from, err)
	}
	return s, nil
}

// callersOf are the sockets that call a destination from an address.
func callersOf(from netip.Addr, to netip.AddrPort) ([]diagSocket, error) {
	var all []diagSocket
	for _, family := range familiesOf(from) {
		request := diagRequest(family, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, calling, netip.AddrPort{}, netip.AddrPortFrom(netip.Addr{}, to.Port()))
		found, err := diag(withCounts(onlyBetween(request, family, from, to)), maxCallers,
			func(s diagSocket) bool { return s.local.Addr() == from && s.remote == to })
		if err != nil {
			return nil, fmt.Errorf("connections from %s to %s: %w", from, to, err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// withCounts has the kernel tell tcp_info of what it finds.
func withCounts(request []byte) []byte {
	request[sizeNlmsghdr+2] |= 1 << (attrInfo - 1) // inet_diag_req_v2.idiag_ext
	return request
}

// carried is what a socket sent and received, in bytes, by tcp_info of linux/tcp.h.
type carried struct {
	known                 bool
	acked, sent, received uint64
}

func parseCarried(info []byte) carried {
	const offAcked, offReceived, offSent = 120, 128, 200
	if len(info) < offSent+8 { // a kernel before 4.19
		return carried{}
	}
	at := func(off int) uint64 { return binary.NativeEndian.Uint64(info[off:]) }
	return carried{true, at(offAcked), at(offSent), at(offReceived)}
}

// fits reports whether a socket can be the one that connected to an accepted one, which was looked at
// before it and after it. Its SYN, and its FIN, count as a byte in what was acknowledged.
func (c carried) fits(before, after carried) bool {
	return c.known && before.known && after.known &&
		c.acked <= after.received+1 && before.received <= c.sent+1 &&
		before.acked <= c.received+1 && c.received <= after.sent+1
}
