package authz_test

import (
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/authz"
	"signet.example/test/parts"
)

func TestAmbiguousPathsAreRefused(t *testing.T) {
	for _, p := range []string{
		"", "*", "admin", "http://h/admin", "h:443", "//admin", "/x//admin", "/./admin", "/x/../admin", "/..", "/.", "/x/.",
		"/%2e%2e/admin", "/%2E/x", "/x/%2e%2e%2fadmin", "/%2fadmin", "/admin%2F", "/x%5cadmin", "/x\\admin", "/%61dmin", "/adm%69n", "/a%2Db",
		"/x/..;/admin", "/x/.;a=b/admin", "/x/%2E%2E;/admin", "/x/..%3b/admin", "/;/admin", "/;a=b/admin", "/%3b/admin", "/x;../admin", "/x;a=..",
		"/%252e%252e/admin", "/%25%32%65", "/%252fadmin", "/%2500", "/%25u002e", "/%u002e", "/%", "/%4", "/%zz", "/a%2",
		"/admin%00", "/admin\x00", "/a%0d%0aset-cookie:x", "/a%7f", "/a\tb", "/a b", "/admin#f", "/a\r", "/\x7f",
		"/\xc0\xaeadmin", "/%c0%ae", "/%ff", "/%ed%a0%80", "/é", "/" + strings.Repeat("a", 1<<17),
		"/a?b=%", "/a?b=%zz", "/a?b=%ff", "/a?b=%00", "/a?b c", "/a?\x00", "/a?é",
	} {
		if got, segments, query, err := authz.ParseTarget(p); err == nil {
			t.Errorf("%.60q: accepted as %q %q %v", p, got, segments, query)
		}
	}
}

func TestUnambiguousPathsAreGivenAsTheyAre(t *testing.T) {
	type q = map[string][]string
	for raw, want := range map[string]struct {
		segments []string
		query    q
	}{
		"/":                      {[]string{}, q{}},
		"/a":                     {[]string{"a"}, q{}},
		"/a/":                    {[]string{"a"}, q{}},
		"/a/b.c/d..e/...":        {[]string{"a", "b.c", "d..e", "..."}, q{}},
		"/a?":                    {[]string{"a"}, q{}},
		"/a?b=1&b=2&c&&d=":       {[]string{"a"}, q{"b": {"1", "2"}, "c": {""}, "d": {""}}},
		"/a?b=/../x?y&c=%2e+%26": {[]string{"a"}, q{"b": {"/../x?y"}, "c": {". &"}}},
		"/caf%C3%A9":             {[]string{"café"}, q{}},
		"/a%20b%3fc%25":          {[]string{"a b?c%"}, q{}},
		"/admin;a=b/x;v=1":       {[]string{"admin", "x"}, q{}},
		"/~u/a:b@c!$&'()*+,=":    {[]string{"~u", "a:b@c!$&'()*+,="}, q{}},
	} {
		got, segments, query, err := authz.ParseTarget(raw)
		if path, _, _ := strings.Cut(raw, "?"); err != nil || got != path {
			t.Errorf("%q: %q %v", raw, got, err)
		}
		if diff := cmp.Diff(want.segments, segments) + cmp.Diff(want.query, query); diff != "" {
			t.Errorf("%q: %s", raw, diff)
		}
	}
}

