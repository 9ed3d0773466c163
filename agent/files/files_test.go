package files

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet.example/identity"
	"signet.example/internal/child"
	"signet.example/internal/private"
	"signet.example/test/parts"
)

// self is this process's user, as a selector has it.
var self = strconv.FormatUint(uint64(private.Self()), 10)

// TestACredentialFolderIsWhatTheStandardAsks looks at every byte of it (SPIFFE Filesystem
// Delivery 2, 2.1 and 2.2).
func TestACredentialFolderIsWhatTheStandardAsks(t *testing.T) {
	r := newRig(t)
	r.told(entry("db", "postgres", self, 1))
	s := r.issue("db")
	r.once()
	if got := names(t, r.path("postgres")); got != ".signet credential-bundle.private-key.pem test.example.spiffe-trust-bundle.pem" {
		t.Fatalf("in the folder are %s", got)
	}
	leaf, err := read(r.path("postgres", bundleName), trustOf(r.root).Pool)
	if err != nil || !leaf.Equal(s.Leaf) {
		t.Fatalf("%v, %v", leaf, err)
	}
	content, err := os.ReadFile(r.path("postgres", bundleName))
	if err != nil {
		t.Fatal(err)
	}
	list, _ := blocks(content)
	if len(list) != 3 || !bytes.Equal(list[1].Bytes, s.Leaf.Raw) || !bytes.Equal(list[2].Bytes, r.issuer.Cert.Raw) {
		t.Errorf("%d blocks: want the key, the leaf and its issuer, and no trust anchor", len(list))
	}
	trust, err := os.ReadFile(r.path("postgres", "test.example"+trustSuffix))
	if err != nil || !bytes.Equal(trust, certificatesPEM([][]byte{r.root.Cert.Raw})) {
		t.Errorf("%s, %v", trust, err)
	}
	for name, mode := range map[string]fs.FileMode{"": 0o700 | fs.ModeDir, bundleName: 0o600, "test.example" + trustSuffix: 0o600} {
		if info, err := os.Lstat(r.path("postgres", name)); err != nil || info.Mode() != mode {
			t.Errorf("%s has mode %v, want %v; %v", name, info.Mode(), mode, err)
		}
	}
	// A root that goes is taken out, and one that comes is there.
	more := trustOf(r.root, r.root.Issuing())
	r.trust.Set(more)
	r.once()
	trust, err = os.ReadFile(r.path("postgres", "test.example"+trustSuffix))
	if err != nil || !bytes.Equal(trust, certificatesPEM(more.DER)) {
		t.Errorf("%s, %v", trust, err)
	}
	if p := r.Problems(); len(p) > 0 {
		t.Error(p)
	}
}

func TestOpensslTakesKeyAndChainOfACredentialFolder(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		parts.Missing(t, "openssl")
	}
	r := newRig(t)
	r.told(entry("db", "postgres", self, 1))
	r.issue("db")
	r.once()
	bundle := r.path("postgres", bundleName)
	ask := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), openssl, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("openssl %s: %v: %s", args[0], err, out)
		}
		return string(out)
	}
	if key, cert := ask("pkey", "-in", bundle, "-pubout"), ask("x509", "-in", bundle, "-noout", "-pubkey"); key != cert {
		t.Errorf("the key is %s, the certificate's %s", key, cert)
	}
	if out := ask("verify", "-CAfile", r.path("postgres", "test.example"+trustSuffix), "-untrusted", bundle, bundle); !strings.HasSuffix(out, ": OK\n") {
		t.Error(out)
	}
}

// TestAReaderNeverSeesAKeyWithoutItsChain rotates under readers that open once each time.
func TestAReaderNeverSeesAKeyWithoutItsChain(t *testing.T) {
	rotations := 50
	if parts.Soak() {
		rotations = 5000
	}
	r := newRig(t)
	e := entry("db", "postgres", self, 1)
	e.Files.Layouts = []string{identity.LayoutPEM}
	r.told(e)
	r.issue("db")
	r.once()
	pool := trustOf(r.root).Pool
	stop, done := make(chan struct{}), make(chan error, 2)
	reads := 0
	go func() {
		var last time.Time
		for {
			leaf, err := read(r.path("postgres", bundleName), pool)
			if err != nil {
				done <- err
				return
			}
			if leaf.NotBefore.Before(last) {
				err = fmt.Errorf("an older one came back")
			}
			last = leaf.NotBefore
			reads++
			select {
			case <-stop:
				done <- err
				return
			default:
			}
		}
	}()
	go func() { // the layout of several files: by one folder that was opened once
		for {
			if err := readSet(r.path("postgres", pemName)); err != nil {
				done <- err
				return
			}
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
		}
	}()
	for range rotations {
		r.issue("db")
		r.once()
	}
	close(stop)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d rotations, %d reads", rotations, reads)
}

