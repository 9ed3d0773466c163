package signer_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/api"
	"signet.example/ca"
	"signet.example/identity"
	"signet.example/server/signer"
	"signet.example/test/parts"
)

var signerTD = spiffeid.RequireTrustDomainFromString("mesh.example")

// signerFiles makes an authority and its password file once for all tests here.
var signerFiles = sync.OnceValues(func() (files map[string][]byte, err error) {
	parent, err := os.MkdirTemp("", "signer")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(parent) }()
	dir := filepath.Join(parent, "ca")
	if err := ca.Init(dir, signerTD, []byte("secret"), time.Now()); err != nil {
		return nil, err
	}
	files = map[string][]byte{"password": []byte("secret\n")}
	for _, name := range []string{"root.key", "root.crt", "root-set", "issuing.pem", "issuance.log"} {
		if files["ca/"+name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	files["ca/issuing.pem"], err = parts.FastKey(files["ca/issuing.pem"], []byte("secret")) // deciphered once
	return files, err
})

func signerDir(t *testing.T) string {
	t.Helper()
	files, err := signerFiles()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "ca"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func startSigner(t *testing.T, dir string) (*signer.Process, error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"signer", "--data-dir", dir, "--password-file", filepath.Join(dir, "password")}
	p, err := signer.Start(t.Context(), exe, args, signer.Options{})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = p.Close() }) // some tests close it themselves
	return p, nil
}

func signItem(t *testing.T, path string) *api.SignItem {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return &api.SignItem{
		SpiffeId: signerTD.IDString() + path, Csr: csr, Lifetime: durationpb.New(time.Minute),
		Profile: api.Profile_PROFILE_WORKLOAD, Requester: "server",
	}
}

func TestTheSignerIssuesRecordsAndTells(t *testing.T) {
	p, err := startSigner(t, signerDir(t))
	if err != nil {
		t.Fatal(err)
	}
	a, err := p.Client().Authority(t.Context(), &api.AuthorityRequest{})
	if err != nil || a.GetTrustDomain() != "mesh.example" || len(a.GetLogOrigin()) != 32 {
		t.Fatalf("authority %v, %v", a, err)
	}
	stranger := signItem(t, "/a")
	stranger.SpiffeId = "spiffe://other.example/a"
	nonsense := signItem(t, "/a")
	nonsense.SpiffeId = "no id"
	resp, err := p.Client().Issue(t.Context(), &api.SignRequest{Items: []*api.SignItem{signItem(t, "/shop/web"), stranger, nonsense, signItem(t, "/shop/db")}})
	if err != nil {
		t.Fatal(err)
	}
	set, err := identity.ParseRootSet(a.GetSignedRootSet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for n, r := range resp.GetResults() {
		if good := n == 0 || n == 3; good != (r.GetError() == "") || good == r.GetInvalid() {
			t.Fatalf("result %d: %v", n, r)
		} else if !good {
			continue
		}
		var chain []*x509.Certificate
		for _, der := range r.GetChain() {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			chain = append(chain, c)
		}
		if _, err := identity.VerifyChain(chain, signerTD, set.Pool(), time.Now(), x509.ExtKeyUsageServerAuth); err != nil {
			t.Error(err)
		}
	}
	if kinds := readKinds(t, p, 3); kinds != "reserved reserved issued issued" {
		t.Errorf("records from 3 on: %s", kinds)
	}
}

func readKinds(t *testing.T, p *signer.Process, from uint64) string {
	t.Helper()
	var kinds []string
	err := p.Client().ReadLog(t.Context(), from, false, func(r *api.LogRecord) error {
		kinds = append(kinds, r.GetKindName())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(kinds, " ")
}

func TestFollowingTheLogSeesWhatIsIssuedMeanwhile(t *testing.T) {
	p, err := startSigner(t, signerDir(t))
	if err != nil {
		t.Fatal(err)
	}
	issue := func() error {
		_, err := p.Client().Issue(t.Context(), &api.SignRequest{Items: []*api.SignItem{signItem(t, "/shop/web")}})
		return err
	}
	if err := issue(); err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	seen := uint64(0)
	err = p.Client().ReadLog(t.Context(), 1, true, func(r *api.LogRecord) error {
		if seen++; r.GetSequence() != seen {
			t.Errorf("record %v is the %d.", r, seen)
		}
		switch seen {
		case 4: // all that there is so far: two of the authority, two of the certificate
			return issue()
		case 6:
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}

func TestAKilledSignerIsStartedAgain(t *testing.T) {
	p, err := startSigner(t, signerDir(t))
	if err != nil {
		t.Fatal(err)
	}
	first := p.PID()
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	refused := false
	deadline := time.Now().Add(time.Minute) // a ceiling, not a figure
	for n := 0; ; n++ {
		resp, err := p.Client().Issue(t.Context(), &api.SignRequest{Items: []*api.SignItem{signItem(t, fmt.Sprintf("/shop/w%d", n))}})
		if err == nil && resp.GetResults()[0].GetError() == "" && p.PID() != first {
			break
		}
		if err != nil {
			refused = true
			if status.Code(err) != codes.Unavailable || !strings.Contains(status.Convert(err).Message(), "the signer") {
				t.Fatalf("meanwhile: %v", err)
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("not started again")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if !refused || p.Restarts() != 1 {
		t.Errorf("refused %t, %d restarts", refused, p.Restarts())
	}
}

func TestCloseEndsTheSigner(t *testing.T) {
	p, err := startSigner(t, signerDir(t))
	if err != nil {
		t.Fatal(err)
	}
	pid := p.PID()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there: %v", pid, err)
	}
	_, err = p.Client().Authority(t.Context(), &api.AuthorityRequest{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("after Close: %v", err)
	}
}

func TestASignerThatCannotStartSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(dir string) error
		want  string
	}{
		"wrong password":    {func(dir string) error { return os.WriteFile(filepath.Join(dir, "password"), []byte("x\n"), 0o600) }, "wrong password"},
		"no authority":      {func(dir string) error { return os.RemoveAll(filepath.Join(dir, "ca")) }, "must already exist"},
		"password for all":  {func(dir string) error { return os.Chmod(filepath.Join(dir, "password"), 0o644) }, "lets others in"},
		"an empty password": {func(dir string) error { return os.WriteFile(filepath.Join(dir, "password"), nil, 0o600) }, "empty"},
		"a log with a bit off": {func(dir string) error {
			path := ca.LogPath(filepath.Join(dir, "ca"))
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content[10] ^= 1
			return os.WriteFile(path, content, 0o600)
		}, "corrupt"},
	} {
		dir := signerDir(t)
		if err := c.spoil(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := startSigner(t, dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestASignerThatStartsSlowlyIsWaitedFor(t *testing.T) {
	delay := "0.3"
	if os.Getenv("SOAK") == "1" {
		delay = "25" // longer than gRPC waits for a connection by itself
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := signerDir(t)
	args := []string{"-c", "sleep " + delay + `; exec "$0" "$@"`, exe, "signer", "--data-dir", dir, "--password-file", filepath.Join(dir, "password")}
	p, err := signer.Start(t.Context(), "/bin/sh", args, signer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestTheSignerIsNotDumpable(t *testing.T) {
	p, err := startSigner(t, signerDir(t))
	if err != nil {
		t.Fatal(err)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if strings.HasPrefix(line, "Max core file size") && strings.Fields(line)[4] != "0" {
			t.Errorf("%s", line)
		}
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID()))
	if err != nil || strings.Contains(string(cmdline), "secret") {
		t.Errorf("command line %q, %v", cmdline, err)
	}
}
