package server_test

import (
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
	if c.AdminSocket != "/srv/signet/admin.sock" || c.Lifetimes.SVID != time.Hour {
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
	c := server.Config{TrustDomain: "UPPER case", Listen: "nowhere", Metrics: "0.0.0.0:9464", Name: "a/b", Lifetimes: server.Lifetimes{SVID: time.Second}}
	err := c.Complete().Validate()
	for _, want := range []string{"data_dir", "trust_domain", "listen", "metrics", "name", "lifetimes.svid"} {
		if err == nil || !strings.Contains(err.Error(), want+":") {
			t.Errorf("%s is not named in %v", want, err)
		}
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
