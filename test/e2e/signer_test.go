package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"signet.example/api"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// Two users that nobody else is, and a third.
const (
	signerUID   = 65001
	serverUID   = 65002
	strangerUID = 65003
)

// startParted runs a mesh whose server and signer have users of their own.
func startParted(t *testing.T, opts meshtest.Options) *meshtest.World {
	t.Helper()
	if uid() != 0 {
		parts.Missing(t, "processes of several users need root")
	}
	opts.SignerUID, opts.ServerUID = signerUID, serverUID
	// git refuses repositories of other users, and this is not about policies.
	opts.Policy = map[string]string{"none": ""}
	return meshtest.Start(t, opts)
}

func TestTheServersUserGetsNothingButTheSignersAPI(t *testing.T) {
	w := startParted(t, meshtest.Options{Nodes: []string{"front"}, Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", ""))})
	if out, _ := w.CLI("check"); strings.Contains(out, "SIG018") {
		t.Errorf("check:\n%s", out)
	}
	// The server's own folder has nothing of the CA, and its user cannot get at the signer's.
	for _, name := range []string{"ca", "password"} {
		if _, err := os.Lstat(filepath.Join(w.ServerDir(), name)); !os.IsNotExist(err) {
			t.Errorf("the server's folder has %s: %v", name, err)
		}
	}
	ca := filepath.Join(w.SignerDir(), "ca")
	secrets := []string{ca, filepath.Join(w.SignerDir(), "password"), fmt.Sprintf("/proc/%d/mem", w.Signer.PID())}
	files, err := os.ReadDir(ca)
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files in %s: %v", len(files), ca, err)
	}
	for _, f := range files {
		secrets = append(secrets, filepath.Join(ca, f.Name()))
	}
	var questions []question
	for _, path := range secrets {
		questions = append(questions, question{Do: "open", Socket: path})
	}
	for i, a := range askAs(t, serverUID, questions...) {
		if a.Code != os.ErrPermission.Error() {
			t.Errorf("the server's user opens %s: %+v", secrets[i], a)
		}
	}
	// What is asked can be opened at all; but the memory, not even by the signer's own user: it is not dumpable.
	for i, a := range askAs(t, signerUID, questions[:3]...) {
		if want := []string{"OK", "OK", os.ErrPermission.Error()}[i]; a.Code != want {
			t.Errorf("the signer's user opens %s: %+v, want %s", secrets[i], a, want)
		}
	}
	// On the signer's socket there is one service, for one user.
	sign, other := question{Do: "sign", Socket: w.SignerSocket(), Times: 1}, question{Do: "admin", Socket: w.SignerSocket()}
	if a := askAs(t, serverUID, sign, other); a[0].Code != "OK" || a[1].Code != codes.Unimplemented.String() {
		t.Errorf("the server's user: %+v", a)
	}
	for _, uid := range []uint32{strangerUID, signerUID} {
		if a := askAs(t, uid, sign); a[0].Code != codes.Unavailable.String() || len(a[0].Names) > 0 {
			t.Errorf("uid %d: %+v", uid, a)
		}
	}
	if log := w.Signer.Tail(1 << 16); !strings.Contains(log, fmt.Sprintf("uid=%d", strangerUID)) {
		t.Errorf("the signer's log does not tell who was refused:\n%s", log)
	}
}

func TestACompromisedServerObtainsNoUnrecordedCertificate(t *testing.T) {
	w := startParted(t, meshtest.Options{NoAgent: true})
	var received []string
	for range meshtest.Soak(3, 30) {
		obtained := make(chan told, 1)
		before := len(issued(t, w.SignerDir()))
		go func() { // as the server's user, past the server, until the signer is gone
			obtained <- askAs(t, serverUID, question{Do: "sign", Socket: w.SignerSocket(), Times: 1 << 20})[0]
		}()
		eventually(t, 20*time.Second, "the hostile client gets certificates", func() bool { return len(issued(t, w.SignerDir())) > before+20 })
		w.Signer.Kill()
		a := <-obtained
		if len(a.Names) == 0 {
			t.Fatalf("nothing was obtained: nothing was tested: %+v", a)
		}
		received = append(received, a.Names...)
		w.StartSigner()
		eventually(t, 20*time.Second, "the signer is back", func() bool {
			return askAs(t, serverUID, question{Do: "sign", Socket: w.SignerSocket(), Times: 1})[0].Code == "OK"
		})
	}
	recorded := issued(t, w.SignerDir())
	for _, serial := range received {
		if !recorded[serial] {
			t.Errorf("certificate %s has no record", serial)
		}
	}
	t.Logf("%d certificates obtained past the server, %d recorded", len(received), len(recorded))
}

func TestIssuanceResumesWhenTheSignerIsBack(t *testing.T) {
	w := startParted(t, meshtest.Options{NoAgent: true, Manifests: "apiVersion: signet.example/v1alpha1\nkind: Entry\nmetadata: {name: app}\nspec: {group: hosts, spiffeID: \"spiffe://test.example/app\", selectors: [\"unix:uid:1\"]}\n"})
	h := w.JoinHost()
	issue := func() error {
		_, err := h.Issue(t.Context(), "app", meshtest.CSR(t, meshtest.Key(t)))
		return err
	}
	if err := issue(); err != nil {
		t.Fatal(err)
	}
	w.Signer.Kill()
	eventually(t, 5*time.Second, "issuance fails", func() bool { return issue() != nil })
	began := time.Now()
	if err := issue(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no answer from the signer") {
		t.Errorf("without a signer: %v", err)
	}
	if d := time.Since(began); d > 2*time.Second { // far below any timeout of ours
		t.Errorf("without a signer issuance fails after %s", d)
	}
	// The server serves on, and says what is wrong.
	w.Apply(meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("late", "")))
	if out, code := w.CLI("check"); code != 3 || !strings.Contains(out, "SIG017") {
		t.Errorf("check: exit %d\n%s", code, out)
	}
	w.StartSigner()
	took := eventually(t, 20*time.Second, "issuance resumes", func() bool { return issue() == nil })
	t.Logf("%s from the signer's start to the first certificate", took)
}

