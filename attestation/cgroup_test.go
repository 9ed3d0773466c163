package attestation

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"signet.example/test/parts"
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
		parts.Missing(t, "cgroup v2 is not mounted")
	}
	dir := root + "/signet-test.service"
	if err := os.Mkdir(dir, 0o755); err != nil {
		parts.Missing(t, "cgroups are made by root, where they may be written: "+err.Error())
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	var c Cgroups
	id := info.Sys().(*syscall.Stat_t).Ino
	for range 2 {
		got, err := c.Units([]uint64{id, 1 << 60, 1, 0})
		if want := map[uint64]string{id: "/signet-test.service"}; err != nil || !maps.Equal(got, want) {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
	}
	if !c.In("/signet-test.service", id) || c.In("/system.slice", id) {
		t.Error("it is not in its unit, or in another")
	}
}

// cgroupTree is a folder that stands for cgroup v2, with a service and what is
// in and beside it.
func cgroupTree(t *testing.T) (c *Cgroups, idOf func(string) uint64) {
	t.Helper()
	c = &Cgroups{testOnlyRoot: t.TempDir()}
	for _, dir := range []string{"system.slice/web.service/workers", "system.slice/web.service/inner.service", "user.slice/user-1000.slice/session-3.scope"} {
		if err := os.MkdirAll(filepath.Join(c.testOnlyRoot, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return c, func(dir string) uint64 {
		info, err := os.Stat(filepath.Join(c.testOnlyRoot, dir))
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Ino
	}
}

// A host without cgroup v2 says 1 of every socket, and an old kernel nothing: that is
// not the word that a socket is in no unit.
func TestACgroupThatTheKernelDoesNotTellIsUnknown(t *testing.T) {
	c, idOf := cgroupTree(t)
	session := idOf("user.slice/user-1000.slice/session-3.scope")
	got, err := c.Units([]uint64{0, 1, session})
	if want := map[uint64]string{session: ""}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	if c.In("/system.slice/web.service", 0) || c.In("/system.slice/web.service", 1) {
		t.Error("a cgroup that is not known is in a unit")
	}
}

func TestACgroupIsInItsInnermostUnit(t *testing.T) {
	c, id := cgroupTree(t)
	for range 2 { // looked for, and remembered
		for dir, want := range map[string]bool{
			"system.slice/web.service": true, "system.slice/web.service/workers": true, "system.slice/web.service/inner.service": false,
			"system.slice": false, "user.slice/user-1000.slice/session-3.scope": false,
		} {
			if got := c.In("/system.slice/web.service", id(dir)); got != want {
				t.Errorf("%s: %v", dir, got)
			}
		}
	}
	if c.In("", id("system.slice")) {
		t.Error("something is in no unit")
	}
}

func TestACgroupThatIsGoneIsSearchedForOnce(t *testing.T) {
	c, id := cgroupTree(t)
	gone := uint64(1 << 60)
	for range 1000 {
		if c.In("/system.slice/web.service", gone) {
			t.Error("what is gone is in a unit")
		}
		if got, err := c.Units([]uint64{gone, gone + 1, gone + 2}); len(got) != 0 || err != nil {
			t.Errorf("%v, %v", got, err)
		}
	}
	if c.walks > 4 { // one each, and again if 10 s have passed
		t.Errorf("%d searches for what is gone", c.walks)
	}
	for i := range uint64(maxCgroups + 1) {
		if _, err := c.walk("/nowhere", map[uint64]bool{gone + i: true}); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.missed) > maxCgroups {
		t.Errorf("%d searches in vain are remembered", len(c.missed))
	}
	if !c.In("/system.slice/web.service", id("system.slice/web.service")) {
		t.Error("what is there is not found any more")
	}
}

func TestASearchThatCannotBeFinishedSaysSo(t *testing.T) {
	c, id := cgroupTree(t)
	web := id("system.slice/web.service")
	c.testOnlyMost = 20
	for i := range c.testOnlyMost {
		if err := os.Mkdir(filepath.Join(c.testOnlyRoot, "a"+strconv.Itoa(i)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // and says it of what it remembers, too
		if got, err := c.Units([]uint64{web}); !errors.Is(err, ErrCgroupSearch) || len(got) != 0 {
			t.Errorf("%v, %v", got, err)
		}
	}
	if !c.In("/system.slice/web.service", web) {
		t.Error("a unit cannot be looked into because of what is beside it")
	}
}

func TestOnlyTheSameRuntimesContainerIsTheOneBeforeMadeAnew(t *testing.T) {
	a, b := strings.Repeat("a", 64), strings.Repeat("b", 64)
	const pod, other = "0d3c1f2e-1111-2222-3333-444455556666", "9d3c1f2e-7777-2222-3333-444455556666"
	slice := func(pod string) string { return strings.ReplaceAll(pod, "-", "_") }
	for name, c := range map[string]struct {
		before, now string
		want        bool
	}{
		"docker, systemd":       {"/system.slice/docker-" + a + ".scope", "/system.slice/docker-" + b + ".scope", true},
		"docker, cgroupfs":      {"/docker/" + a, "/docker/" + b, true},
		"a service inside":      {"/docker/" + a + "/web.service", "/docker/" + b + "/web.service", true},
		"another service":       {"/docker/" + a + "/web.service", "/docker/" + b + "/job.service", false},
		"a pod, systemd":        {"/kubepods.slice/kubepods-pod" + slice(pod) + ".slice/cri-containerd-" + a + ".scope", "/kubepods.slice/kubepods-pod" + slice(other) + ".slice/cri-containerd-" + b + ".scope", true},
		"a pod, cgroupfs":       {"/kubepods/pod" + pod + "/" + a, "/kubepods/pod" + other + "/" + b, true},
		"an ECS task":           {"/ecs/" + a[:32] + "/" + a[:32] + "-1234567", "/ecs/" + b[:32] + "/" + b[:32] + "-89", true},
		"another runtime":       {"/system.slice/docker-" + a + ".scope", "/system.slice/libpod-" + b + ".scope", false},
		"another place":         {"/system.slice/docker-" + a + ".scope", "/" + b, false},
		"a service's own":       {"/docker/" + a, "/system.slice/job.service/" + b, false},
		"a user's own":          {"/system.slice/docker-" + a + ".scope", "/user.slice/user-1111.slice/user@1111.service/" + b, false},
		"twice a user's own":    {"/user.slice/user-1111.slice/user@1111.service/" + a, "/user.slice/user-1111.slice/user@1111.service/" + b, false},
		"a user's without more": {"/user@1111.service/" + a, "/user@1111.service/" + b, false},
		"no container":          {"/system.slice/web.service", "/system.slice/web.service", false},
	} {
		if got := MadeAnew(c.before, c.now); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
