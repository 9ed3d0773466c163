package authz

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"
)

// target is a request's path as policy sees it.
type target struct {
	path     string
	segments []string
	rawQuery string
	query    map[string][]string
}

const maxTarget = 64 << 10

// parseTarget splits a request target and refuses every path that two readers
// could take for different ones. Envoy normalises paths before it asks
// (hardened HTTP managers); what arrives here in another form means that it
// did not, or that its normalisation is not the upstream's, which decodes once
// more, cuts ";parameters" off or folds backslashes (A01). Nothing is
// repaired: policy must see, byte for byte, what the upstream gets.
func parseTarget(raw string) (target, error) {
	path, query, _ := strings.Cut(raw, "?")
	t := target{path: path, rawQuery: query}
	switch {
	case len(raw) > maxTarget:
		return t, errors.New("too long")
	case path == "" || path[0] != '/':
		return t, errors.New("not an absolute path") // "*", CONNECT's authority, absolute form
	}
	var err error
	if t.segments, err = parsePath(path); err != nil {
		return t, err
	}
	if t.query, err = parseQuery(query); err != nil {
		return t, fmt.Errorf("query: %w", err)
	}
	return t, nil
}

// parsePath returns the decoded segments without their parameters.
func parsePath(path string) ([]string, error) {
	decoded, err := decodePath(path)
	if err != nil {
		return nil, err
	}
	if path == "/" {
		return []string{}, nil
	}
	parts := strings.Split(decoded[1:], "/")
	for i, p := range parts {
		name, _, params := strings.Cut(p, ";")
		switch {
		case name == "." || name == "..":
			return nil, errors.New("dot segment")
		case name == "" && params:
			return nil, errors.New("segment of parameters only")
		case name == "" && i < len(parts)-1:
			return nil, errors.New("empty segment")
		case params && strings.Contains(p, ".."):
			return nil, errors.New("dots in parameters")
		}
		parts[i] = name
	}
	if parts[len(parts)-1] == "" {
		parts = parts[:len(parts)-1] // a trailing slash
	}
	return parts, nil
}

// decodePath decodes %XX once, where that is the same for every reader.
func decodePath(path string) (string, error) {
	var b strings.Builder
	b.Grow(len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		switch {
		case c <= ' ' || c >= 0x7f:
			return "", errors.New("raw control, space or non-ASCII byte")
		case c == '\\' || c == '#':
			return "", errors.New("raw backslash or number sign")
		case c != '%':
			b.WriteByte(c)
			continue
		}
		d, err := decodeByte(path[i:])
		if err != nil {
			return "", err
		}
		b.WriteByte(d)
		i += 2
	}
	if !utf8.ValidString(b.String()) { // overlong forms such as %c0%ae too
		return "", errors.New("percent-encoding of invalid UTF-8")
	}
	return b.String(), nil
}

// decodeByte decodes the %XX that s begins with.
func decodeByte(s string) (byte, error) {
	if len(s) < 3 || !isHex(s[1]) || !isHex(s[2]) {
		return 0, errors.New("percent sign without two hexadecimal digits")
	}
	c := unhex(s[1])<<4 | unhex(s[2])
	switch {
	case c < ' ' || c == 0x7f:
		return 0, errors.New("percent-encoded control character")
	case c == '/' || c == '\\':
		return 0, errors.New("percent-encoded slash or backslash")
	case c == '.' || isUnreserved(c):
		// RFC 3986 6.2.2.2: Envoy decodes these, so that one is left says it did not.
		return 0, errors.New("percent-encoded character that needs no encoding")
	case c == '%' && len(s) >= 5 && (isHex(s[3]) && isHex(s[4]) || s[3] == 'u' || s[3] == 'U'):
		return 0, errors.New("double percent-encoding")
	}
	return c, nil
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	}
	return c - 'A' + 10
}

func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '~'
}

// parseQuery reads a query as a form, keys and values decoded. A malformed one
// is refused: a rule that denies by a parameter must not miss it.
func parseQuery(raw string) (map[string][]string, error) {
	out := map[string][]string{}
	if raw == "" {
		return out, nil
	}
	if strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, errors.New("raw control, space or non-ASCII byte")
	}
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		key, value, _ := strings.Cut(part, "=")
		k, err := unescapeQuery(key)
		if err != nil {
			return nil, err
		}
		v, err := unescapeQuery(value)
		if err != nil {
			return nil, err
		}
		out[k] = append(out[k], v)
	}
	return out, nil
}

func unescapeQuery(s string) (string, error) {
	v, err := url.QueryUnescape(s)
	if err != nil {
		return "", errors.New("percent sign without two hexadecimal digits")
	}
	if !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
		return "", errors.New("percent-encoding of invalid UTF-8 or NUL")
	}
	return v, nil
}
