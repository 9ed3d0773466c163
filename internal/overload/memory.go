package overload

import (
	"bufio"
	"bytes"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Memory is how many bytes this process and all that share its bounds may have: the host's,
// or the least that a cgroup allows (cgroups(7); of v2, or of v1 as containers have it where
// the host counts memory there).
func Memory() int64 {
	var info unix.Sysinfo_t
	all := int64(1 << 30) // where the kernel does not tell
	if err := unix.Sysinfo(&info); err == nil {
		all = int64(info.Totalram) * int64(info.Unit) //nolint:gosec // of one machine
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return all
	}
	return min(all, ofCgroups(own, "/sys/fs/cgroup"), ofFirstCgroups(own, "/sys/fs/cgroup"))
}

// ofFirstCgroups is ofCgroups of cgroup v1. The kernel adds up there what all around a cgroup
// allow. In a container its own cgroup is mounted as if it were the root, and
// /proc/self/cgroup has its name on the host.
func ofFirstCgroups(own []byte, root string) int64 {
	const none = int64(1<<63 - 1)
	for lines := bufio.NewScanner(bytes.NewReader(own)); lines.Scan(); {
		of := strings.SplitN(lines.Text(), ":", 3) // id:controllers:path
		if len(of) != 3 || !slices.Contains(strings.Split(of[1], ","), "memory") {
			continue
		}
		for _, at := range []string{path.Join("/", of[2]), "/"} {
			text, err := os.ReadFile(path.Join(root, "memory", at, "memory.stat")) //nolint:gosec // the kernel names it
			if err != nil {
				continue // not a path of this mount
			}
			for line := range strings.Lines(string(text)) {
				if least, ok := strings.CutPrefix(line, "hierarchical_memory_limit "); ok {
					if n, err := strconv.ParseInt(strings.TrimSpace(least), 10, 64); err == nil && n > 0 {
						return n
					}
				}
			}
			return none
		}
	}
	return none
}

// ofCgroups is the least that the cgroup of a process, or one around it, may have; own is
// its /proc/self/cgroup.
func ofCgroups(own []byte, root string) int64 {
	least := int64(1<<63 - 1)
	for lines := bufio.NewScanner(bytes.NewReader(own)); lines.Scan(); {
		at, ok := strings.CutPrefix(lines.Text(), "0::/")
		if !ok {
			continue
		}
		for at = path.Join("/", at); ; at = path.Dir(at) {
			text, err := os.ReadFile(path.Join(root, at, "memory.max")) //nolint:gosec // the kernel names it
			if err == nil {                                             // the root has none, nor has a tree that is mounted elsewhere
				if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil { // "max" is no bound
					least = min(least, n)
				}
			}
			if at == "/" {
				break
			}
		}
	}
	return least
}