// readSet reads key and chain in one folder, opened once.
func readSet(path string) error {
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // only read
	key, errKey := root.ReadFile(pemKey)
	chain, errChain := root.ReadFile(pemSVID)
	if errKey != nil || errChain != nil {
		return nil // it was read over two rotations: nothing is believed of it
	}
	return pairs(chain, key)
}

func TestAFolderGoesWithItsEntry(t *testing.T) {
	r := newRig(t)
	e := entry("db", "postgres", self, 1)
	e.Files.Layouts = []string{identity.LayoutPEM}
	r.told(e, entry("web", "nginx", self, 2))
	r.issue("db")
	r.issue("web")
	r.once()
	r.told(entry("web", "nginx", self, 2))
	r.once()
	if got := names(t, r.dir); got != ".signet-stage nginx" {
		t.Errorf("left are %s", got)
	}
	// One that went while the agent was away, and one that grants another identity now.
	for what, now := range map[string]func(){
		"gone":             func() { r.told() },
		"another identity": func() { e := entry("web", "nginx", self, 2); e.SpiffeId += "2"; r.told(e) },
		"another user":     func() { r.told(entry("web", "nginx", "4242", 2)) },
		"no files":         func() { e := entry("web", "nginx", self, 2); e.Files = nil; r.told(e) },
		"another folder":   func() { r.told(entry("web", "caddy", self, 2)) },
	} {
		r.told(entry("web", "nginx", self, 2))
		r.issue("web")
		r.once()
		if _, err := read(r.path("nginx", bundleName), trustOf(r.root).Pool); err != nil {
			t.Fatal(err)
		}
		r.open()
		now()
		r.once()
		if _, err := os.Lstat(r.path("nginx", bundleName)); err == nil {
			t.Errorf("%s: the folder is there still", what)
		}
	}
}

