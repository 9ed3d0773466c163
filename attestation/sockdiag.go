package attestation

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// SocketOwner is who holds a TCP socket of this network namespace, by the
// kernel's word: the user that made it, and the cgroup it was made in. It is
// known to any process, for the sockets of every user.
type SocketOwner struct {
	UID uint32
	// Cgroup is the id of the cgroup v2, 0 where the kernel tells none: an id of
	// 1, the root, is what a host without cgroup v2 says of every socket.
	Cgroup uint64
}

// Known reports whether the user has a number in this user namespace.
func (o SocketOwner) Known() bool { return o.UID != overflowUID && o.UID != ^uint32(0) }

// ErrNoOwner is wrapped by every answer that names nobody: the connection is
// gone or closed, is another one's, or belongs to a user of whom this user
// namespace has no number.
var ErrNoOwner = errors.New("nobody holds it")

// ErrElsewhere is returned for an address that is none of this network namespace's:
// another host's, or a container's on a bridge. Who listens there is not seen from here.
var ErrElsewhere = errors.New("no address of this network namespace, so that who listens there cannot be seen")

// overflowUID is how the kernel writes a user that this user namespace has no
// number for (overflowuid of proc_sys_kernel(5)): whoever it is, it is not known.
const overflowUID = 65534

// ConnectionOwner returns who holds the end at local of the connection to
// remote. An answer counts only if it is about exactly these four addresses, in
// a state in which somebody still holds the socket, and with an inode: a socket
// that was closed is reported as user 0 without one, and for a connection that
// is gone the kernel answers with whoever listens on its port (both measured).
//
// The addresses are those that the accepting side sees. Where the host rewrites them on the
// way, as container runtimes do for what leaves their bridge, another socket can have them:
// any user can bind the bridge's address. At a loopback address only a connection from one
// counts, since rewriting gives no such source.
func ConnectionOwner(local, remote netip.AddrPort) (SocketOwner, error) {
	local, remote = unmapped(local), unmapped(remote)
	if local.Addr().Is4() != remote.Addr().Is4() || !local.IsValid() || !remote.IsValid() {
		return SocketOwner{}, fmt.Errorf("sock_diag: %s to %s: not one connection", local, remote)
	}
	if remote.Addr().IsLoopback() && !local.Addr().IsLoopback() {
		return SocketOwner{}, fmt.Errorf("sock_diag: %s to %s: not from a loopback address, as one that was rewritten on its way (an application leaves its own address to the kernel): %w", local, remote, ErrNoOwner)
	}
	found, err := connected(local, remote)
	if err != nil {
		return SocketOwner{}, fmt.Errorf("sock_diag: %s to %s: %w", local, remote, err)
	}
	return found.owner, nil
}

// connected is the socket with these addresses, if somebody holds it.
func connected(local, remote netip.AddrPort) (diagSocket, error) {
	var errs []error
	for _, family := range familiesOf(local.Addr()) {
		found, err := diag(withCounts(diagRequest(family, unix.NLM_F_REQUEST, ^uint32(0), local, remote)), 1,
			func(s diagSocket) bool { return s.connects(local, remote) })
		if err == nil {
			if len(found) > 0 {
				return found[0], nil
			}
			err = ErrNoOwner
		}
		errs = append(errs, err)
	}
	return diagSocket{}, errors.Join(errs...)
}

// familiesOf are those of the sockets that can have an address: an IPv6 socket may have an IPv4 one.
func familiesOf(a netip.Addr) []byte {
	if a.Is4() {
		return []byte{unix.AF_INET, unix.AF_INET6}
	}
	return []byte{unix.AF_INET6}
}

// maxListeners bounds the sockets that listen for one address: the workers of one
// server, each with its own. Only a user who may listen there beside them adds to them.
const maxListeners = 1024