// readers are the ways an upstream may read a path that it is sent.
var readers = map[string]func(string) string{
	"as it is": func(p string) string { return p },
	"cleaned":  path.Clean,
	"decoded once, cleaned": func(p string) string {
		d, err := url.PathUnescape(p)
		if err != nil {
			return p
		}
		return path.Clean(strings.ReplaceAll(d, `\`, "/"))
	},
	"parameters cut off, decoded, cleaned": func(p string) string {
		parts := strings.Split(p, "/")
		for i := range parts {
			parts[i], _, _ = strings.Cut(parts[i], ";")
		}
		d, err := url.PathUnescape(strings.Join(parts, "/"))
		if err != nil {
			return p
		}
		return path.Clean(d)
	},
	"decoded, parameters cut off, cleaned": func(p string) string {
		d, err := url.PathUnescape(p)
		if err != nil {
			return p
		}
		parts := strings.Split(strings.ReplaceAll(d, `\`, "/"), "/")
		for i := range parts {
			parts[i], _, _ = strings.Cut(parts[i], ";")
		}
		return path.Clean(strings.Join(parts, "/"))
	},
}

func underAdmin(p string) bool { return p == "/admin" || strings.HasPrefix(p, "/admin/") }

func TestNoPathOfTheCorpusReachesAdminWhereAdminIsDenied(t *testing.T) {
	f := newFixtureWith(t, `package signet.authz
allow contains "everything else"
deny contains "nobody reaches admin" if input.request.segments[0] == "admin"`)
	tried, allowed := 0, 0
	try := func(raw string) {
		tried++
		_, r := f.ask(t, f.question("GET", raw, web))
		if !r.Allowed {
			return
		}
		allowed++
		sent, _, _ := strings.Cut(raw, "?")
		for name, read := range readers {
			if got := read(sent); underAdmin(got) {
				t.Errorf("%q is allowed, and %q for an upstream that reads it %s", raw, got, name)
			}
		}
	}
	corpus, err := os.ReadFile(parts.Shared(t, "testdata", "path-corpus/path-corpus-dev.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(corpus)) {
		cols := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if cols[0] != "path" {
			continue
		}
		raw, err := strconv.Unquote(`"` + strings.ReplaceAll(cols[1], `"`, `\"`) + `"`)
		if err != nil {
			raw = cols[1]
		}
		if try(raw); raw != cols[1] {
			try(cols[1])
		}
		for _, col := range cols[2:] { // as Envoy would forward it
			if _, p, ok := strings.Cut(col, "p="); ok {
				p, _, _ = strings.Cut(p, " ")
				try(p)
			}
		}
	}
	if tried < 40 || allowed == 0 {
		t.Errorf("%d tried, %d allowed: the corpus was not read", tried, allowed)
	}
}

func TestOneHostHasOneSpelling(t *testing.T) {
	for in, want := range map[string]string{
		"h": "h", "H.Example": "h.example", "h.": "h", "h:443": "h", "h.:8080": "h", "10.0.0.1:80": "10.0.0.1", "[::1]:80": "::1", "[2001:DB8::0001]": "2001:db8::1",
		"a_b.svc": "a_b.svc", "xn--bcher-kva.example": "xn--bcher-kva.example",
	} {
		if got, err := authz.CanonicalHost(in); err != nil || got != want {
			t.Errorf("%q: %q %v", in, got, err)
		}
	}
	for _, in := range []string{"", ".", "h,evil", "h evil", "h:", "h:x", "h:0", "h:65536", "h:80:80", "[::1", "[::1]x", "[fe80::1%eth0]", "[1.2.3.4]", "bücher", "a..b", ".a", "u@h", "h/x", "h\x00", strings.Repeat("a", 300)} {
		if got, err := authz.CanonicalHost(in); err == nil {
			t.Errorf("%q: accepted as %q", in, got)
		}
	}
}

func FuzzTarget(f *testing.F) {
	for _, s := range []string{"/", "/a/b?c=d", "/x/%2e%2e/admin", "/x/..;/admin", "/a%20b;c=d/é", "/%25zz/a%3fb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, segments, _, err := authz.ParseTarget(raw)
		if err != nil {
			return
		}
		if sent, _, _ := strings.Cut(raw, "?"); got != sent {
			t.Fatalf("%q became %q", raw, got)
		}
		first := ""
		if len(segments) > 0 {
			first = segments[0]
		}
		for name, read := range readers {
			if p := read(got); underAdmin(p) && first != "admin" {
				t.Fatalf("%q is %q for an upstream that reads it %s, and %q for policy", raw, p, name, segments)
			}
		}
		for _, s := range segments {
			if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\\;\x00") {
				t.Fatalf("%q has segment %q", raw, s)
			}
		}
	})
}