// TestNothingOfOthersIsTakenAway: what an agent did not make it neither writes to nor removes.
func TestNothingOfOthersIsTakenAway(t *testing.T) {
	r := newRig(t)
	if err := os.Mkdir(r.path("postgres"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.told(entry("db", "postgres", self, 1))
	r.issue("db")
	r.once()
	if p := r.Problems(); len(p) != 1 || !strings.Contains(p[0], "none that the agent made") {
		t.Errorf("%q", p)
	}
	r.told()
	r.once()
	if got := names(t, r.dir); got != ".signet-stage postgres" || names(t, r.path("postgres")) != "" {
		t.Errorf("%s", got)
	}
	// A file of somebody's in a folder of ours stays, and the key goes.
	r.told(entry("web", "nginx", self, 1))
	r.issue("web")
	r.once()
	if err := os.WriteFile(r.path("nginx", "dhparam.pem"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.told()
	r.once()
	if p := r.Problems(); len(p) != 1 || !strings.Contains(p[0], "dhparam.pem") || names(t, r.path("nginx")) != ".signet dhparam.pem" {
		t.Errorf("%q, %s", p, names(t, r.path("nginx")))
	}
	if err := os.Remove(r.path("nginx", "dhparam.pem")); err != nil {
		t.Fatal(err)
	}
	r.once()
	if got := names(t, r.dir); got != ".signet-stage postgres" || len(r.Problems()) > 0 {
		t.Errorf("%s, %q", got, r.Problems())
	}
}

func TestAFolderOnADiskIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "not on a tmpfs") {
		t.Errorf("%v", err)
	}
	if err := (Config{Dir: dir + "/new"}).Check(); err == nil || !strings.Contains(err.Error(), "not on a tmpfs") {
		t.Errorf("%v", err)
	}
	open := memory(t)
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(open); err == nil || !strings.Contains(err.Error(), "lets others in") {
		t.Errorf("%v", err)
	}
}

// TestALinkInThePlaceOfAFolderOrAFileIsNotFollowed: whoever has the agent's user, or had
// the folder before, leads the agent nowhere.
func TestALinkInThePlaceOfAFolderOrAFileIsNotFollowed(t *testing.T) {
	r := newRig(t)
	outside := memory(t)
	r.told(entry("db", "postgres", self, 1))
	s := r.issue("db")
	r.once()
	// A file.
	victim := outside + "/victim"
	if err := os.WriteFile(victim, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{bundleName, "test.example" + trustSuffix} {
		if err := os.Remove(r.path("postgres", name)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(victim, r.path("postgres", name)); err != nil {
			t.Fatal(err)
		}
	}
	next := r.issue("db")
	r.once()
	if content, err := os.ReadFile(victim); err != nil || string(content) != "untouched" {
		t.Errorf("%q, %v", content, err)
	}
	if leaf, err := read(r.path("postgres", bundleName), trustOf(r.root).Pool); err != nil || !leaf.Equal(next.Leaf) || leaf.Equal(s.Leaf) {
		t.Errorf("%v", err)
	}
	// The folder.
	if err := os.Rename(r.path("postgres"), outside+"/moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, r.path("postgres")); err != nil {
		t.Fatal(err)
	}
	r.issue("db")
	r.once()
	if got := names(t, outside); got != "moved victim" {
		t.Errorf("it wrote to %s", got)
	}
	if p := r.Problems(); len(p) != 1 || !strings.Contains(p[0], "none that the agent made") {
		t.Errorf("%q", p)
	}
	// Nor is it followed as it is taken away.
	r.told()
	r.once()
	if got := names(t, outside); got != "moved victim" {
		t.Errorf("it removed: left are %s", got)
	}
}

// TestAnotherUsersFilesAreTheirsAndTheFolderIsNot is asked as root, with the capabilities
// that the agent's unit grants.
func TestAnotherUsersFilesAreTheirsAndTheFolderIsNot(t *testing.T) {
	if os.Geteuid() != 0 {
		parts.Missing(t, "root")
	}
	daemon := child.User{UID: 1, GID: 1}
	for _, group := range []bool{false, true} {
		r := newRig(t, func(p *Parts) { p.Owners = []child.User{daemon} })
		e := entry("db", "postgres", "1", 1)
		e.Files.Group = group
		e.Files.Layouts = []string{identity.LayoutPEM}
		r.told(e)
		for range 3 {
			r.issue("db")
			r.once()
		}
		if p := r.Problems(); len(p) > 0 {
			t.Fatal(p)
		}
		mode := fs.FileMode(0o600)
		if group {
			mode = 0o640
		}
		for _, name := range []string{bundleName, "pem/" + pemKey, "test.example" + trustSuffix} {
			info, err := os.Stat(r.path("postgres", name))
			if err != nil {
				t.Fatal(err)
			}
			if o := info.Sys().(*syscall.Stat_t); o.Uid != 1 || o.Gid != 1 || info.Mode() != mode { //nolint:forcetypeassert // Linux
				t.Errorf("%s: uid %d, gid %d, mode %v", name, o.Uid, o.Gid, info.Mode())
			}
		}
		info, err := os.Stat(r.path("postgres"))
		if o := info.Sys().(*syscall.Stat_t); err != nil || o.Uid != 0 || o.Gid != 1 || info.Mode().Perm() != 0o750 { //nolint:forcetypeassert // Linux
			t.Errorf("the folder: %v, %v", info.Mode(), err)
		}
		as := func(uid uint32, script string) string {
			cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script)
			cmd.Dir = "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
			out, _ := cmd.CombinedOutput() // its text is looked at
			return string(out)
		}
		folder := r.path("postgres")
		if out := as(1, "head -n1 "+folder+"/"+bundleName+"; head -n1 "+folder+"/pem/svid_key.pem"); strings.Count(out, "BEGIN PRIVATE KEY") != 2 {
			t.Errorf("the owner reads %q", out)
		}
		if out := as(65534, "cat "+folder+"/"+bundleName+" 2>&1; ls "+folder+" 2>&1; ls "+r.dir+" 2>&1"); strings.Count(out, "denied") != 3 {
			t.Errorf("others read %q", out)
		}
		// The owner can neither replace a file nor lead the agent anywhere.
		if out := as(1, "ln -s /etc "+folder+"/x 2>&1; rm "+folder+"/"+bundleName+" 2>&1; mv "+folder+" "+folder+"2 2>&1; ls "+r.path(stageName)+" 2>&1"); strings.Count(out, "denied") != 4 {
			t.Errorf("the owner changes the folder: %q", out)
		}
	}
}

// TestWhoseFilesThereAreIsTheHostsToSay: an entry alone makes no file of anybody's.
func TestWhoseFilesThereAreIsTheHostsToSay(t *testing.T) {
	r := newRig(t)
	r.told(entry("a", "one", "4242", 1), entry("b", "two", self, 2), entry("c", "two", self, 3))
	for _, name := range []string{"a", "b", "c"} {
		r.issue(name)
	}
	r.once()
	p := strings.Join(r.Problems(), "\n")
	if names(t, r.dir) != ".signet-stage two" || !strings.Contains(p, "uid 4242 is none of files.users") || !strings.Contains(p, `entry "b" was there first`) {
		t.Errorf("%s: %s", names(t, r.dir), p)
	}
	if leaf, err := read(r.path("two", bundleName), trustOf(r.root).Pool); err != nil || leaf.URIs[0].Path != "/b" {
		t.Errorf("%v", err)
	}
	r.open(func(p *Parts) { p.Root = nil })
	r.once()
	if p := r.Problems(); len(p) != 3 || !strings.Contains(p[0], "files.dir") {
		t.Errorf("%q", p)
	}
}

func TestALayoutThatTheAgentDoesNotKnowCostsItselfAlone(t *testing.T) {
	r := newRig(t)
	e := entry("db", "postgres", self, 1)
	e.Files.Layouts = []string{"jks"}
	r.told(e)
	r.issue("db")
	r.once()
	if p := r.Problems(); len(p) != 1 || !strings.Contains(p[0], "jks") {
		t.Errorf("%q", p)
	}
	if _, err := read(r.path("postgres", bundleName), trustOf(r.root).Pool); err != nil {
		t.Error(err)
	}
}
