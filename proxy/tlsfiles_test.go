package proxy_test

import (
	"strings"
	"testing"

	"signet.example/proxy"
)

func TestTheNameOfASecretFromFilesSaysWhichFiles(t *testing.T) {
	names := map[string]proxy.TLSFiles{}
	for _, f := range []proxy.TLSFiles{
		{Certificate: "/keys/a.pem", Key: "/keys/a.key"},
		{Certificate: "/keys/a:b.pem", Key: "/keys/%3A.key"},
		{Certificate: "/keys/a", Key: "/b.pem:/keys/a.key"},
		{Certificate: "/keys/a:/b.pem", Key: "/keys/a.key"},
		{Authorities: "/keys/ca 1%.pem"},
		{Authorities: "/keys/ca:/b.pem"},
	} {
		name := f.Name()
		if other, there := names[name]; there {
			t.Errorf("%+v and %+v are both %s", f, other, name)
		}
		names[name] = f
		if got, ok := proxy.ParseTLSFiles(name); !ok || got != f {
			t.Errorf("%s is read as %+v, %v", name, got, ok)
		}
	}
	for _, name := range []string{
		"", "spiffe://test.example", "spiffe://test.example/shop/web", "file-certificate:", "file-certificate:/a", "file-certificate:/a:", "file-certificate:/a:/b:/c",
		"file-authorities:", "file-authorities:a", "file-authorities:/a/../b", "file-authorities:/", "file-authorities:/a//b", "file-authorities:/a\n", "file-authorities:/a%", "file-authorities:/%41",
		"file-authorities:/" + strings.Repeat("a", 255), "file-certificate:/a:b", "file-certificate:/a/:/b",
	} {
		if f, ok := proxy.ParseTLSFiles(name); ok {
			t.Errorf("%q is read as %+v", name, f)
		}
	}
}

func FuzzTLSFiles(f *testing.F) {
	f.Add("file-certificate:/keys/a%3A.pem:/keys/a.key")
	f.Add("file-authorities:/keys/%25.pem")
	f.Fuzz(func(t *testing.T, name string) {
		if got, ok := proxy.ParseTLSFiles(name); ok && got.Name() != name {
			t.Errorf("%q is read as %+v, which is %q", name, got, got.Name())
		}
	})
}
