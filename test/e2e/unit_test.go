package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"signet.example/test/parts"
)

// ownUnit makes a cgroup that looks like a service's, and returns how to move this
// process into it, and out again.
func ownUnit(t *testing.T) (in, out func()) {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(root, &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		before := cgroupOf(t)
		dir := filepath.Join(root, fmt.Sprintf("signet-%d.service", os.Getpid()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			break // not ours to change
		}
		move := func(to string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		in, out = func() { move(dir) }, func() { move(filepath.Join(root, before)) }
		t.Cleanup(func() {
			out()
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
		return in, out
	}
	parts.Missing(t, "cgroup v2 is not mounted, or not to be changed")
	return nil, nil
}

// cgroupOf this process in cgroup v2.
func cgroupOf(t *testing.T) string {
	t.Helper()
	for _, line := range procLines(t, "/proc/self/cgroup") {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return path
		}
	}
	return "/"
}

func TestAServiceIsTheApplicationAndNotAllOfItsUser(t *testing.T) {
	in, out := ownUnit(t)
	in() // the application's listener is made there
	w := wayOutWorld(t, newCounting(), "")
	at := w.Nodes["web"].EgressAddress()
	may := func(what string, yes bool) {
		t.Helper()
		if status, err := rawCall(at, "/orders"); yes != (err == nil && status == 200) {
			t.Errorf("%s: %d, %v", what, status, err)
		}
	}
	may("the service", true)
	out()
	may("a process of the same user outside of it", false)
	eventually(t, 5*time.Second, "the agent says why", func() bool {
		return strings.Contains(w.Agent.Tail(1<<20), "a process of user 0 outside of /signet-")
	})
	in()
	may("the service again", true)
}
