package tlsfiles

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet.example/ads"
	"signet.example/proxy"
)

// pair is a certificate for a name with its key, in PEM.
func pair(t *testing.T, name string, key crypto.Signer, ends time.Time) (chain, keyPEM []byte) {
	t.Helper()
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: ends.Add(-200 * time.Hour), NotAfter: ends}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func write(t *testing.T, path string, content []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, content, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

// rig is a proxy with one folder, which the mesh calls /keys.
type rig struct {
	t   *testing.T
	dir string
	log bytes.Buffer
	*Files
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	if err := os.Chmod(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r.Files = New(func() []Dir { return []Dir{{Dir: r.dir, As: "/keys"}} }, slog.New(slog.NewTextHandler(&r.log, nil)))
	return r
}

func (r *rig) put(name string, content []byte, mode os.FileMode) {
	r.t.Helper()
	write(r.t, filepath.Join(r.dir, name), content, mode)
}

// now looks as often as it takes to be told of what stays wrong.
func (r *rig) now(files ...proxy.TLSFiles) (map[string]*ads.Resource, string) {
	r.t.Helper()
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	for range 2 {
		r.look(r.t.Context(), names, time.Now())
	}
	state, _ := r.Get()
	if !state.Tried(names) {
		r.t.Fatalf("tried %v of %v", state.Of, names)
	}
	has := map[string]*ads.Resource{}
	for _, s := range state.Secrets {
		has[s.Name] = s
	}
	return has, strings.Join(state.Problems, "\n")
}

var web = proxy.TLSFiles{Certificate: "/keys/web.pem", Key: "/keys/web.key"}

func TestWhatWasGoodStaysUntilTheFilesHaveSomethingGoodAgain(t *testing.T) {
	r := newRig(t)
	far := time.Now().Add(100 * time.Hour)
	if has, problem := r.now(web); len(has) > 0 || !strings.Contains(problem, "web.pem") || !strings.Contains(problem, "serves nobody") {
		t.Errorf("without files: %d secrets, %s", len(has), problem)
	}
	chain, key := pair(t, "web.example", newKey(t), far)
	r.put("web.pem", chain, 0o644)
	r.put("web.key", key, 0o600)
	has, problem := r.now(web)
	first := has[web.Name()]
	if first == nil || problem != "" || !bytes.Contains(first.Body, chain) {
		t.Fatalf("with files: %v, %s", first, problem)
	}

	next, nextKey := pair(t, "web.example", newKey(t), far)
	for name, spoil := range map[string]func(){
		"the certificate of another key": func() { r.put("web.pem", next, 0o644) },
		"half a certificate":             func() { r.put("web.pem", next[:len(next)/2], 0o644) },
		"an empty file":                  func() { r.put("web.pem", nil, 0o644) },
		"no key":                         func() { r.put("web.pem", chain, 0o644); _ = os.Remove(filepath.Join(r.dir, "web.key")) },
		"an encrypted key": func() {
			r.put("web.key", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}), 0o600)
		},
		"a certificate that has ended": func() {
			old, oldKey := pair(t, "web.example", newKey(t), time.Now().Add(-time.Minute))
			r.put("web.pem", old, 0o644)
			r.put("web.key", oldKey, 0o600)
		},
		"a key that is too short": func() {
			short, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // refused for that
			if err != nil {
				t.Fatal(err)
			}
			weak, weakKey := pair(t, "web.example", short, far)
			r.put("web.pem", weak, 0o644)
			r.put("web.key", weakKey, 0o600)
		},
	} {
		spoil()
		has, problem := r.now(web)
		if has[web.Name()] != first || !strings.Contains(problem, "what was read before is served still") {
			t.Errorf("%s: %q", name, problem)
		}
		r.put("web.pem", chain, 0o644)
		r.put("web.key", key, 0o600)
		if _, problem := r.now(web); problem != "" {
			t.Errorf("after %s: %s", name, problem)
		}
	}

	r.put("web.pem", next, 0o644)
	r.put("web.key", nextKey, 0o600)
	if has, problem := r.now(web); problem != "" || has[web.Name()] == first || !bytes.Contains(has[web.Name()].Body, next) {
		t.Errorf("the next: %s", problem)
	}
	soon, soonKey := pair(t, "web.example", newKey(t), time.Now().Add(time.Hour))
	r.put("web.pem", soon, 0o644)
	r.put("web.key", soonKey, 0o600)
	if has, problem := r.now(web); len(has) != 1 || !strings.Contains(problem, "ends at") {
		t.Errorf("one that ends soon: %s", problem)
	}
	for _, secret := range [][]byte{key, nextKey, soonKey} {
		line := strings.Split(string(secret), "\n")[1]
		if strings.Contains(r.log.String(), line) || strings.Contains(problem, line) {
			t.Error("a key is in the log")
		}
	}
}

