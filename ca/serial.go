package ca

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/big"
)

// serialLen: RFC 5280 4.1.2.2 allows 20 octets with the sign bit. 2 tell the log
// that the certificate is recorded in, 16 are random.
const serialLen = 18

// serialPrefix begins every serial of one log, so that two servers cannot give
// the same one, and a certificate tells whose log to look in. The first octet is
// 1 to 127: a serial is positive and always serialLen long.
type serialPrefix [2]byte

func serialPrefixOf(origin string) serialPrefix {
	sum := sha256.Sum256([]byte("serial prefix of " + origin))
	return serialPrefix{sum[0]%127 + 1, sum[1]}
}

// caPrefix begins the serials of signing certificates.
var caPrefix = serialPrefix{0x7f, 0xca}

func newSerial(prefix serialPrefix) (*big.Int, error) {
	octets := make([]byte, serialLen)
	copy(octets, prefix[:])
	if _, err := rand.Read(octets[len(prefix):]); err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	return new(big.Int).SetBytes(octets), nil
}

// SerialText is how a serial number is written in records: lower-case hex.
func SerialText(serial *big.Int) string { return hex.EncodeToString(serial.Bytes()) }
