package authz

import (
	"errors"
	"strings"
)

var errTokenScheme = errors.New("malformed: not one header `authorization: Bearer <token>`")

// bearer returns the bearer token of a request (RFC 6750 2.1). Several
// authorization headers, or a scheme that only looks like Bearer, are refused:
// the upstream may read another one than we.
func bearer(headers map[string][]string) (text string, present bool, err error) {
	values := headers["authorization"]
	for _, v := range values {
		scheme := v
		if i := strings.IndexFunc(v, func(r rune) bool { return !isTokenRune(r) }); i >= 0 {
			scheme = v[:i]
		}
		if !strings.EqualFold(scheme, "bearer") && !strings.Contains(strings.ToLower(v), "bearer ") {
			continue
		}
		if len(values) > 1 {
			return "", true, errTokenScheme
		}
		rest, ok := strings.CutPrefix(v[len(scheme):], " ")
		if !ok || !strings.EqualFold(scheme, "bearer") {
			return "", true, errTokenScheme
		}
		return strings.TrimLeft(rest, " "), true, nil
	}
	return "", false, nil
}

func isTokenRune(r rune) bool { return r < 0x80 && isToken(string(r)) }