func TestAMeshLeadsNobodyOutOfTheFoldersThatTheHostNames(t *testing.T) {
	r := newRig(t)
	chain, key := pair(t, "web.example", newKey(t), time.Now().Add(100*time.Hour))
	r.put("web.pem", chain, 0o644)
	r.put("web.key", key, 0o600)
	other := t.TempDir() // of another proxy
	write(t, filepath.Join(other, "web.key"), key, 0o600)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(r.dir, name) }
	must(os.Symlink(filepath.Join(other, "web.key"), at("away.key")))
	must(os.Symlink("../../../../../../../../"+filepath.Join(other, "web.key"), at("climbs.key")))
	must(os.Symlink(other, at("folder")))
	must(syscall.Mkfifo(at("pipe.key"), 0o600))
	must(os.Mkdir(at("dir.key"), 0o700))
	r.put("large.key", bytes.Repeat([]byte("x"), mostKey+1), 0o600)
	r.put("open.key", key, 0o644)
	r.put("group.key", key, 0o640)
	r.put("everybodys.pem", chain, 0o666)
	must(os.Symlink("/dev/zero", at("zero.key")))
	for files, want := range map[proxy.TLSFiles]string{
		{Certificate: "/keys/web.pem", Key: "/etc/shadow"}:                    "tls_dirs: [{dir: FOLDER, as: /etc}]",
		{Certificate: "/etc/passwd", Key: "/keys/web.key"}:                    "does not let this proxy have",
		{Authorities: "/etc/passwd"}:                                          "does not let this proxy have",
		{Certificate: "/keys/web.pem", Key: filepath.Join(other, "web.key")}:  "does not let this proxy have",
		{Certificate: "/keys/web.pem", Key: filepath.Join(r.dir, "web.key")}:  "does not let this proxy have", // the mesh knows it as /keys alone
		{Certificate: "/keys/web.pem", Key: "/keys2/web.key"}:                 "does not let this proxy have",
		{Certificate: "/keys/web.pem", Key: "/keys/away.key"}:                 "escapes",
		{Certificate: "/keys/web.pem", Key: "/keys/climbs.key"}:               "escapes",
		{Certificate: "/keys/web.pem", Key: "/keys/folder/web.key"}:           "escapes",
		{Certificate: "/keys/web.pem", Key: "/keys/zero.key"}:                 "escapes",
		{Certificate: "/keys/web.pem", Key: "/keys/pipe.key"}:                 "not a regular file",
		{Certificate: "/keys/web.pem", Key: "/keys/dir.key"}:                  "not a regular file",
		{Certificate: "/keys/web.pem", Key: "/keys/large.key"}:                "more than",
		{Certificate: "/keys/web.pem", Key: "/keys/open.key"}:                 "chmod",
		{Certificate: "/keys/web.pem", Key: "/keys/group.key"}:                "chmod",
		{Certificate: "/keys/everybodys.pem", Key: "/keys/web.key"}:           "chmod",
		{Certificate: "/keys/web.pem", Key: "/keys/web.pem"}:                  "chmod",
		{Certificate: "/keys/web.key", Key: "/keys/web.key"}:                  "no certificate",
		{Authorities: "/keys/web.key"}:                                        "no certificate",
		{Certificate: "/keys/web.pem", Key: "/keys/missing.key"}:              "no such file",
		{Certificate: "/keys/web.pem", Key: "/keys/web.key/../../etc/shadow"}: "names no files",
	} {
		began := time.Now()
		has, problem := r.now(files)
		if len(has) > 0 || !strings.Contains(problem, want) {
			t.Errorf("%s: %d secrets, %q, want %q", files, len(has), problem, want)
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("%s took %s", files, d)
		}
	}

	// As Kubernetes mounts a secret.
	must(os.Mkdir(at("..v1"), 0o700))
	must(os.Rename(at("web.pem"), at("..v1/tls.crt")))
	must(os.Rename(at("web.key"), at("..v1/tls.key")))
	must(os.Symlink("..v1", at("..data")))
	must(os.Symlink("..data/tls.crt", at("tls.crt")))
	must(os.Symlink("..data/tls.key", at("tls.key")))
	mounted := proxy.TLSFiles{Certificate: "/keys/tls.crt", Key: "/keys/tls.key"}
	if has, problem := r.now(mounted); has[mounted.Name()] == nil || problem != "" {
		t.Errorf("by links in the folder: %s", problem)
	}
	next, nextKey := pair(t, "web.example", newKey(t), time.Now().Add(100*time.Hour))
	must(os.Mkdir(at("..v2"), 0o700))
	r.put("..v2/tls.crt", next, 0o644)
	r.put("..v2/tls.key", nextKey, 0o600)
	must(os.Symlink("..v2", at("..next")))
	must(os.Rename(at("..next"), at("..data")))
	if has, problem := r.now(mounted); has[mounted.Name()] == nil || !bytes.Contains(has[mounted.Name()].Body, next) || problem != "" {
		t.Errorf("by another link: %s", problem)
	}
}

