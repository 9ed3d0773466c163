package attestation

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAServiceOrAContainerIsAUnitAndALoginIsNone(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for cgroup, want := range map[string]string{
		"/":                                 "",
		"/system.slice":                     "",
		"/system.slice/web.service":         "/system.slice/web.service",
		"/system.slice/web.service/workers": "/system.slice/web.service",
		"/user.slice/user-1000.slice/session-3.scope":                           "",
		"/user.slice/user-1000.slice/user@1000.service/init.scope":              "",
		"/user.slice/user-1000.slice/user@1000.service/app.slice/web.service":   "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service",
		"/user.slice/user-1000.slice/user@1000.service/app.slice/app-x-1.scope": "",
		"/system.slice/docker-" + id + ".scope":                                 "/system.slice/docker-" + id + ".scope",
		"/system.slice/docker-" + id + ".scope/system.slice/web.service":        "/system.slice/docker-" + id + ".scope/system.slice/web.service",
		"/docker/" + id: "/docker/" + id,
		"/machine.slice/libpod-" + id + ".scope/container":                             "/machine.slice/libpod-" + id + ".scope",
		"/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id + ".scope":          "/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id + ".scope",
		"/ecs/0123456789abcdef0123456789abcdef/0123456789abcdef0123456789abcdef-12345": "/ecs/0123456789abcdef0123456789abcdef/0123456789abcdef0123456789abcdef-12345",
		"/system.slice/docker-" + id[:63] + ".scope":                                   "",
	} {
		if got := unitOf(cgroup); got != want {
			t.Errorf("%s: %q, want %q", cgroup, got, want)
		}
	}
}

func TestACgroupIsFoundByItsID(t *testing.T) {
	root := unifiedRoot
	var fs unix.Statfs_t
	if unix.Statfs(root, &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		root = hybridRoot
	}
	if unix.Statfs(root, &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		t.Skip("cgroup v2 is not mounted")
	}
	dir := root + "/signet-test.service"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skip(err) // read only, or not root
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	var c Cgroups
	id := info.Sys().(*syscall.Stat_t).Ino
	for range 2 {
		if got := c.Unit(id); got != "/signet-test.service" {
			t.Errorf("%d: %q", id, got)
		}
	}
	if got := c.Unit(1 << 60); got != "" {
		t.Errorf("a cgroup that is not there: %q", got)
	}
	if got := c.Unit(1); got != "" {
		t.Errorf("unknown: %q", got)
	}
}