// issued are the serials of certificates that the log's file has as issued. The
// file is read, not asked for: neither server nor signer could hide anything.
func issued(t *testing.T, signerDir string) map[string]bool {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(signerDir, "ca", "issuance.log"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for line := range bytes.Lines(content) {
		if !bytes.Contains(line, []byte(`"issued"`)) {
			continue
		}
		_, rest, _ := strings.Cut(string(line), `"serial":"`)
		serial, _, _ := strings.Cut(rest, `"`)
		out[serial] = true
	}
	return out
}

// sign orders certificates of the signer itself, as whoever got into the server
// would, and tells the serials of those that came.
func (q question) sign(ctx context.Context, conn *grpc.ClientConn, out *told) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	item := &api.SignItem{SpiffeId: "spiffe://test.example/stolen", Csr: csr, Profile: api.Profile_PROFILE_WORKLOAD, Requester: "server", Lifetime: durationpb.New(time.Minute)}
	for range q.Times {
		answer, err := api.NewSignerClient(conn).Issue(ctx, &api.SignRequest{Items: slices.Repeat([]*api.SignItem{item}, 4)})
		if err != nil {
			return err
		}
		for _, r := range answer.GetResults() {
			if r.GetError() != "" {
				return fmt.Errorf("refused: %s", r.GetError())
			}
			leaf, err := x509.ParseCertificate(r.GetChain()[0])
			if err != nil {
				return err
			}
			out.Names = append(out.Names, meshtest.SerialText(leaf.SerialNumber))
		}
	}
	out.Code = codes.OK.String()
	return nil
}