// ListenerOwners returns who holds the sockets that a connection to at could
// reach, one for each socket: those of that address and of every address. A socket of
// every address is one of every address of this network namespace, and anybody can make
// one: of another address the answer is ErrElsewhere.
func ListenerOwners(at netip.AddrPort) ([]SocketOwner, error) {
	at = unmapped(at)
	switch own, err := ownAddress(at.Addr()); {
	case err != nil:
		return nil, fmt.Errorf("sock_diag: listeners at %s: %w", at, err)
	case !own:
		return nil, fmt.Errorf("%s is %w", at.Addr(), ErrElsewhere)
	}
	var owners []SocketOwner
	for _, family := range familiesOf(at.Addr()) {
		any := netip.IPv6Unspecified()
		if family == unix.AF_INET {
			any = netip.IPv4Unspecified()
		}
		request := diagRequest(family, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, 1<<tcpListen, netip.AddrPortFrom(any, at.Port()), netip.AddrPort{})
		found, err := diag(onlyAt(request, family, any, at.Addr()), maxListeners,
			func(s diagSocket) bool { return s.listensFor(at) })
		if err != nil {
			return nil, fmt.Errorf("sock_diag: listeners at %s: %w", at, err)
		}
		for _, s := range found {
			owners = append(owners, s.owner)
		}
	}
	return owners, nil
}

// States of a TCP socket, as the kernel numbers them (net/tcp_states.h).
const (
	tcpEstablished = 1
	tcpFinWait1    = 4
	tcpFinWait2    = 5
	tcpCloseWait   = 8
	tcpListen      = 10
)

// diagSocket is one answer.
type diagSocket struct {
	state         uint8
	local, remote netip.AddrPort // unmapped
	inode         uint32
	v6Only        bool
	owner         SocketOwner
	carried       carried
}

func (s diagSocket) connects(local, remote netip.AddrPort) bool {
	switch s.state {
	case tcpEstablished, tcpFinWait1, tcpFinWait2, tcpCloseWait:
	default:
		return false
	}
	return s.local == local && s.remote == remote && s.inode != 0 && s.owner.Known()
}

func (s diagSocket) listensFor(at netip.AddrPort) bool {
	a := s.local.Addr()
	switch {
	case s.state != tcpListen || s.local.Port() != at.Port():
		return false
	case a == netip.IPv6Unspecified():
		return !at.Addr().Is4() || !s.v6Only
	case a == netip.IPv4Unspecified():
		return at.Addr().Is4()
	}
	return a == at.Addr()
}

