package proxy

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
)

// TCP is where an application connects to speak to a service on one of its ports of
// protocol tcp: bytes do not say whom they are for, so each service has a place of its
// own. It is the same wherever the way out is the same, whatever else there is; tries
// counts the places before it that were taken by others.
//
// It is never one that other hosts reach: beside an address it is one of 127.192.0.0/10
// on the service's port, beside a Unix socket one in the same folder.
func (e Egress) TCP(service string, port uint32, tries int) Egress {
	service = strings.ToLower(service)
	sum := sha256.Sum256([]byte(strings.Join([]string{"signet way out", e.String(), service, strconv.Itoa(tries)}, "\n")))
	if e.Socket == "" {
		host := netip.AddrFrom4([4]byte{127, 192 | sum[0]&0x3f, sum[1], 1 + sum[2]%254})
		return Egress{AddrPort: netip.AddrPortFrom(host, uint16(port))} //nolint:gosec // 1 to 65535, by its check
	}
	end := "." + strconv.FormatUint(uint64(port), 10)
	name := e.Socket + "." + service + end
	if len(name) > MaxSocketPath || tries > 0 {
		name = e.Socket + "." + hex.EncodeToString(sum[:4]) + end
	}
	return Egress{Socket: name, Mode: e.Mode}
}

// Beside reports whether a socket is one that TCP makes beside e's.
func (e Egress) Beside(socket string) bool {
	rest, ok := strings.CutPrefix(socket, e.Socket+".")
	return e.Socket != "" && ok && !strings.Contains(rest, "/")
}
