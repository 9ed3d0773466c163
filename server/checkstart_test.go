package server_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"signet.example/server"
)

// TestACheckTriesWhatAStartOfTheServerTries spoils one thing at a time, and looks
// whether --check names it.
func TestACheckTriesWhatAStartOfTheServerTries(t *testing.T) {
	src, err := made()
	if err != nil {
		t.Fatal(err)
	}
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() }) // the cases run after this function has returned
	for name, c := range map[string]struct {
		spoil func(dir string, c *server.Config) error
		want  string
	}{
		"nothing":   {func(string, *server.Config) error { return nil }, ""},
		"no folder": {func(dir string, _ *server.Config) error { return os.RemoveAll(dir) }, "signet init"},
		"no store":  {func(dir string, _ *server.Config) error { return os.Remove(filepath.Join(dir, "store.db")) }, "store.db"},
		"no CA":     {func(dir string, _ *server.Config) error { return os.RemoveAll(filepath.Join(dir, "ca")) }, "no CA in"},
		"another password": {func(dir string, _ *server.Config) error {
			return os.WriteFile(filepath.Join(dir, "password"), []byte("guessed\n"), 0o600)
		}, "issuing.pem"},
		"a log that was changed": {func(dir string, _ *server.Config) error { return changeByte(filepath.Join(dir, "ca", "issuance.log")) }, "issuance.log"},
		"another trust domain":   {func(_ string, c *server.Config) error { c.TrustDomain = "other.example"; return nil }, `"other.example" here`},
		"a port in use and a foreign address": {func(_ string, c *server.Config) error {
			c.Listen, c.Metrics = "192.0.2.1:0", taken.Addr().String()
			return nil
		}, "metrics: "},
		"no folder of the socket": {func(dir string, c *server.Config) error {
			c.AdminSocket = filepath.Join(dir, "missing", "admin.sock")
			return nil
		}, "missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(shortDir(t), "d")
			if err := os.CopyFS(dir, os.DirFS(src)); err != nil {
				t.Fatal(err)
			}
			tighten(t, dir)
			cfg := server.Config{DataDir: dir, Listen: "127.0.0.1:0", Metrics: "127.0.0.1:0"}
			if err := c.spoil(dir, &cfg); err != nil {
				t.Fatal(err)
			}
			before := tree(t, dir)
			err := server.Check(t.Context(), cfg)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("want %q: %v", c.want, err)
			}
			if after := tree(t, dir); after != before {
				t.Errorf("a check left\n%s, and there was\n%s", after, before)
			}
		})
	}
}

// changeByte changes a file in its middle.
func changeByte(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	content[len(content)/2] ^= 1
	return os.WriteFile(path, content, 0o600)
}

// tree lists the files of a folder with when they were changed.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	_ = filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error { // a missing folder is an empty list
		if err == nil && !fi.IsDir() {
			b.WriteString(strings.TrimPrefix(p, dir) + " " + fi.ModTime().String() + "\n")
		}
		return nil
	})
	return b.String()
}
