package xds_test

import (
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"signet.example/xds"
)

func FuzzAPathThatPassesHasOneReading(f *testing.F) {
	for _, s := range []string{
		"/", "/a/b", "/a%20b", "/caf%C3%A9", "/C%23", "/a?b;c=%25", "/%F0%9F%98%80", "/%EF%BF%BD", "/%ED%9F%BF", "/a=b&c,d:e@f!$'()*+",
		"/a;b", "/%2e", "/..", "/a/./b", "/%25", "/%3B", "/%5C", "/%2F", "/%00", "/%7f", "/%C0%AE", "/%ED%A0%80", "/%F4%90%80%80", "/%zz", "/%", `/\`, "//", "/\u00e9",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !xds.Unambiguous(s) {
			return
		}
		raw, query, _ := strings.Cut(s, "?")
		if strings.Contains(query, ";") {
			t.Errorf("%q passes, and its query has two readings", s)
		}
		for segment := range strings.SplitSeq(raw, "/") {
			once, err := url.PathUnescape(segment)
			switch {
			case err != nil:
				t.Errorf("%q passes, but %q cannot be decoded: %v", s, segment, err)
			case !utf8.ValidString(once):
				t.Errorf("%q passes, but %q is not UTF-8", s, once)
			case once == "." || once == "..":
				t.Errorf("%q passes with a dot segment", s)
			case strings.ContainsAny(once, "/\\;%"), strings.ContainsFunc(once, func(r rune) bool { return r < 0x20 || r == 0x7f }):
				t.Errorf("%q passes, but decodes to %q", s, once)
			}
		}
	})
}

func TestOrdinaryPathsPassAndAmbiguousOnesDoNot(t *testing.T) {
	for path, want := range map[string]bool{
		"/?a=1&b=2": true, "/?a=1%3Bb=2": true, "/?a=1;b=2": false, "/?;": false, "/?a=1&amp;b=2": false,
		"/": true, "/orders/17": true, "/a%20b": true, "/C%23": true, "/caf%C3%A9": true, "/%F0%9F%98%80": true, "/pkg.Service/Method": true,
		"/a|b[c]{d}^`\"<>": true, "/what%3F": true, "/?": true, "/?a=../%25%": true, "/...": true, "/.well-known/x": true, "/a..b": true, "/~u/x-y_z": true,
		"": false, "a": false, "*": false, "/a;b": false, "/a#b": false, `/a\b`: false, "/a b": false, "/a\tb": false, "/\x7f": false, "/\xc3\xa9": false,
		"/.": false, "/..": false, "/a/..": false, "/a/../b": false, "/a/./b": false, "/a/..?x": false, "/./": false,
		"/%": false, "/%2": false, "/%zz": false, "/%u002e": false, "/%25": false, "/%2e": false, "/%2E": false, "/%2f": false, "/%3b": false, "/%5c": false,
		"/%00": false, "/%0a": false, "/%1F": false, "/%7F": false, "/%80": false, "/%C3": false, "/%C3a": false, "/%C0%AE": false, "/%C1%9C": false,
		"/%E0%80%AE": false, "/%ED%A0%80": false, "/%F0%80%80%AE": false, "/%F4%90%80%80": false, "/%F5%80%80%80": false, "/%FF": false,
	} {
		if xds.Unambiguous(path) != want {
			t.Errorf("%q passes: %v", path, !want)
		}
	}
	for host, want := range map[string]bool{
		"orders": true, "orders.shop.internal": true, "orders_default:8080": true, "10.0.0.1": true, "[2001:db8::1]:8080": true, "H": true, "xn--bcher-kva.example": true,
		"": false, "a,b": false, "a b": false, "a/b": false, "u@a": false, "a:b": false, "a:": false, "[fe80::1%25eth0]": false, "[a.b:1": false, ".a": false, "a.": false,
		"b\u00fccher.example": false, "a:123456": false, "-a": false, "a\x00": false, "*": false, "a;b": false,
	} {
		if xds.IsHost(host) != want {
			t.Errorf("host %q passes: %v", host, !want)
		}
	}
}