func TestAuthoritiesOfAFileAreTakenTogetherAndBounded(t *testing.T) {
	r := newRig(t)
	ca := proxy.TLSFiles{Authorities: "/keys/ca.pem"}
	good, key := pair(t, "one", newKey(t), time.Now().Add(100*time.Hour))
	old, _ := pair(t, "two", newKey(t), time.Now().Add(-time.Hour))
	r.put("ca.pem", []byte("a comment\n"+string(old)+string(good)+string(key)), 0o644)
	has, problem := r.now(ca)
	if s := has[ca.Name()]; s == nil || problem != "" || !bytes.Contains(s.Body, good) || !bytes.Contains(s.Body, old) || bytes.Contains(s.Body, []byte("PRIVATE")) {
		t.Errorf("%v: %s", s, problem)
	}
	r.put("ca.pem", old, 0o644)
	if again, problem := r.now(ca); again[ca.Name()] != has[ca.Name()] || !strings.Contains(problem, "no authority in it is good") {
		t.Errorf("none that is good: %s", problem)
	}
	r.put("ca.pem", bytes.Repeat(good, mostRoots+1), 0o644)
	if _, problem := r.now(ca); !strings.Contains(problem, fmt.Sprint("more than ", mostRoots)) {
		t.Errorf("many: %.200s", problem)
	}
}

func TestAFolderOfFilesIsNeitherTheWholeHostNorTheAgentsOwn(t *testing.T) {
	const data = "/var/lib/signet-agent"
	for dir, ok := range map[Dir]bool{
		{Dir: "/etc/web/tls"}: true, {Dir: "/srv/keys", As: "/keys"}: true,
		{}: false, {Dir: "/"}: false, {Dir: "keys"}: false, {Dir: "/etc/../keys"}: false, {Dir: "/keys/"}: false, {Dir: "/srv/keys", As: "keys"}: false, {Dir: "/srv/keys", As: "/"}: false,
		{Dir: "/var/lib"}: false, {Dir: data}: false, {Dir: data + "/x"}: false, {Dir: "/proc/self"}: false, {Dir: "/dev"}: false,
		{Dir: "/var/lib/signet-agent-keys"}: true,
	} {
		if err := dir.Validate(data); (err == nil) != ok {
			t.Errorf("%+v: %v", dir, err)
		}
	}
}
