package authz

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// canonicalHost returns the host of an authority in lower case, without port
// and without the dot of a full name, so that one host has one spelling
// (A32). What is no host is refused: "h,evil" is what Envoy makes of
// two Host headers.
func canonicalHost(authority string) (string, error) {
	host := authority
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return "", errors.New("bracket without end")
		}
		if err := checkPort(host[end+1:]); err != nil {
			return "", err
		}
		addr, err := netip.ParseAddr(host[1:end])
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", errors.New("not an IPv6 address in brackets")
		}
		return addr.String(), nil
	}
	if i := strings.IndexByte(host, ':'); i >= 0 {
		if err := checkPort(host[i:]); err != nil {
			return "", err
		}
		host = host[:i]
	}
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > 253 {
		return "", errors.New("empty or too long")
	}
	b := []byte(host)
	for i, c := range b {
		switch {
		case 'A' <= c && c <= 'Z':
			b[i] = c + 'a' - 'A'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		case c == '.' && i > 0 && b[i-1] != '.':
		default:
			return "", errors.New("a character that no host has")
		}
	}
	return string(b), nil
}

func checkPort(s string) error {
	if s == "" {
		return nil
	}
	n, err := strconv.ParseUint(s[1:], 10, 16)
	if s[0] != ':' || err != nil || n == 0 {
		return errors.New("not a port")
	}
	return nil
}
