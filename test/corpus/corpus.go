// Package corpus has what several tests of hostile requests share: the rows of
// the shared path corpus, how different applications would read a path, and
// senders that write what no client library would.
//
// Paths, Rows and Readings are the corpus; Under judges one target; HTTP1 and
// HTTP2 send one request over a connection that the caller made.
package corpus

import (
	"bufio"
	"os"
	"strings"
	"testing"

	"signet.example/test/parts"
)

// Ours are paths beside the shared corpus.
var Ours = []string{
	"/x/%2E%2E;/admin", "/x/..;/admin", "/;/admin", "/;a=b/admin", "/x;/../admin", "/x/%2e%2e;a/admin",
	"/%61%64%6d%69%6e", "/x/%25%32%65%25%32%65/admin", "/%25%61dmin", "/x%3b/../admin", "/x/..%3b/admin", "/x/%2e%2e%3b/admin",
	"/x/%c0%ae%c0%ae/admin", "/x/%e0%80%ae%e0%80%ae/admin", "/x/%f0%80%80%ae/admin", "/x/..%c0%afadmin", "/x/..%255cadmin", "/x/..%5cadmin",
	`/x\..\admin`, `\admin`, `/\admin`, "/.//admin", "/x/.../../admin", "/%u0061dmin", "/%uff0fadmin", "/%", "/%2", "/%zzadmin", "/x/%00/../admin",
	"/x%0a/../admin", "/x%09", "/x/%7f/../admin", "//admin/", "/x/..//admin", "/x/%2e%2e//admin", "/ok?x=/../admin", "/ok%20here", "/C%23", "/caf%C3%A9",
	"/%ED%A0%80admin", "/%F4%90%80%80", "/%ff/admin", "http://h/x/..;/admin", "http://h//admin", "/?/../admin", "/#/../admin", "/x/.;/../admin", "/x/..;a/..;b/admin",
}

// MustPass are ordinary: a refusal that refuses these would be easy, and useless.
var MustPass = map[string]bool{"/ok?x=/../admin": true, "/ok%20here": true, "/C%23": true, "/caf%C3%A9": true}

// Rows reads the shared rows of one kind.
func Rows(t testing.TB, kind string) []string {
	t.Helper()
	f, err := os.Open(parts.Shared(t, "testdata", "path-corpus", "path-corpus-dev.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var rows []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if c := strings.Split(s.Text(), "\t"); len(c) > 1 && c[0] == kind {
			rows = append(rows, plain(c[1]))
		}
	}
	if len(rows) == 0 {
		t.Fatalf("no rows of kind %s", kind)
	}
	return rows
}

// plain undoes the escapes of the corpus's file.
func plain(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		var c byte
		switch {
		case strings.HasPrefix(s[i:], `\\`):
			c, i = '\\', i+1
		case strings.HasPrefix(s[i:], `\t`):
			c, i = '\t', i+1
		case strings.HasPrefix(s[i:], `\x`) && i+4 <= len(s) && hex(s[i+2:i+4], &c):
			i += 3
		default:
			c = s[i]
		}
		b.WriteByte(c)
	}
	return b.String()
}