func unmapped(at netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// Sizes and offsets of linux/netlink.h and linux/inet_diag.h.
const (
	sizeNlmsghdr  = 16
	sizeDiagReq   = 56
	sizeDiagMsg   = 72
	offReqID      = 8  // inet_diag_req_v2.id
	offMsgID      = 4  // inet_diag_msg.id
	offMsgUID     = 64 // inet_diag_msg.idiag_uid
	offMsgInode   = 68
	sizeSockID    = 48
	attrInfo      = 2  // INET_DIAG_INFO
	attrSKV6Only  = 11 // INET_DIAG_SKV6ONLY
	attrCgroupID  = 21 // INET_DIAG_CGROUP_ID
	sockDiagByFam = 20 // SOCK_DIAG_BY_FAMILY
	attrBytecode  = 1  // INET_DIAG_REQ_BYTECODE
	bcJump        = 1  // INET_DIAG_BC_JMP
	bcSCond       = 7  // INET_DIAG_BC_S_COND
	bcDCond       = 8  // INET_DIAG_BC_D_COND
)

// diagRequest asks for one socket, or with NLM_F_DUMP for all of a local port
// whose states are among these.
func diagRequest(family byte, flags uint16, states uint32, local, remote netip.AddrPort) []byte {
	b := make([]byte, sizeNlmsghdr+sizeDiagReq)
	binary.NativeEndian.PutUint32(b, sizeNlmsghdr+sizeDiagReq)
	binary.NativeEndian.PutUint16(b[4:], sockDiagByFam)
	binary.NativeEndian.PutUint16(b[6:], flags)
	req := b[sizeNlmsghdr:]
	req[0], req[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(req[4:], states)
	id := req[offReqID:]
	binary.BigEndian.PutUint16(id, local.Port())
	binary.BigEndian.PutUint16(id[2:], remote.Port())
	put := func(into []byte, a netip.Addr) {
		if family == unix.AF_INET && a.Is4() {
			four := a.As4()
			copy(into, four[:])
		} else if a.IsValid() {
			sixteen := a.As16()
			copy(into, sixteen[:])
		}
	}
	put(id[4:], local.Addr())
	put(id[20:], remote.Addr())
	binary.NativeEndian.PutUint64(id[40:], ^uint64(0)) // INET_DIAG_NOCOOKIE
	return b
}

// onlyAt has the kernel leave out of a dump what is bound to neither of the two
// addresses: of a port it would tell the sockets of all, however many one user holds.
func onlyAt(request []byte, family byte, one, other netip.Addr) []byte {
	first, second := condition(bcSCond, family, one, anyPort), condition(bcSCond, family, other, anyPort)
	jump := []byte{bcJump, 4, 0, 0}
	binary.NativeEndian.PutUint16(jump[2:], uint16(4+len(second))) //nolint:gosec // at most 32
	return withProgram(request, slices.Concat(first, jump, second))
}

// onlyBetween has the kernel leave out of a dump what is not connected from an address to there.
func onlyBetween(request []byte, family byte, from netip.Addr, to netip.AddrPort) []byte {
	first, second := condition(bcSCond, family, from, anyPort), condition(bcDCond, family, to.Addr(), uint32(to.Port()))
	binary.NativeEndian.PutUint16(first[2:], uint16(len(first)+len(second)+4)) //nolint:gosec // at most 60: over both
	return withProgram(request, slices.Concat(first, second))
}

const anyPort = 0xffffffff

// condition is an inet_diag_bc_op with its inet_diag_hostcond, for all bits of an address. Where it does
// not hold the kernel goes on over the operation behind it, a jump, or past the end, which is no.
func condition(op, family byte, a netip.Addr, port uint32) []byte {
	addr := a.AsSlice()
	if family == unix.AF_INET6 {
		sixteen := a.As16()
		addr = sixteen[:]
	}
	size := byte(4 + 8 + len(addr)) //nolint:gosec // at most 28
	b := []byte{op, size, 0, 0, family, 8 * (size - 12), 0, 0, 0, 0, 0, 0}
	binary.NativeEndian.PutUint16(b[2:], uint16(size)+4)
	binary.NativeEndian.PutUint32(b[8:], port)
	return append(b, addr...)
}

func withProgram(request, program []byte) []byte {
	attr := make([]byte, 4, 4+len(program))
	binary.NativeEndian.PutUint16(attr, uint16(4+len(program))) //nolint:gosec // at most 64
	binary.NativeEndian.PutUint16(attr[2:], attrBytecode)
	request = slices.Concat(request, attr, program)
	binary.NativeEndian.PutUint32(request, uint32(len(request))) //nolint:gosec // at most 136
	return request
}

// diagTimeout is far more than the kernel takes, which answers at once.
const diagTimeout = time.Second

// What one datagram of an answer has at most: about one socket some 150 bytes, of many as much
// as fits into what the kernel makes for it. One that is more is no answer.
const diagOne, diagMany = 4 << 10, 32 << 10

// diagBytes bounds what is read of one answer: far more than all that may be asked for.
const diagBytes = 1 << 20

// diag asks the kernel and keeps the sockets that are asked for, of which there may
// be so many: what the kernel tells beside them does not count. It has a netlink
// socket of its own, so that no answer to another question can be in it.
func diag(request []byte, most int, asked func(diagSocket) bool) ([]diagSocket, error) {
	fd, err := askKernel(unix.NETLINK_SOCK_DIAG, request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written that matters
	dump := binary.NativeEndian.Uint16(request[6:])&unix.NLM_F_DUMP == unix.NLM_F_DUMP
	var all []diagSocket
	buf := make([]byte, diagOne)
	if dump {
		buf = make([]byte, diagMany)
	}
	for left := diagBytes; left > 0; {
		n, err := kernelSays(fd, buf)
		if err != nil {
			return nil, err
		}
		found, done, err := parseDiag(buf[:n])
		if err != nil {
			return nil, err
		}
		left -= n
		for _, s := range found {
			if asked(s) {
				all = append(all, s)
			}
		}
		if len(all) > most {
			return nil, fmt.Errorf("more than %d sockets", most)
		}
		if done || !dump {
			return all, nil
		}
	}
	return nil, fmt.Errorf("more than %d bytes of sockets", diagBytes)
}

// askKernel sends a request on a netlink socket of its own, which is closed by the caller.
func askKernel(protocol int, request []byte) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return -1, fmt.Errorf("netlink: %w", err)
	}
	bound := unix.NsecToTimeval(diagTimeout.Nanoseconds())
	if err := errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &bound),
		unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})); err != nil {
		_ = unix.Close(fd) // the first error is the one to tell
		return -1, fmt.Errorf("netlink: %w", err)
	}
	return fd, nil
}

