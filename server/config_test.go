package server_test

import (
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"signet.example/server"
)

func TestTheDefaultsAreAValidConfiguration(t *testing.T) {
	c := server.DefaultConfig()
	c.DataDir = "/srv/signet"
	c = c.Complete()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	if c.AdminSocket != "/srv/signet/admin.sock" || c.Lifetimes.SVID != time.Hour || !strings.HasPrefix(c.Listen, "127.0.0.1:") || !strings.HasPrefix(c.Metrics, "127.0.0.1:") {
		t.Errorf("%+v", c)
	}
}

func TestAConfigurationFileIsReadStrictly(t *testing.T) {
	c := server.DefaultConfig()
	in := "data_dir: /d\nmetrics: \"\"\nlifetimes: {svid: 6s}\n"
	if err := yaml.UnmarshalWithOptions([]byte(in), &c, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if c = c.Complete(); c.Metrics != "" || c.Lifetimes.SVID != 6*time.Second || c.Lifetimes.Agent != time.Hour {
		t.Errorf("%+v", c)
	}
	if err := yaml.UnmarshalWithOptions([]byte("data_dirs: x\n"), &c, yaml.Strict()); err == nil {
		t.Error("an unknown key is accepted")
	}
}

func TestEveryMistakeOfAConfigurationIsNamed(t *testing.T) {
	c := server.Config{TrustDomain: "UPPER case", Listen: "nowhere", Metrics: "0.0.0.0:9464", Name: "a/b", Lifetimes: server.Lifetimes{SVID: time.Second}, RequirePostQuantum: []string{"shop", "a/b"}}
	err := c.Complete().Validate()
	for _, want := range []string{"data_dir", "trust_domain", "listen", "metrics", "name", "lifetimes.svid", "require_post_quantum[1]"} {
		if err == nil || !strings.Contains(err.Error(), want+":") {
			t.Errorf("%s is not named in %v", want, err)
		}
	}
}

func TestAnAddressOnWhichNothingCouldListenIsRefusedWithOneThatCould(t *testing.T) {
	for listen, says := range map[string]string{
		"nowhere": "missing port", "127.0.0.1": "missing port", "::1:8443": "too many colons", "127.0.0.1:": "is no port", "127.0.0.1:99999": "is no port", "127.0.0.1:-1": "is no port",
		"300.1.2.3:8443": "is no address", "127.1:8443": "is no address",
		":8443": "", "localhost:8443": "", "[::1]:8443": "", "0.0.0.0:0": "", "mesh.example:https": "",
	} {
		err := server.Config{DataDir: "/srv/signet", Listen: listen}.Complete().Validate()
		if (err == nil) != (says == "") || err != nil && (!strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "want ADDRESS:PORT")) {
			t.Errorf("%s: %v", listen, err)
		}
	}
}

func TestASignerElsewhereHasItsOwnPassword(t *testing.T) {
	c := server.Config{DataDir: "/srv/signet", Signer: "unix:/run/signet-signer/signer.sock", SignerUser: "signet-signer"}
	if c = c.Complete(); c.PasswordFile != "" || c.Validate() != nil {
		t.Errorf("%+v: %v", c, c.Validate())
	}
	for want, spoil := range map[string]func(*server.Config){
		"signer":               func(c *server.Config) { c.Signer = "unix:signer.sock" },
		"password_file":        func(c *server.Config) { c.PasswordFile = "/srv/signet/password" },
		"signer_user":          func(c *server.Config) { c.Signer = "" },
		"signer_user: missing": func(c *server.Config) { c.SignerUser = "" },
	} {
		bad := c
		spoil(&bad)
		if err := bad.Complete().Validate(); err == nil || !strings.HasPrefix(err.Error(), want+":") {
			t.Errorf("%s is not named in %v", want, err)
		}
	}
}

func TestInitPutsTheAuthorityElsewhere(t *testing.T) {
	dir := t.TempDir()
	cfg := server.InitConfig{TrustDomain: trustDomain, DataDir: filepath.Join(dir, "server"), SignerDir: filepath.Join(dir, "signer")}
	if err := server.Init(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{
		"server": 0o700, "server/store.db": 0o600, "signer": 0o700, "signer/ca": 0o700, "signer/ca/root.key": 0o600, "signer/password": 0o600,
	} {
		if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	if files, err := os.ReadDir(cfg.DataDir); err != nil || len(files) != 1 {
		t.Errorf("the server's folder has %v, %v", files, err)
	}
	// Without being told of the signer, the server has none; with its keys in reach, it takes no other.
	c := server.Config{DataDir: cfg.DataDir, Listen: "127.0.0.1:0"}
	if err := server.Run(t.Context(), c, testLog(t)); err == nil || !strings.Contains(err.Error(), "--signer") {
		t.Errorf("no signer: %v", err)
	}
	c = server.Config{DataDir: cfg.SignerDir, Listen: "127.0.0.1:0", Signer: "unix:" + filepath.Join(dir, "s.sock"), SignerUser: "0"}
	if err := server.Run(t.Context(), c, testLog(t)); err == nil || !strings.Contains(err.Error(), "belongs into the signer's folder") {
		t.Errorf("keys in reach: %v", err)
	}
}

func TestInitRefusesWhatExists(t *testing.T) {
	src, err := made()
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(src, "password"))
	if err != nil {
		t.Fatal(err)
	}
	err = server.Init(t.Context(), server.InitConfig{TrustDomain: "other.example", DataDir: src})
	if err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("%v", err)
	}
	if after, err := os.ReadFile(filepath.Join(src, "password")); err != nil || string(after) != string(before) {
		t.Errorf("the password changed: %v", err)
	}
}

func TestTwoServersDoNotShareADataDirectory(t *testing.T) {
	r := newRig(t)
	if err := runInProcess(t.Context(), r.cfg, testLog(t)); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("%v", err)
	}
}

func TestAServerStoppedWhileItStartsHasNotFailed(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := server.ServeStopped(l); err != nil {
		t.Error(err)
	}
}

func TestTheServerKeepsItsSignerInAProcessOfItsOwn(t *testing.T) {
	r := newRigWith(t, server.Run)
	r.apply(registry)
	h := r.join("front")
	if res, err := h.issue("job"); err != nil || res[0].GetError() != "" {
		t.Fatalf("%v, %v", res, err)
	}
	if n := len(r.certs(true)); n != 3 { // the server's, the agent's, the job's
		t.Errorf("the log has %d certificates", n)
	}
	r.halt()
	r.start()
	if err := h.attest(""); err != nil {
		t.Error(err)
	}
}

func TestInitConfinesURIsOnlyWhereThatWasChosen(t *testing.T) {
	asked := t.TempDir()
	if err := server.Init(t.Context(), server.InitConfig{TrustDomain: trustDomain, DataDir: asked, ConfineURIs: true}); err != nil {
		t.Fatal(err)
	}
	other, err := made()
	if err != nil {
		t.Fatal(err)
	}
	for dir, confined := range map[string]bool{other: false, asked: true} {
		content, err := os.ReadFile(filepath.Join(dir, "ca", "root.crt"))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(content)
		root, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(root.PermittedURIDomains) > 0; got != confined {
			t.Errorf("asked for %t: URIs %q", confined, root.PermittedURIDomains)
		}
	}
}
