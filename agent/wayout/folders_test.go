package wayout

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"golang.org/x/sys/unix"

	"signet.example/attestation"
	"signet.example/proxy"
	"signet.example/test/parts"
)

func TestAnApplicationsSocketsAreInOneFolderAndNamedByPort(t *testing.T) {
	for text, ok := range map[string]bool{
		"127.0.0.1": true, "::1": true, "unix:/run/web/{port}.sock": true, "unix:/run/web/app-{port}": true,
		"unix:/run/web/app.sock": false, "unix:/run/{port}/app.sock": false, "unix:/run/web/{port}{port}": false, "unix:run/{port}": false,
		"unix:/run/../etc/{port}": false, "unix:@{port}": false, "unix:": false, "web": false, "": false, "unix:/" + strings.Repeat("x", 102) + "{port}": false,
	} {
		p, err := proxy.ParsePlace(text)
		if (err == nil) != ok || ok && p.String() != text {
			t.Errorf("%q: %q, %v", text, p, err)
		}
	}
	p, err := proxy.ParsePlace("unix:/run/web/{port}.sock")
	if err != nil || p.SocketFor(8080) != "/run/web/8080.sock" {
		t.Errorf("%q, %v", p.SocketFor(8080), err)
	}
}

// ownFolder is one that nobody but this process's user can write to, nor to what is
// above it.
func ownFolder(t *testing.T, mode fs.FileMode) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pl") // short: a Unix socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	sub := filepath.Join(dir, "d")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(sub, 0o700), os.Chmod(sub, mode)); err != nil {
		t.Fatal(err)
	}
	return sub
}

func us() uint32 { return uint32(os.Geteuid()) } //nolint:gosec // a uid has 32 bits

func TestAWayOutOnASocketIsTheProxysAndInAFolderOfItsOwn(t *testing.T) {
	dir := ownFolder(t, 0o750)
	at := proxy.Egress{Socket: filepath.Join(dir, "out.sock"), Mode: 0o600}
	refused := func(what, words string) {
		t.Helper()
		if err := checkEgressSocket(at, us()); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want %q", what, err, words)
		}
	}
	refused("before the proxy listens", "no such file")
	if err := CheckEgress(at, us()); err != nil {
		t.Errorf("its folder: %v", err)
	}
	l, err := net.Listen("unix", at.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := os.Chmod(at.Socket, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkEgressSocket(at, us()); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(at.Socket, 0o660); err != nil {
		t.Fatal(err)
	}
	refused("open to its group", "mode 0660 and not 0600")
	at.Mode = 0o660
	if err := checkEgressSocket(at, us()); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	refused("in a folder that everybody can write to", "chmod")
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := checkEgressSocket(at, us()+1); err == nil {
		t.Error("a socket of another user than the proxy's")
	}
	missing := proxy.Egress{Socket: filepath.Join(dir, "none", "out.sock"), Mode: 0o660}
	if err := CheckEgress(missing, us()); err == nil || !strings.Contains(err.Error(), "install -d") {
		t.Errorf("no folder: %v", err)
	}
}

func TestWhereOthersCouldPutAnApplicationsSocketNoAgentStarts(t *testing.T) {
	if os.Geteuid() != 0 {
		parts.Missing(t, "folders of other users need root")
	}
	dir := ownFolder(t, 0o755)
	try := func(what, words string) {
		t.Helper()
		p, err := proxy.ParsePlace("unix:" + filepath.Join(dir, "{port}.sock"))
		if err = errors.Join(err, CheckAppFolder(p)); (err == nil) != (words == "") || err != nil && !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want %q", what, err, words)
		}
	}
	set := func(uid int, mode fs.FileMode) {
		t.Helper()
		if err := errors.Join(os.Chown(dir, uid, uid), os.Chmod(dir, mode)); err != nil {
			t.Fatal(err)
		}
	}
	try("root's", "")
	set(0, 0o777)
	try("everybody's", "chmod")
	set(1000, 0o755)
	try("a user's, who can make links", "nosymfollow")
	noLinks(t, dir)
	set(1000, 0o755)
	try("a user's, who cannot", "")
	set(1000, 0o777)
	try("everybody's", "chmod")
	set(1000, 0o755)
	above := filepath.Dir(dir)
	for what, uid := range map[string]int{"root's again": 0, "a user's, who can move the mount away": 1000} {
		if err := os.Chown(above, uid, uid); err != nil {
			t.Fatal(err)
		}
		words := ""
		if uid != 0 {
			words = "must be root"
		}
		try("above it is "+what, words)
	}
	if err := os.Chown(above, 0, 0); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, "none")
	try("missing", "no such file")
}

