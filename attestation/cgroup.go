package attestation

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroups finds the unit behind a cgroup id: the service or container that a
// process was started in. The zero value works; it may be used by several
// goroutines, and none waits for the search of another.
type Cgroups struct {
	mu     sync.Mutex
	units  map[uint64]string // guarded by mu; what was found, "" for none
	missed map[search]missed // guarded by mu; what was searched in vain lately
	walks  int               // guarded by mu; searches that read folders

	testOnlyRoot string // in the place of where cgroup v2 is mounted
	testOnlyMost int    // in the place of maxCgroups, for one search
}

// search is for one cgroup, below one unit or everywhere ("").
type search struct {
	below string
	id    uint64
}

type missed struct {
	at  time.Time
	err error // the search could not be finished
}

const (
	// maxCgroups bounds a search, and what is remembered of them.
	maxCgroups = 16 << 10
	// missedFor is how long a search is not tried again: a cgroup that is gone
	// does not come back, one that could not be seen may.
	missedFor = 10 * time.Second
	// unifiedRoot and hybridRoot are where cgroup v2 is mounted.
	unifiedRoot = "/sys/fs/cgroup"
	hybridRoot  = "/sys/fs/cgroup/unified"
)

// ErrCgroupSearch is returned when a search for cgroups could not be finished.
var ErrCgroupSearch = errors.New("the search for its service or container could not be finished")

// Units returns the paths of the services or containers that the cgroups belong
// to, "" for one that belongs to none, such as a login session. A cgroup that is
// gone, cannot be seen from here, or is not told by the kernel (0 and 1) is missing
// from the answer; with ErrCgroupSearch it may be there all the same. All that is
// not known yet is searched for at once.
func (c *Cgroups) Units(ids []uint64) (map[uint64]string, error) {
	units, missing := map[uint64]string{}, map[uint64]bool{}
	var errs error
	c.mu.Lock()
	for _, id := range ids {
		if u, ok := c.units[id]; ok {
			units[id] = u // an id is not given again
		} else if id <= 1 {
			continue // the kernel says nothing: SocketOwner.Cgroup
		} else if m, ok := c.missedLately(search{"", id}); !ok {
			missing[id] = true
		} else if m.err != nil {
			errs = m.err
		}
	}
	c.mu.Unlock()
	if len(missing) == 0 {
		return units, errs
	}
	paths, err := c.walk("", missing)
	for id, p := range paths {
		units[id] = unitOf(p)
	}
	if err != nil {
		errs = err
	}
	return units, errs
}

// In reports whether the cgroup is that of a unit or of a part of it. It looks
// there only, so that it costs a caller from elsewhere nothing to be told apart.
func (c *Cgroups) In(unit string, id uint64) bool {
	if id <= 1 || unit == "" {
		return false
	}
	c.mu.Lock()
	u, known := c.units[id]
	_, recently := c.missedLately(search{unit, id})
	c.mu.Unlock()
	if known || recently {
		return known && u == unit
	}
	paths, _ := c.walk(unit, map[uint64]bool{id: true}) // what was not found is not in it
	p, ok := paths[id]
	return ok && unitOf(p) == unit
}

// missedLately needs mu.
func (c *Cgroups) missedLately(s search) (missed, bool) {
	m, ok := c.missed[s]
	return m, ok && time.Since(m.at) < missedFor
}

// walk looks for cgroups below a unit, and remembers what it found and what not.
func (c *Cgroups) walk(below string, ids map[uint64]bool) (map[uint64]string, error) {
	var paths map[uint64]string
	var err error
	if root := c.root(); root != "" {
		paths, err = cgroupPaths(root, below, ids, cmp.Or(c.testOnlyMost, maxCgroups))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.walks++
	if c.units == nil || len(c.units)+len(ids) > maxCgroups {
		c.units = map[uint64]string{}
	}
	if c.missed == nil || len(c.missed)+len(ids) > maxCgroups {
		c.missed = map[search]missed{}
	}
	for id := range ids {
		if p, ok := paths[id]; ok {
			c.units[id] = unitOf(p)
		} else {
			c.missed[search{below, id}] = missed{time.Now(), err}
		}
	}
	return paths, err
}

// root is where cgroup v2 is mounted, "" for nowhere.
func (c *Cgroups) root() string {
	if c.testOnlyRoot != "" {
		return c.testOnlyRoot
	}
	for _, root := range []string{unifiedRoot, hybridRoot} {
		var fs unix.Statfs_t
		if unix.Statfs(root, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return root
		}
	}
	return ""
}

// cgroupPaths are the cgroups' paths below the root of cgroup v2: an id is the
// number of a folder there.
func cgroupPaths(root, below string, ids map[uint64]bool, most int) (map[uint64]string, error) {
	found, seen := map[uint64]string{}, 0
	err := filepath.WalkDir(filepath.Join(root, below), func(p string, d os.DirEntry, err error) error {
		switch {
		case errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV):
			return nil // it went meanwhile
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		}
		if seen++; seen > most {
			return fmt.Errorf("more than %d cgroups", most)
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // it went meanwhile
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && ids[st.Ino] {
			found[st.Ino] = "/" + strings.Trim(strings.TrimPrefix(p, root), "/")
			if len(found) == len(ids) {
				return filepath.SkipAll
			}
		}
		return nil
	})
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrCgroupSearch, err)
	}
	return found, err
}

// MadeAnew reports whether a unit can be the container before, or a service in it,
// made anew by the same runtime: only ids are new then. What lies above counts too,
// since whoever may make cgroups chooses their names: below a user's own manager,
// that is the user, so that nothing there is a container made anew.
func MadeAnew(before, now string) bool {
	was, inOne := withoutIDs(before)
	is, inAnother := withoutIDs(now)
	return inOne && inAnother && was == is
}

// ids are those that change when a container, its pod or its task is made anew:
// of a container (64 hex digits), of a pod (a UUID; in a systemd slice with '_'), and
// of an Amazon ECS task, alone or with the number of its container.
var ids = regexp.MustCompile(`[0-9a-f]{64}|[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}(?:-[0-9]+)?`)

// withoutIDs is the path of a unit in a container without what changes when the
// container is made anew. It is ok where that can be told.
func withoutIDs(unit string) (rest string, ok bool) {
	for name := range strings.SplitSeq(path.Clean(unit), "/") {
		if name == "user.slice" || strings.HasPrefix(name, "user@") {
			return "", false
		}
		ok = ok || isContainer(name)
	}
	return ids.ReplaceAllString(path.Clean(unit), "*"), ok
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
