package parts

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Podman is a real container runtime, with all of its files in a folder of the test's own.
type Podman struct {
	t        testing.TB
	program  string
	dir      string
	accounts *accounts // nil where nothing is counted
	env      []string
}

// cgroups is where their file systems are.
const cgroups = "/sys/fs/cgroup"

// BareImage has links to the host's programs and libraries, which each container mounts.
const BareImage = "localhost/bare"

const (
	containersConf = `[containers]
pids_limit = 0
log_driver = "k8s-file"
default_sysctls = []
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[network]
network_backend = "netavark"
network_config_dir = "DIR/networks"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"
tmp_dir = "DIR/run"
static_dir = "DIR/static"
volume_path = "DIR/volumes"
`
	storageConf = `[storage]
driver = "DRIVER"
graphroot = "DIR/storage"
runroot = "DIR/run-storage"
`
)

// Containers gives a test that runs on a host of its own ([Hosts]) a container runtime.
// cgroup v2 alone is mounted there, as on a host of today.
func Containers(t testing.TB) *Podman {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(cgroups, &fs); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		if err := unix.Mount("none", cgroups, "cgroup2", 0, ""); err != nil {
			Missing(t, "cgroup v2: "+err.Error())
		}
	}
	p := containers(t, "vfs", false)
	t.Cleanup(func() {
		if err := removeCgroups(filepath.Join(cgroups, "libpod_parent")); err != nil {
			t.Error(err)
		}
	})
	p.begin()
	return p
}

// containers is a runtime with a driver of its storage, which is in memory or not, and without images.
func containers(t testing.TB, storage string, inMemory bool) *Podman {
	t.Helper()
	if os.Getenv(otherHosts) == "" {
		t.Fatal("containers are started on a host of the test's own")
	}
	dir, err := os.MkdirTemp("", "pod")
	if err != nil {
		t.Fatal(err)
	}
	// What it keeps elsewhere is gone with this host, such as which addresses are given: a run that
	// was killed gives none back.
	for _, of := range []string{"/var/lib/containers", "/run/runc", "/run/containers"} {
		if err := errors.Join(os.MkdirAll(of, 0o700), unix.Mount("tmpfs", of, "tmpfs", 0, "")); err != nil {
			t.Fatal(err)
		}
	}
	p := &Podman{t: t, program: Program(t, "podman"), dir: dir, env: append(os.Environ(), "HOME="+dir)}
	if inMemory {
		if err := errors.Join(unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0711"), os.Mkdir(filepath.Join(dir, "tmp"), 0o700)); err != nil {
			t.Fatal(err)
		}
		p.env = append(p.env, "TMPDIR="+filepath.Join(dir, "tmp"))
	}
	for name, text := range map[string]string{"CONTAINERS_CONF": containersConf, "CONTAINERS_STORAGE_CONF": storageConf} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(strings.NewReplacer("DIR", dir, "DRIVER", storage).Replace(text)), 0o600); err != nil {
			t.Fatal(err)
		}
		p.env = append(p.env, name+"="+file)
	}
	return p
}

// begin has all containers removed at the end, before what was cleaned up by then, and makes the image.
func (p *Podman) begin() {
	p.t.Cleanup(func() {
		_, pods := p.Try("pod", "rm", "--all", "--force", "--time", "0")
		_, _ = p.Try("rm", "--all", "--force", "--time", "0") // all in whose network no other is
		_, all := p.Try("rm", "--all", "--force", "--time", "0")
		_ = unix.Unmount(filepath.Join(p.dir, "storage", "overlay"), unix.MNT_DETACH) // where that driver has mounted it
		_ = unix.Unmount(p.dir, unix.MNT_DETACH)                                      // where it is in memory
		if err := errors.Join(pods, all, os.RemoveAll(p.dir)); err != nil {
			p.t.Error(err)
		}
	})
	p.importBare(filepath.Join(p.dir, "bare.tar"))
}

// importBare makes the image: what a container is given of the host lies at the same
// paths there.
func (p *Podman) importBare(file string) {
	p.t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range []string{"usr", "etc", "proc", "sys", "dev", "run", "tmp", "var", "opt"} {
		p.must(w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}))
	}
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		p.must(w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: "usr/" + name}))
	}
	p.must(errors.Join(w.Close(), os.WriteFile(file, b.Bytes(), 0o600)))
	p.Do("import", "--quiet", file, BareImage)
}

func (p *Podman) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// Try runs one command, and returns what it printed.
func (p *Podman) Try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.t.Context()), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.program, args...)
	cmd.Env = p.env
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("podman %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(string(out)), err
}

// Do is Try for what must go well.
func (p *Podman) Do(args ...string) string {
	p.t.Helper()
	out, err := p.Try(args...)
	p.must(err)
	return out
}

// Start runs a program in a container of this name, as a user and in its networks, with
// these files of the host at the same paths.
func (p *Podman) Start(name string, uid int, options []string, files []string, program ...string) {
	p.t.Helper()
	args := []string{"run", "--detach", "--name", name, "--user", fmt.Sprintf("%d:%d", uid, uid)}
	if !slices.Contains(options, "--pod") { // a pod's containers have what the pod has
		args = append(args, "--volume", "/usr:/usr:ro")
	}
	for _, f := range files {
		args = append(args, "--volume", f+":"+f)
	}
	args = append(append(args, options...), BareImage)
	p.Do(append(args, program...)...)
}

// removeCgroups removes one and those below it, in which nothing runs any more.
func removeCgroups(dir string) error {
	below, err := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
	for _, b := range below {
		err = errors.Join(err, removeCgroups(filepath.Dir(b)))
	}
	if gone := os.Remove(dir); !errors.Is(gone, os.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}