func TestTheFoldersOfTheManualAreThoseThatAnAgentTakes(t *testing.T) {
	if os.Geteuid() != 0 {
		parts.Missing(t, "mounts need root")
	}
	manual, err := os.ReadFile("../../docs/AGENT.md")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^tmpfs /run/web tmpfs ([a-z,]+),(size=\S+),uid=web,gid=signet-envoy 0 0$`).FindStringSubmatch(string(manual))
	if line == nil {
		t.Fatal("docs/AGENT.md has no line for /etc/fstab")
	}
	var flags uintptr
	for word := range strings.SplitSeq(line[1], ",") {
		flag, ok := map[string]uintptr{"nosymfollow": unix.MS_NOSYMFOLLOW, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC}[word]
		if !ok {
			t.Fatalf("an option that this test does not know: %s", word)
		}
		flags |= flag
	}
	dir := ownFolder(t, 0o755) // in the place of /run/web
	mount(t, dir, flags, line[2]+",uid=1000,gid=1001")
	for _, folder := range []string{"/run", dir} { // and /run is a folder to have it in
		var st unix.Stat_t
		if err := unix.Stat(folder, &st); err != nil {
			t.Fatal(err)
		}
		if err := appFolder(folder, st.Uid); err != nil {
			t.Error(err)
		}
	}
}

// noLinks mounts a file system on a folder in which no link is followed.
func noLinks(t *testing.T, dir string) {
	t.Helper()
	mount(t, dir, unix.MS_NOSYMFOLLOW|unix.MS_NOSUID|unix.MS_NODEV, "size=1m,mode=0755")
}

func mount(t *testing.T, dir string, flags uintptr, options string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
		parts.Missing(t, "a mount with nosymfollow: "+err.Error())
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func TestTheApplicationOnSocketsIsWhoeverListensInAFolderOfItsOwn(t *testing.T) {
	if os.Geteuid() != 0 {
		parts.Missing(t, "folders of other users need root")
	}
	dir := ownFolder(t, 0o755)
	noLinks(t, dir)
	if err := os.Chown(dir, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	r := newOwnersRig(t, filepath.Join(t.TempDir(), "applications.json"))
	f := front{node: theFront.node, app: proxy.Place{Socket: filepath.Join(dir, "{port}.sock")}, ports: theFront.ports}
	at := map[string]attestation.SocketListener{}
	fails := map[string]error{}
	r.socket = func(path string) (attestation.SocketListener, error) {
		l, ok := at[filepath.Base(path)]
		if err := fails[filepath.Base(path)]; err != nil {
			return l, err
		}
		if !ok {
			return l, attestation.ErrNoOwner
		}
		return l, nil
	}
	expect := func(what string, uid uint32, reason string) {
		t.Helper()
		r.mu.Lock()
		clear(r.recent)
		r.mu.Unlock()
		err := r.allows(f, theBinding, attestation.SocketOwner{UID: uid})
		n, _ := errors.AsType[*notAllowed](err)
		if (err == nil) != (reason == "") || n != nil && n.reason != reason {
			t.Errorf("%s: %v, want %q", what, err, reason)
		}
	}
	const web = "/system.slice/web.service"
	expect("nobody listens", 1000, reasonNoOwner)
	at["8080.sock"] = attestation.SocketListener{UID: 1001}
	expect("somebody in another's folder", 1001, reasonNoOwner)
	at["8080.sock"] = attestation.SocketListener{UID: 1000, Unseen: errors.New("gone")}
	expect("whose unit cannot be seen", 1000, reasonNoOwner)
	at["8080.sock"], at["8443.sock"] = attestation.SocketListener{UID: 1000}, attestation.SocketListener{UID: 1000, Unit: web}
	expect("in a service and outside of it", 1000, reasonNoOwner)
	at["8443.sock"] = attestation.SocketListener{UID: 1000}
	expect("the folder's owner, on both", 1000, "")
	expect("another user", 1001, reasonNotTheirs)
	fails["8080.sock"] = attestation.ErrSocketBusy
	if l, err := net.Listen("unix", filepath.Join(dir, "8080.sock")); err != nil {
		t.Fatal(err)
	} else {
		t.Cleanup(func() { _ = l.Close() })
	}
	if err := os.Chown(filepath.Join(dir, "8080.sock"), 1000, 1000); err != nil {
		t.Fatal(err)
	}
	expect("one that has much to do is who it was", 1000, "")
	at["8443.sock"] = attestation.SocketListener{UID: 1001}
	expect("one that has much to do, beside another user's", 1000, reasonNoOwner)
	delete(at, "8443.sock")
	expect("one that has much to do, and nobody else", 1000, "")
	fails["8080.sock"] = errors.New("no permission")
	expect("one that cannot be asked", 1000, reasonNoOwner)
	delete(fails, "8080.sock")
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	expect("in a folder that others can write to", 1000, reasonNoOwner)
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, 1001, 1001)); err != nil {
		t.Fatal(err)
	}
	at["8080.sock"] = attestation.SocketListener{UID: 1001}
	expect("a new owner of folder and socket", 1001, reasonNewOwner)
}

// While a backlog is full the kernel says nothing of who listens; in another PID
// namespace nothing of its unit.
func TestASocketThatCannotBeSeenMakesNoSecondOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		parts.Missing(t, "a folder where no link matters is root's")
	}
	const web, cron = "/system.slice/web.service", "/system.slice/cron.service"
	unseen := errors.New("in another PID namespace")
	for name, tc := range map[string]struct {
		known      []owner // one or nobody
		one, other attestation.SocketListener
		busy       bool // the first
		reason     string
	}{
		"busy beside the service":            {[]owner{{0, web}}, attestation.SocketListener{}, attestation.SocketListener{Unit: web}, true, ""},
		"busy beside another service":        {[]owner{{0, web}}, attestation.SocketListener{}, attestation.SocketListener{Unit: cron}, true, reasonNewOwner},
		"busy beside no service":             {[]owner{{0, web}}, attestation.SocketListener{}, attestation.SocketListener{}, true, reasonNewOwner},
		"unseen beside the service":          {[]owner{{0, web}}, attestation.SocketListener{Unseen: unseen}, attestation.SocketListener{Unit: web}, false, ""},
		"the service beside unseen":          {[]owner{{0, web}}, attestation.SocketListener{Unit: web}, attestation.SocketListener{Unseen: unseen}, false, ""},
		"both unseen":                        {[]owner{{0, web}}, attestation.SocketListener{Unseen: unseen}, attestation.SocketListener{Unseen: unseen}, false, ""},
		"of another user than was known":     {[]owner{{1001, ""}}, attestation.SocketListener{Unseen: unseen}, attestation.SocketListener{Unseen: unseen}, false, reasonNewOwner},
		"unseen beside a service, unknown":   {nil, attestation.SocketListener{Unseen: unseen}, attestation.SocketListener{Unit: web}, false, reasonNoOwner},
		"a service beside unseen, unknown":   {nil, attestation.SocketListener{Unit: web}, attestation.SocketListener{Unseen: unseen}, false, reasonNoOwner},
		"unseen beside no service, unknown":  {nil, attestation.SocketListener{Unseen: unseen}, attestation.SocketListener{}, false, reasonNoOwner},
		"busy beside no service, unknown":    {nil, attestation.SocketListener{}, attestation.SocketListener{}, true, reasonNoOwner},
		"two services, one of them unknown":  {[]owner{{0, web}}, attestation.SocketListener{Unit: web}, attestation.SocketListener{Unit: cron}, false, reasonNoOwner},
		"a service that was a user, unseen":  {[]owner{{0, ""}}, attestation.SocketListener{Unseen: unseen}, attestation.SocketListener{Unit: web}, false, ""},
		"busy with a file of another's name": {[]owner{{1001, web}}, attestation.SocketListener{}, attestation.SocketListener{}, true, reasonNewOwner},
	} {
		t.Run(name, func(t *testing.T) {
			dir := ownFolder(t, 0o755)
			if l, err := net.Listen("unix", filepath.Join(dir, "8080.sock")); err != nil {
				t.Fatal(err)
			} else {
				t.Cleanup(func() { _ = l.Close() })
			}
			f := front{node: theFront.node, app: proxy.Place{Socket: filepath.Join(dir, "{port}.sock")}, ports: theFront.ports}
			r := newOwnersRig(t, filepath.Join(t.TempDir(), applicationsFile))
			key := f.key()
			for _, known := range tc.known {
				r.memory.known[key] = known
			}
			r.socket = func(path string) (attestation.SocketListener, error) {
				if filepath.Base(path) == "8443.sock" {
					return tc.other, nil
				}
				if tc.busy {
					return attestation.SocketListener{}, attestation.ErrSocketBusy
				}
				return tc.one, nil
			}
			got, err := r.of(f, theBinding)
			n, _ := errors.AsType[*notAllowed](err)
			if (err == nil) != (tc.reason == "") || n != nil && n.reason != tc.reason || err == nil && got != tc.known[0] {
				t.Errorf("%v, %v, want %q", got, err, tc.reason)
			}
			if err != nil && tc.one.Unit == "" && strings.Contains(err.Error(), "owners accept") {
				t.Errorf("%v offers to accept whoever cannot be seen", err)
			}
			if len(r.memory.known) != len(tc.known) {
				t.Errorf("remembered: %v", r.memory.known)
			}
		})
	}
}

// Whose the file is says nothing of who listens.
func TestABusySocketsFileIsNobodyToName(t *testing.T) {
	if os.Geteuid() != 0 {
		parts.Missing(t, "a folder where no link matters is root's")
	}
	dir := ownFolder(t, 0o755)
	l, err := net.Listen("unix", filepath.Join(dir, "8080.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	r := newOwnersRig(t, filepath.Join(t.TempDir(), applicationsFile))
	r.socket = func(string) (attestation.SocketListener, error) {
		return attestation.SocketListener{}, attestation.ErrSocketBusy
	}
	if named := r.listeningNow(front{app: proxy.Place{Socket: filepath.Join(dir, "{port}.sock")}, ports: "8080"}); len(named) != 0 {
		t.Errorf("%v", named)
	}
}

func TestNothingIsConnectedToInAFolderThatOthersCanWriteTo(t *testing.T) {
	dir := ownFolder(t, 0o777)
	r := newOwnersRig(t, filepath.Join(t.TempDir(), applicationsFile))
	r.socket = func(path string) (attestation.SocketListener, error) {
		t.Errorf("connected to %s", path)
		return attestation.SocketListener{}, attestation.ErrNoOwner
	}
	f := front{node: theFront.node, app: proxy.Place{Socket: filepath.Join(dir, "{port}.sock")}, ports: "8080"}
	if _, err := r.of(f, theBinding); err == nil || !strings.Contains(err.Error(), "chmod") {
		t.Errorf("%v", err)
	}
	if named := r.listeningNow(f); len(named) != 0 {
		t.Errorf("%v", named)
	}
}

// What Envoy tells of a Unix socket: the listener's path, and nothing of the peer.
func TestAPathIsNotAnAddressOfAConnection(t *testing.T) {
	p := &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/run/out.sock"}}}}
	if at := socketAddress(p); at.IsValid() {
		t.Errorf("read as %s", at)
	}
}

func TestAFolderThatTheAgentCannotSearchIsSaidBeforeAnybodyCalls(t *testing.T) {
	dir := ownFolder(t, 0o750)
	at, app := proxy.Egress{Socket: filepath.Join(dir, "out.sock"), Mode: 0o660}, proxy.Place{Socket: filepath.Join(dir, "{port}.sock")}
	try := func() error { return errors.Join(CheckEgress(at, us()), CheckAppFolder(app)) }
	if err := try(); err != nil {
		t.Error(err)
	}
	parts.AsUser(t, 61001, func() {
		for what, err := range map[string]error{"egress": CheckEgress(at, 0), "app": CheckAppFolder(app)} {
			if err == nil || !strings.Contains(err.Error(), "cannot be searched by the agent, uid 61001") || !strings.Contains(err.Error(), "SupplementaryGroups=0 ") {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}
