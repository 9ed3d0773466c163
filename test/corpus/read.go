package corpus

import (
	"fmt"
	"net/url"
	"path"
	"strings"
)

// Readings are how applications behind proxies read paths, in different ways.
// Each takes a request target as it arrived and says what it would serve.
var Readings = map[string]func(string) string{
	"Go ServeMux": func(target string) string {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return ""
		}
		return path.Clean(u.Path)
	},
	"strips ;parameters": func(target string) string {
		p, _, _ := strings.Cut(target, "?")
		var segments []string
		for s := range strings.SplitSeq(p, "/") {
			s, _, _ = strings.Cut(s, ";")
			segments = append(segments, s)
		}
		return path.Clean(strings.Join(segments, "/"))
	},
	"decodes once, then resolves": func(target string) string {
		p, _, _ := strings.Cut(target, "?")
		return path.Clean(strings.ReplaceAll(unescape(p), `\`, "/"))
	},
	"decodes once, then strips ;parameters": func(target string) string {
		p, _, _ := strings.Cut(target, "?")
		var segments []string
		for s := range strings.SplitSeq(unescape(p), "/") {
			s, _, _ = strings.Cut(s, ";")
			segments = append(segments, s)
		}
		return path.Clean(strings.Join(segments, "/"))
	},
	"decodes twice": func(target string) string {
		p, _, _ := strings.Cut(target, "?")
		return path.Clean(unescape(unescape(p)))
	},
}

// unescape is careless, as some applications are: it takes %u escapes and
// overlong UTF-8 for what was meant, and leaves what it does not understand.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		var c byte
		switch {
		case i+6 <= len(s) && strings.EqualFold(s[i:i+2], "%u") && hex(s[i+2:i+6], &c):
			i += 5
		case i+3 <= len(s) && s[i] == '%' && hex(s[i+1:i+3], &c):
			i += 2
		default:
			c = s[i]
		}
		b.WriteByte(c)
	}
	return strings.NewReplacer("\xc0\xae", ".", "\xc0\xaf", "/", "\xe0\x80\xae", ".", "\xe0\x80\xaf", "/").Replace(b.String())
}

func hex(s string, into *byte) bool {
	var n uint32
	if _, err := fmt.Sscanf(s, "%x", &n); err != nil || strings.Trim(s, "0123456789abcdefABCDEF") != "" {
		return false
	}
	*into = byte(n)
	return true
}

// Under reports which of the readings takes a request target for prefix or for
// something below it; "" for none.
func Under(target, prefix string) string {
	for name, read := range Readings {
		if p := read(target); p == prefix || strings.HasPrefix(p, prefix+"/") {
			return fmt.Sprintf("%s, as %s", name, p)
		}
	}
	return ""
}
