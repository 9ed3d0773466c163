package attestation

import (
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Cgroups finds the unit behind a cgroup id: the service or container that a
// process was started in. The zero value works; it may be used by several goroutines.
type Cgroups struct {
	mu    sync.Mutex
	units map[uint64]string // guarded by mu; what was found, "" for none
}

const (
	// maxCgroups bounds a search, and what is remembered of them.
	maxCgroups = 16 << 10
	// unifiedRoot and hybridRoot are where cgroup v2 is mounted.
	unifiedRoot = "/sys/fs/cgroup"
	hybridRoot  = "/sys/fs/cgroup/unified"
)

// Unit returns the path of the service or container that the cgroup belongs to;
// "" where it is none, such as a login session, or cannot be found from here.
func (c *Cgroups) Unit(id uint64) string {
	if id <= 1 {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if u, ok := c.units[id]; ok {
		return u // an id is not given again
	}
	p, ok := cgroupPath(id)
	if !ok {
		return ""
	}
	if c.units == nil || len(c.units) >= maxCgroups {
		c.units = map[uint64]string{}
	}
	c.units[id] = unitOf(p)
	return c.units[id]
}

// cgroupPath is the cgroup's path below the root of cgroup v2: its id is the
// number of its folder there.
func cgroupPath(id uint64) (string, bool) {
	for _, root := range []string{unifiedRoot, hybridRoot} {
		var fs unix.Statfs_t
		if unix.Statfs(root, &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		found, seen := "", 0
		_ = filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error { // what cannot be read is not found
			if err != nil || !d.IsDir() {
				return nil //nolint:nilerr // see above
			}
			if seen++; seen > maxCgroups {
				return filepath.SkipAll
			}
			info, err := d.Info()
			if err != nil {
				return nil //nolint:nilerr // it went meanwhile
			}
			if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Ino == id {
				found = "/" + strings.Trim(strings.TrimPrefix(p, root), "/")
				return filepath.SkipAll
			}
			return nil
		})
		return found, found != ""
	}
	return "", false
}

// unitOf is the innermost service or container of a cgroup's path, as a path. A
// login session's scope is none, nor is the manager of a user's own services:
// whoever logs in is in one.
func unitOf(cgroup string) string {
	for p := path.Clean(cgroup); p != "/" && p != "."; p = path.Dir(p) {
		name := path.Base(p)
		if isContainer(name) || strings.HasSuffix(name, ".service") && !strings.HasPrefix(name, "user@") {
			return p
		}
	}
	return ""
}

// isContainer recognizes the names that container runtimes give: the 64 hex
// digits of an id, alone or with what the runtime writes around them
// (docker-<id>.scope, cri-containerd-<id>.scope, libpod-<id>), or those of an
// Amazon ECS task's container, <32 hex digits>-<number>.
func isContainer(name string) bool {
	name = strings.TrimSuffix(name, ".scope")
	id := name[strings.LastIndexByte(name, '-')+1:]
	if len(id) == 64 && isHex(id) {
		return true
	}
	task, number, ok := strings.Cut(name, "-")
	return ok && len(task) == 32 && isHex(task) && number != "" && strings.Trim(number, "0123456789") == ""
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }
