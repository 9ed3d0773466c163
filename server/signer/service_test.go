package signer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/server/signer"
	"signet.example/test/parts"
)

func self() uint32 { return uint32(os.Getuid()) } //nolint:gosec // uids are small

// another is the uid of somebody else.
func another() uint32 { return self() + 60000 }

// shortDir is a folder whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "signer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// TestASignerWhoseFilesOthersCouldReachDoesNotStart spoils one thing at a time.
func TestASignerWhoseFilesOthersCouldReachDoesNotStart(t *testing.T) {
	mode := func(m os.FileMode, path ...string) func(string) error {
		return func(dir string) error { return os.Chmod(filepath.Join(append([]string{dir}, path...)...), m) }
	}
	grouped := func(m os.FileMode, path ...string) func(string) error {
		return func(dir string) error {
			at := filepath.Join(append([]string{dir}, path...)...)
			return errors.Join(os.Chown(at, -1, int(another())), os.Chmod(at, m))
		}
	}
	given := func(path ...string) func(string) error {
		return func(dir string) error {
			return os.Lchown(filepath.Join(append([]string{dir}, path...)...), int(another()), -1)
		}
	}
	for name, c := range map[string]struct {
		spoil func(dir string) error
		root  bool // only root can
		want  string
	}{
		"nothing":                        {func(string) error { return nil }, false, ""},
		"a folder that others may enter": {mode(0o755, "signer"), false, ""}, // what is in it is closed
		"a password for the group":       {mode(0o640, "signer", "password"), false, "password has mode 0640"},
		"keys for the group":             {mode(0o710, "signer", "ca"), false, "ca has mode 0710"},
		"a key for the group":            {mode(0o640, "signer", "ca", "issuing.pem"), false, "issuing.pem has mode 0640"},
		"a log for all":                  {mode(0o604, "signer", "ca", "issuance.log"), false, "issuance.log has mode 0604"},
		"a folder that a group changes":  {grouped(0o770, "signer"), true, "signer has mode 0770"},
		"a socket that all may replace":  {mode(0o777|os.ModeSticky, "run"), false, "run has mode 0777"},
		"no authority":                   {func(dir string) error { return os.RemoveAll(filepath.Join(dir, "signer", "ca")) }, false, "no such file"},
		"a key of the server's user":     {given("signer", "ca", "issuing.pem"), true, "issuing.pem belongs to"},
		"a folder of the server's user":  {given("signer"), true, "signer belongs to"},
		"a socket of the server's user":  {given("run"), true, "run belongs to"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.root && os.Getuid() != 0 {
				parts.Missing(t, "giving files away needs root")
			}
			dir := shortDir(t)
			if err := os.Rename(signerDir(t), filepath.Join(dir, "signer")); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(dir, "run"), 0o755); err != nil {
				t.Fatal(err)
			}
			cfg := signer.Config{DataDir: filepath.Join(dir, "signer"), Listen: filepath.Join(dir, "run", "s.sock")}
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			err := signer.Private(cfg, self(), another())
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("want %q: %v", c.want, err)
			}
		})
	}
}

func TestASignerOfTheServersOwnUserDoesNotStart(t *testing.T) {
	dir := signerDir(t)
	cfg := signer.Config{DataDir: dir, Listen: filepath.Join(dir, "s.sock")}
	for _, c := range []struct {
		own, server uint32
		want        string
	}{
		{1000, 0, "is root"},
		{0, 0, "is root"},
		{1000, 1000, "a user of its own"},
	} {
		if err := signer.Private(cfg, c.own, c.server); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("uid %d for uid %d: want %q: %v", c.own, c.server, c.want, err)
		}
	}
}

func TestALinkInASignersPathIsFollowed(t *testing.T) {
	dir, files := shortDir(t), signerDir(t)
	if err := os.Symlink(files, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	cfg := signer.Config{DataDir: filepath.Join(dir, "link"), Listen: filepath.Join(dir, "s.sock")}
	if err := signer.Private(cfg, self(), another()); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(filepath.Join(files, "ca", "issuing.pem"), 0o604); err != nil {
		t.Fatal(err)
	}
	if err := signer.Private(cfg, self(), another()); err == nil {
		t.Error("a key that others can read, behind a link, is taken")
	}
}

func TestTheSignersSocketIsForOneUser(t *testing.T) {
	path := filepath.Join(shortDir(t), "s.sock")
	inner, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l := signer.OnlyUser(inner, another())
	ended := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	for range 3 { // and goes on after each
		c, err := (&net.Dialer{}).DialContext(t.Context(), "unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second)) // a ceiling, not a figure
		if n, err := c.Read(make([]byte, 1)); err != io.EOF {   //nolint:errorlint // io.Reader says so
			t.Errorf("read %d, %v", n, err)
		}
		_ = c.Close()
	}
	_ = l.Close()
	if err := <-ended; err == nil {
		t.Error("a connection of another user was accepted")
	}
}

func TestAServerTakesOnlyTheSignersUser(t *testing.T) {
	for _, c := range []struct {
		expected string
		uid      uint32
		want     string
	}{
		{"", self(), "want a name"},
		{"", another(), "want a name"},
		{"", 0, "want a name"},
		{fmt.Sprint(another()), another(), ""},
		{fmt.Sprint(another()), another() + 1, "listens there and not"},
		{fmt.Sprint(self()), self(), "the server's own user"},
		{"nobody-has-this-name", another(), "is not in /etc/passwd"},
		{"4294967295", another(), "want a name"},
	} {
		err := signer.Expects(c.expected, c.uid)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q and uid %d: want %q: %v", c.expected, c.uid, c.want, err)
		}
	}
}

// lateSigner answers nothing but that it is there.
type lateSigner struct{ api.UnimplementedSignerServer }

func (lateSigner) Authority(context.Context, *api.AuthorityRequest) (*api.AuthorityResponse, error) {
	return &api.AuthorityResponse{}, nil
}

func TestACallWithoutASignerFailsAtOnceAndTheNextFindsIt(t *testing.T) {
	path := filepath.Join(shortDir(t), "s.sock")
	s, err := signer.DialAny("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for range 2 { // before the first start, and after an end
		if _, err := s.Client().Authority(t.Context(), &api.AuthorityRequest{}); status.Code(err) != codes.Unavailable ||
			!strings.Contains(err.Error(), "no answer from the signer at unix:"+path) {
			t.Errorf("nobody listens: %v", err)
		}
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
		if err != nil {
			t.Fatal(err)
		}
		g := grpc.NewServer()
		api.RegisterSignerServer(g, lateSigner{})
		done := make(chan error, 1)
		go func() { done <- g.Serve(l) }()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // a ceiling, not a figure
		if _, err := api.NewSignerClient(s).Authority(ctx, &api.AuthorityRequest{}, grpc.WaitForReady(true)); err != nil {
			t.Error(err)
		}
		cancel()
		g.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
