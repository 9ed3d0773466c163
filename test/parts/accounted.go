package parts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// controllers of cgroup v1 that a container runtime looks for.
var controllers = []string{"memory", "cpu", "cpuacct", "cpuset", "devices", "freezer", "blkio", "pids"}

// AccountedContainers is [Containers] where what containers have in memory is counted and bounded, by whichever cgroups
// count it on this machine: v2, or v1 beside a v2 that counts nothing. Images are in memory, since a disk that others
// write to takes half a minute for each: what containers have of their programs is charged to whoever loaded the image,
// and [Memory] adds it.
func AccountedContainers(t testing.TB) *Podman {
	t.Helper()
	v2, err := mountCgroups()
	if err != nil {
		Missing(t, "cgroups that count memory: "+err.Error())
	}
	p := containers(t, "overlay", true)
	p.accounts = &accounts{t: t, v2: v2, parent: fmt.Sprintf("signet-test-%d", os.Getpid())}
	t.Cleanup(p.accounts.remove)
	p.begin()
	return p
}

// mountCgroups mounts those that this machine has, and reports whether v2 counts memory.
func mountCgroups() (v2 bool, err error) {
	if err := unix.Mount("none", cgroups, "cgroup2", 0, ""); err != nil {
		return false, err
	}
	if has, err := os.ReadFile(filepath.Join(cgroups, "cgroup.controllers")); err == nil && strings.Contains(string(has), "memory") {
		return true, nil
	}
	err = errors.Join(unix.Unmount(cgroups, 0), unix.Mount("none", cgroups, "tmpfs", 0, ""))
	for _, name := range append(controllers, "unified") {
		at, kind, which := filepath.Join(cgroups, name), "cgroup", name
		if name == "unified" {
			kind, which = "cgroup2", ""
		}
		if e := errors.Join(os.Mkdir(at, 0o755), unix.Mount("none", at, kind, 0, which)); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", name, e))
		}
	}
	return false, err
}

// accounts are cgroups below one that is the test's own.
type accounts struct {
	t      testing.TB
	v2     bool
	parent string
}

// Memory is what a cgroup has, in bytes.
type Memory struct {
	Peak, Now int64
	Programs  int64 // pages of its programs' files that are in memory, which are charged to nobody else
}

// All is what it would be charged for where nobody else has its programs.
func (m Memory) All() int64 { return m.Now + m.Programs }

func (m Memory) String() string {
	return fmt.Sprintf("%d MiB (%d of its own, at most %d, and %d of its programs)", m.All()>>20, m.Now>>20, m.Peak>>20, m.Programs>>20)
}

// Cgroup makes one of a task, of so many MiB, and returns podman's options for a container in it.
func (p *Podman) Cgroup(task string, mostMiB int) []string {
	p.t.Helper()
	a := p.accounts
	dir, file := a.dir(task), "memory.limit_in_bytes"
	p.must(os.MkdirAll(dir, 0o755))
	if a.v2 {
		file = "memory.max"
		for _, of := range []string{cgroups, filepath.Dir(dir), dir} {
			p.must(os.WriteFile(filepath.Join(of, "cgroup.subtree_control"), []byte("+memory +pids +cpu"), 0o600))
		}
	} else {
		p.must(os.WriteFile(filepath.Join(dir, "memory.use_hierarchy"), []byte("1"), 0o600))
	}
	p.must(os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(mostMiB<<20)), 0o600))
	return []string{"--cgroup-parent", "/" + a.parent + "/" + task}
}

func (a *accounts) dir(task string) string {
	if a.v2 {
		return filepath.Join(cgroups, a.parent, task)
	}
	return filepath.Join(cgroups, "memory", a.parent, task)
}

// Memory of a container of a task, or with an empty name of the task.
func (p *Podman) Memory(task, container string) (m Memory) {
	p.t.Helper()
	a := p.accounts
	dir := a.dir(task)
	if container != "" {
		dir = filepath.Join(dir, "libpod-"+p.Do("inspect", "--format", "{{.Id}}", container))
	}
	for name, to := range map[string]*int64{"max_usage_in_bytes peak": &m.Peak, "usage_in_bytes current": &m.Now} {
		v1, name, _ := strings.Cut(name, " ")
		if !a.v2 {
			name = v1
		}
		text, err := os.ReadFile(filepath.Join(dir, "memory."+name))
		p.must(err)
		*to, err = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		p.must(err)
	}
	m.Programs = p.programs(dir)
	return m
}

// programs are the pages of files that the processes of a cgroup have in memory, of each program those that the one
// has which has most of it.
func (p *Podman) programs(dir string) (all int64) {
	p.t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	p.must(err)
	most := map[string]int64{}
	for pid := range strings.FieldsSeq(string(text)) {
		rollup, err := os.ReadFile("/proc/" + pid + "/smaps_rollup")
		program, gone := os.Readlink("/proc/" + pid + "/exe")
		if err != nil || gone != nil {
			continue // a health check that has ended
		}
		var files int64
		for line := range strings.Lines(string(rollup)) {
			switch f := strings.Fields(line); {
			case len(f) == 3 && f[0] == "Rss:":
				n, err := strconv.ParseInt(f[1], 10, 64)
				p.must(err)
				files += n << 10
			case len(f) == 3 && f[0] == "Anonymous:":
				n, err := strconv.ParseInt(f[1], 10, 64)
				p.must(err)
				files -= n << 10
			}
		}
		most[program] = max(most[program], files)
	}
	for _, n := range most {
		all += n
	}
	return all
}

// Folder makes one of the test's own, in memory as all that the runtime keeps.
func (p *Podman) Folder(name string) string {
	p.t.Helper()
	dir := filepath.Join(p.dir, name)
	p.must(errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o755)))
	return dir
}

// remove removes the cgroups, in which nothing runs any more.
func (a *accounts) remove() {
	all := []string{filepath.Join(cgroups, a.parent)}
	if !a.v2 {
		all, _ = filepath.Glob(filepath.Join(cgroups, "*", a.parent))
	}
	for _, dir := range all {
		var err error
		for range 50 { // conmon ends a moment after its container
			if err = removeCgroups(dir); err == nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			a.t.Error(err)
		}
	}
}
