package overload

import (
	"bufio"
	"bytes"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Memory is how many bytes this process and all that share its bounds may have: the host's,
// or the least that a cgroup allows (v2, cgroups(7); one of v1 is not read).
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
	return min(all, ofCgroups(own, "/sys/fs/cgroup"))
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