// kernelSays reads one datagram of an answer.
func kernelSays(fd int, buf []byte) (n int, err error) {
	for {
		n, from, err := unix.Recvfrom(fd, buf, unix.MSG_TRUNC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("netlink: %w", err)
		}
		if k, ok := from.(*unix.SockaddrNetlink); !ok || k.Pid != 0 || n > len(buf) {
			return 0, errors.New("netlink: not an answer of the kernel's, or cut")
		}
		return n, nil
	}
}

var errNetlink = errors.New("netlink: malformed answer")

// parseDiag reads one datagram of answers. done is the end of a dump.
func parseDiag(b []byte) (found []diagSocket, done bool, err error) {
	for len(b) >= sizeNlmsghdr {
		length := int(binary.NativeEndian.Uint32(b))
		if length < sizeNlmsghdr || length > len(b) {
			return nil, false, errNetlink
		}
		body := b[sizeNlmsghdr:length]
		if binary.NativeEndian.Uint16(b[6:])&unix.NLM_F_DUMP_INTR != 0 {
			return nil, false, errors.New("netlink: sockets changed meanwhile")
		}
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return found, true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return nil, false, errNetlink
			}
			errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body))) //nolint:gosec // as the kernel writes it
			if errno == unix.ENOENT {
				return nil, false, ErrNoOwner
			}
			return nil, false, fmt.Errorf("netlink: %w", errno)
		case sockDiagByFam:
			s, err := parseSocket(body)
			if err != nil {
				return nil, false, err
			}
			found = append(found, s)
		}
		b = b[min(len(b), (length+3)&^3):]
	}
	if len(b) != 0 {
		return nil, false, errNetlink
	}
	return found, false, nil
}

// parseSocket reads one inet_diag_msg with its attributes.
func parseSocket(b []byte) (diagSocket, error) {
	if len(b) < sizeDiagMsg {
		return diagSocket{}, errNetlink
	}
	s := diagSocket{
		state: b[1], inode: binary.NativeEndian.Uint32(b[offMsgInode:]),
		owner: SocketOwner{UID: binary.NativeEndian.Uint32(b[offMsgUID:])},
	}
	var ok bool
	if s.local, s.remote, ok = parseSockID(b[0], b[offMsgID:offMsgID+sizeSockID]); !ok {
		return diagSocket{}, errNetlink
	}
	for attrs := b[sizeDiagMsg:]; len(attrs) >= 4; {
		length := int(binary.NativeEndian.Uint16(attrs))
		if length < 4 || length > len(attrs) {
			return diagSocket{}, errNetlink
		}
		value := attrs[4:length]
		switch kind := binary.NativeEndian.Uint16(attrs[2:]); {
		case kind == attrSKV6Only && len(value) == 1:
			s.v6Only = value[0] != 0
		case kind == attrInfo:
			s.carried = parseCarried(value)
		case kind == attrCgroupID && len(value) == 8:
			if id := binary.NativeEndian.Uint64(value); id > 1 {
				s.owner.Cgroup = id
			}
		}
		attrs = attrs[min(len(attrs), (length+3)&^3):]
	}
	return s, nil
}

func parseSockID(family byte, id []byte) (local, remote netip.AddrPort, ok bool) {
	var src, dst netip.Addr
	switch family {
	case unix.AF_INET:
		src, dst = netip.AddrFrom4([4]byte(id[4:8])), netip.AddrFrom4([4]byte(id[20:24]))
	case unix.AF_INET6:
		src, dst = netip.AddrFrom16([16]byte(id[4:20])).Unmap(), netip.AddrFrom16([16]byte(id[20:36])).Unmap()
	default:
		return local, remote, false
	}
	return netip.AddrPortFrom(src, binary.BigEndian.Uint16(id)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(id[2:])), true
}
