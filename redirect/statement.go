package redirect

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// statement is a rule, or a part of one, as nft writes it and as the kernel takes it.
type statement struct {
	text  string
	exprs []expr.Any
}

// chain is one of the table, at a hook of the kernel's.
type chain struct {
	name     string
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
	rules    []statement
}

func outgoing(rules []statement) chain {
	return chain{"output", nftables.ChainHookOutput, nftables.ChainPriorityNATDest, rules}
}

func incoming(rules []statement) chain {
	return chain{"prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, rules}
}

// register is the one that everything is loaded into and compared in.
const register = 1

// portGiven is NF_NAT_RANGE_PROTO_SPECIFIED of linux/netfilter/nf_nat.h.
const portGiven = 2

// leave has what fits go on as it is.
func leave(what statement) statement {
	return statement{what.text + " return", append(what.exprs, &expr.Verdict{Kind: expr.VerdictReturn})}
}

// lead has what fits go to a port here: of a connection that is made here on loopback, of one
// that comes in on the address of the interface by which it came.
func lead(port uint16, what ...statement) statement {
	s := statement{text: fmt.Sprintf("redirect to :%d", port)}
	for _, w := range what {
		s.text, s.exprs = w.text+" "+s.text, append(s.exprs, w.exprs...)
	}
	s.exprs = append(s.exprs,
		&expr.Immediate{Register: register, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Redir{RegisterProtoMin: register, RegisterProtoMax: register, Flags: portGiven})
	return s
}

func noTCP() statement {
	return statement{"meta l4proto != tcp", []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: []byte{unix.IPPROTO_TCP}},
	}}
}

func overIPv6() statement { return statement{"meta nfproto ipv6", over(unix.NFPROTO_IPV6)} }

func over(family byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register},
		equals([]byte{family}),
	}
}

func destinationHere() statement {
	return statement{"fib daddr type local", ofType(&expr.Fib{FlagDADDR: true}, expr.CmpOpEq)}
}

func destinationElsewhere() statement {
	return statement{"fib daddr type != local", ofType(&expr.Fib{FlagDADDR: true}, expr.CmpOpNeq)}
}

func sourceHere() statement {
	return statement{"fib saddr type local", ofType(&expr.Fib{FlagSADDR: true}, expr.CmpOpEq)}
}

// ofType compares an end with the addresses of this network namespace, those of loopback among them.
func ofType(end *expr.Fib, op expr.CmpOp) []expr.Any {
	end.Register, end.ResultADDRTYPE = register, true
	return []expr.Any{end, &expr.Cmp{Op: op, Register: register, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)}}
}

func ofUser(uid uint32) statement {
	return statement{fmt.Sprintf("meta skuid %d", uid), ofSocket(expr.MetaKeySKUID, uid)}
}

func ofGroup(gid uint32) statement {
	return statement{fmt.Sprintf("meta skgid %d", gid), ofSocket(expr.MetaKeySKGID, gid)}
}

func ofSocket(key expr.MetaKey, id uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: register}, equals(binaryutil.NativeEndian.PutUint32(id))}
}

// toAddresses fits a destination, of its family alone.
func toAddresses(p netip.Prefix) statement {
	p = p.Masked()
	family, at, word := byte(unix.NFPROTO_IPV4), uint32(16), "ip" // of the header, RFC 791 3.1
	if p.Addr().Is6() {
		family, at, word = unix.NFPROTO_IPV6, 24, "ip6" // RFC 8200 3
	}
	bytes := p.Addr().AsSlice()
	size := uint32(len(bytes)) //nolint:gosec // 4 or 16
	exprs := append(over(family), &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: at, Len: size})
	if !p.IsSingleIP() {
		exprs = append(exprs, &expr.Bitwise{SourceRegister: register, DestRegister: register, Len: size, Mask: mask(p), Xor: make([]byte, size)})
	}
	text := p.String()
	if p.IsSingleIP() {
		text = p.Addr().String()
	}
	return statement{word + " daddr " + text, append(exprs, equals(bytes))}
}

func mask(p netip.Prefix) []byte {
	all := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		all[i/8] |= 0x80 >> (i % 8)
	}
	return all
}

// toPort fits the destination port of what is TCP already.
func toPort(port uint16) statement {
	return statement{fmt.Sprintf("tcp dport %d", port), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		equals([]byte{unix.IPPROTO_TCP}),
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, // RFC 9293 3.1
		equals(binaryutil.BigEndian.PutUint16(port)),
	}}
}

func equals(data []byte) *expr.Cmp {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: data}
}
