package attestation

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"signet.example/test/parts"
)

func TestTheUnitIsThatOfTheSystemsManager(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for cgroup, want := range map[string]string{
		"/system.slice/web.service":                       "/system.slice/web.service",
		"/system.slice/system-web.slice/web@1.service":    "/system.slice/system-web.slice/web@1.service",
		"/shop.slice/web.service":                         "/shop.slice/web.service",
		"/system.slice/web.service/other.service":         "/system.slice/web.service", // what is delegated to a unit cannot make it another
		"/system.slice/web.service/evil.slice/db.service": "/system.slice/web.service",
		"/web.service": "/web.service",
		"/user.slice/user-1000.slice/session-3.scope":                         "",
		"/user.slice/user-1000.slice/user@1000.service/app.slice/web.service": "/user.slice/user-1000.slice/user@1000.service",
		"/user.slice/user-1000.slice/user@1000.service/web.service":           "/user.slice/user-1000.slice/user@1000.service",
		"/system.slice/docker-" + id + ".scope/system.slice/web.service":      "",
		"/docker/" + id + "/system.slice/web.service":                         "",
		"/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id + ".scope": "",
		"/../system.slice/web.service":                                        "", // from another cgroup namespace
		"/system.slice":                                                       "", "/": "", "": "", "system.slice/web.service": "",
	} {
		if got := systemUnitOf(cgroup); got != want {
			t.Errorf("%s: %q, want %q", cgroup, got, want)
		}
	}
	for unit, want := range map[string]string{"/system.slice/web.service": "system.slice", "/web.service": "-.slice", "/a.slice/a-b.slice/c.service": "a-b.slice"} {
		if got := sliceOf(unit); got != want {
			t.Errorf("slice of %s: %q, want %q", unit, got, want)
		}
	}
	for raw, want := range map[string]string{
		"0::/system.slice/web.service\n":        "/system.slice/web.service",
		"12:cpu:/a\n1:name=systemd:/b\n0::/c\n": "/c",
		"12:cpu:/a\n":                           "", "": "",
	} {
		if got := unifiedCgroup([]byte(raw)); got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
	}
}

func FuzzUnitOfACgroup(f *testing.F) {
	f.Add([]byte("0::/system.slice/web.service\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		unit := systemUnitOf(unifiedCgroup(raw))
		if unit != "" && (filepath.Clean(unit) != unit || !strings.HasSuffix(unit, ".service") || strings.Contains(filepath.Dir(unit), ".service/")) {
			t.Errorf("%q: %q", raw, unit)
		}
	})
}

func TestTheInvocationIsReadFromTheUnitsCgroup(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef"
	a := &Attestor{testOnlyCgroups: t.TempDir()}
	dir := filepath.Join(a.testOnlyCgroups, "system.slice", "web.service")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := a.invocation("/system.slice/web.service"); got != "" {
		t.Errorf("without one: %q", got)
	}
	set := func(value string) {
		if err := unix.Lsetxattr(dir, "trusted.invocation_id", []byte(value), 0); err != nil {
			parts.Missing(t, "trusted attributes of files (root, and a file system that has them): "+err.Error())
		}
	}
	set(id)
	if got := a.invocation("/system.slice/web.service"); got != id {
		t.Errorf("got %q, want %q", got, id)
	}
	for _, wrong := range []string{id[:31], strings.ToUpper(id) + "x", strings.Repeat("g", 32)} {
		set(wrong)
		if got := a.invocation("/system.slice/web.service"); got != "" {
			t.Errorf("%q was taken as %q", wrong, got)
		}
	}
}
