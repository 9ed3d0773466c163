package signer_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"signet.example/server/signer"
)

func TestACAIsWhereItsSignerHasItOrNothingIsReached(t *testing.T) {
	empty, with := t.TempDir(), t.TempDir()
	if err := os.Mkdir(signer.Folder(with).CA(), 0o700); err != nil {
		t.Fatal(err)
	}
	password := t.TempDir()
	if err := os.WriteFile(signer.Folder(password).Password(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	socket := "unix:" + filepath.Join(t.TempDir(), "s")
	for name, c := range map[string]struct {
		where signer.Where
		want  string
	}{
		"a child without a CA":                  {signer.Where{DataDir: empty}, "no CA in"},
		"a child with one":                      {signer.Where{DataDir: with}, ""},
		"a service":                             {signer.Where{DataDir: empty, Socket: socket}, ""},
		"a service, and a CA beside the server": {signer.Where{DataDir: with, Socket: socket}, "and nowhere else"},
		"a service, and a password":             {signer.Where{DataDir: password, Socket: socket}, "and nowhere else"},
	} {
		err := c.where.Placed()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
		if c.want == "" {
			continue
		}
		if reached, err := c.where.Reach(t.Context(), slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s was reached", name)
			_ = reached.Close()
		}
	}
}
