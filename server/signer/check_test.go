package signer_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/ca"
	"signet.example/server/signer"
	"signet.example/test/parts"
)

// remade makes the authority anew, as long ago as its issuing certificate lives.
func remade(t *testing.T, dir string) error {
	t.Helper()
	password, err := os.ReadFile(filepath.Join(dir, "password"))
	return errors.Join(err, os.RemoveAll(filepath.Join(dir, "ca")),
		ca.Init(filepath.Join(dir, "ca"), spiffeid.RequireTrustDomainFromString("example.org"), bytes.TrimSpace(password), time.Now().Add(-8*24*time.Hour)))
}

// TestACheckTriesWhatAStartOfTheSignerTries is the same of `signet signer --check`.
func TestACheckTriesWhatAStartOfTheSignerTries(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(dir string, c *signer.Config) error
		want  string
	}{
		"nothing":            {func(string, *signer.Config) error { return nil }, ""},
		"a user that is not": {func(_ string, c *signer.Config) error { c.ServerUser = "nobody-of-that-name"; return nil }, "server_user: "},
		"a key that others read": {func(dir string, _ *signer.Config) error {
			return os.Chmod(filepath.Join(dir, "ca", "issuing.pem"), 0o644)
		}, "chmod go-r"},
		"another password": {func(dir string, _ *signer.Config) error {
			return os.WriteFile(filepath.Join(dir, "password"), []byte("guessed\n"), 0o600)
		}, "issuing.pem"},
		"no log": {func(dir string, _ *signer.Config) error {
			return os.Remove(filepath.Join(dir, "ca", "issuance.log"))
		}, "issuance.log"},
		"an issuing certificate that has ended": {func(dir string, _ *signer.Config) error { return remade(t, dir) }, ""}, // a start renews it
		"an issuing certificate that has ended, its root elsewhere": {func(dir string, _ *signer.Config) error {
			return errors.Join(remade(t, dir), os.Remove(filepath.Join(dir, "ca", "root.key")))
		}, "the issuing certificate ended at "},
		"a root elsewhere": {func(dir string, _ *signer.Config) error { return os.Remove(filepath.Join(dir, "ca", "root.key")) }, ""},
		"a log that was changed": {func(dir string, _ *signer.Config) error {
			return parts.SpoilByte(filepath.Join(dir, "ca", "issuance.log"))
		}, "issuance.log"},
		"a log without its end": {func(dir string, _ *signer.Config) error {
			return parts.WriteLogMark(filepath.Join(dir, "ca", "issuance.mark"), 8)
		}, "ends at record 0, and had record 8"},
		"a mark that is damaged": {func(dir string, _ *signer.Config) error {
			return os.WriteFile(filepath.Join(dir, "ca", "issuance.mark"), make([]byte, 8192), 0o600)
		}, "issuance.mark"},
		"a file in the socket's place": {func(_ string, c *signer.Config) error { return os.WriteFile(c.Listen, nil, 0o600) }, "is not a socket"},
		"no folder of the socket": {func(dir string, c *signer.Config) error {
			c.Listen = filepath.Join(dir, "missing", "s.sock")
			return nil
		}, "missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(shortDir(t), "d")
			if err := os.Rename(signerDir(t), dir); err != nil {
				t.Fatal(err)
			}
			cfg := signer.Config{DataDir: dir, Listen: filepath.Join(dir, "s.sock"), ServerUser: "4000000"}
			if err := c.spoil(dir, &cfg); err != nil {
				t.Fatal(err)
			}
			before := parts.Tree(t, dir)
			err := signer.Check(t.Context(), cfg)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("want %q: %v", c.want, err)
			}
			if after := parts.Tree(t, dir); after != before {
				t.Errorf("a check left\n%s, and there was\n%s", after, before)
			}
		})
	}
}
