package repo_test

import (
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"signet.example/policy/repo"
	"signet.example/test/parts"
)

func newSSHKey(t *testing.T) (ed25519.PrivateKey, ssh.Signer) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, s
}

// serveSSH runs git upload-pack of one repository for who has the key.
func serveSSH(t *testing.T, dir string, host ssh.Signer, user ssh.PublicKey) (address string) {
	t.Helper()
	git := parts.Program(t, "git")
	cfg := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if string(key.Marshal()) != string(user.Marshal()) {
			return nil, fmt.Errorf("no")
		}
		return &ssh.Permissions{}, nil
	}}
	cfg.AddHostKey(host)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	serve := func(c net.Conn) {
		defer func() { _ = c.Close() }()
		_, channels, requests, err := ssh.NewServerConn(c, cfg)
		if err != nil {
			return
		}
		serving.Go(func() { ssh.DiscardRequests(requests) })
		for open := range channels {
			ch, asked, err := open.Accept()
			if err != nil {
				return
			}
			for q := range asked {
				ok := q.Type == "exec" && strings.Contains(string(q.Payload), "git-upload-pack")
				_ = q.Reply(ok, nil)
				if !ok {
					continue
				}
				cmd := exec.CommandContext(t.Context(), git, "-c", "safe.directory=*", "upload-pack", dir)
				cmd.Stdout = ch
				in, err := cmd.StdinPipe()
				if err == nil {
					err = cmd.Start()
				}
				if err != nil {
					t.Error(err)
					return
				}
				serving.Go(func() {
					b := make([]byte, 4096)
					for {
						n, err := ch.Read(b)
						if _, err2 := in.Write(b[:n]); err != nil || err2 != nil {
							_ = in.Close()
							return
						}
					}
				})
				_ = cmd.Wait()
				_, _ = ch.SendRequest("exit-status", false, []byte{0, 0, 0, 0})
				_ = ch.Close()
			}
		}
	}
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serve(c) })
		}
	})
	return l.Addr().String()
}

func TestARepositoryIsReadOverSSHWithItsKeyAndKnownHost(t *testing.T) {
	r := newRepository(t)
	want := r.commit("main", r.tree(rego("a.rego", "package signet.authz")))
	_, host := newSSHKey(t)
	_, otherHost := newSSHKey(t)
	key, user := newSSHKey(t)
	other, _ := newSSHKey(t)
	address := serveSSH(t, r.dir, host, user.PublicKey())
	file := func(key ed25519.PrivateKey) []byte {
		block, err := ssh.MarshalPrivateKey(key, "")
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(block)
	}
	known := func(s ssh.Signer) string {
		hostName, port, _ := net.SplitHostPort(address)
		f := filepath.Join(t.TempDir(), "known")
		if err := os.WriteFile(f, fmt.Appendf(nil, "[%s]:%s %s", hostName, port, ssh.MarshalAuthorizedKey(s.PublicKey())), 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	src := r.source()
	src.URL = "ssh://git@" + address + "/p.git"
	tree, err := repo.Login{SSHKey: file(key), KnownHosts: known(host)}.Fetch(t.Context(), src, t.TempDir())
	if err != nil || tree.Commit != want.String() {
		t.Errorf("%s %v", tree.Commit, err)
	}
	for wanted, l := range map[string]repo.Login{
		"known_hosts_file":             {SSHKey: file(key), KnownHosts: known(otherHost)},
		"the host refuses the ssh_key": {SSHKey: file(other), KnownHosts: known(host)},
	} {
		if _, err := l.Resolve(t.Context(), src); err == nil || !strings.Contains(err.Error(), wanted) {
			t.Errorf("want %q: %v", wanted, err)
		}
	}
}
