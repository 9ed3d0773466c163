package server_test

import (
	"bytes"
	"database/sql"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"signet.example/internal/durable"
	"signet.example/server"
	"signet.example/store"
	"signet.example/test/parts"
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
		"a log that was changed": {func(dir string, _ *server.Config) error {
			return parts.SpoilByte(filepath.Join(dir, "ca", "issuance.log"))
		}, "issuance.log"},
		"a log without its end": {func(dir string, _ *server.Config) error {
			return parts.WriteLogMark(filepath.Join(dir, "ca", "issuance.mark"), 8)
		}, "ends at record 0, and had record 8"},
		"a mark that is damaged": {func(dir string, _ *server.Config) error {
			return os.WriteFile(filepath.Join(dir, "ca", "issuance.mark"), make([]byte, 8192), 0o600)
		}, "issuance.mark"},
		"a log that lacks what the store has seen": {func(dir string, _ *server.Config) error { return seen(t, dir, 1000) }, "--accept-log 0-1000-"},
		"a store that is no store": {func(dir string, _ *server.Config) error {
			return os.WriteFile(filepath.Join(dir, "store.db"), bytes.Repeat([]byte("no store"), 1024), 0o600)
		}, "store.db"},
		"a store that is damaged": {func(dir string, _ *server.Config) error { return damage(filepath.Join(dir, "store.db")) }, "store.db"},
		"a newer store": {func(dir string, _ *server.Config) error {
			return sqlOf(t, filepath.Join(dir, "store.db"), "PRAGMA user_version = 1000")
		}, "schema 1000 is newer"},
		"another trust domain": {func(_ string, c *server.Config) error { c.TrustDomain = "other.example"; return nil }, `"other.example" here`},
		"a port in use and a foreign address": {func(_ string, c *server.Config) error {
			c.Listen, c.Metrics = "192.0.2.1:0", taken.Addr().String()
			return nil
		}, "metrics: "},
		"an address that is none beside a server that runs": {func(dir string, c *server.Config) error {
			c.Listen, c.Metrics = "192.0.2.1:0", taken.Addr().String()
			return runs(t, dir)
		}, "listen: "},
		"a port in use beside a server that runs": {func(dir string, c *server.Config) error {
			c.Listen = taken.Addr().String() // its own
			return runs(t, dir)
		}, ""},
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
			before := parts.Tree(t, dir)
			err := server.Check(t.Context(), cfg)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("want %q: %v", c.want, err)
			}
			if after := parts.Tree(t, dir); after != before {
				t.Errorf("a check left\n%s, and there was\n%s", after, before)
			}
		})
	}
}

// TestACheckOfAKilledServersStoreSeesItsNewestCommits and changes no file of it.
func TestACheckOfAKilledServersStoreSeesItsNewestCommits(t *testing.T) {
	src, err := made()
	if err != nil {
		t.Fatal(err)
	}
	live, dir := filepath.Join(shortDir(t), "l"), filepath.Join(shortDir(t), "d")
	if err := os.CopyFS(live, os.DirFS(src)); err != nil {
		t.Fatal(err)
	}
	tighten(t, live)
	s, err := store.Open(t.Context(), filepath.Join(live, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PutLogMark(t.Context(), store.LogMark{Sequence: 1000, Hash: make([]byte, 32)}); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(live)); err != nil { // as a kill leaves them
		t.Fatal(err)
	}
	tighten(t, dir)
	for what, at := range map[string]string{"runs": live, "was killed": dir} {
		before := parts.Tree(t, at)
		err := server.Check(t.Context(), server.Config{DataDir: at, Listen: "127.0.0.1:0", Metrics: "127.0.0.1:0"})
		if err == nil || !strings.Contains(err.Error(), "--accept-log 0-1000-") {
			t.Errorf("a server %s: %v", what, err)
		}
		if after := parts.Tree(t, at); after != before {
			t.Errorf("a check left\n%s, and there was\n%s", after, before)
		}
		accepted := server.Config{DataDir: at, Listen: "127.0.0.1:0", Metrics: "127.0.0.1:0"}
		if err != nil && acceptCode.MatchString(err.Error()) {
			accepted.AcceptLog = acceptCode.FindStringSubmatch(err.Error())[1]
			if err := server.Check(t.Context(), accepted); err != nil {
				t.Errorf("accepted: %v", err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// runs has a server run with a data directory, as far as others see that.
func runs(t *testing.T, dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	t.Cleanup(func() { _ = f.Close() })
	return durable.Lock(f)
}

// seen has the store of a data directory say that it has seen a record.
func seen(t *testing.T, dir string, sequence uint64) error {
	s, err := store.Open(t.Context(), filepath.Join(dir, "store.db"))
	if err != nil {
		return err
	}
	return errors.Join(s.PutLogMark(t.Context(), store.LogMark{Sequence: sequence, Hash: make([]byte, 32)}), s.Close())
}

func sqlOf(t *testing.T, path, statement string) error {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(t.Context(), statement)
	return errors.Join(err, db.Close())
}

// damage writes over all but the first page of a database.
func damage(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for i := 4096; i < len(content); i++ {
		content[i] = 0xa5
	}
	return os.WriteFile(path, content, 0o600)
}
