package child

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// User is whom a child runs as.
type User struct {
	UID, GID uint32
	// Groups are its supplementary groups, and all of them.
	Groups []uint32
}

// Other reports whether the child has another uid than this process; it has not
// where u is nil.
func (u *User) Other() bool { return u != nil && int(u.UID) != os.Geteuid() }

// ownGroups are this process's supplementary groups without its own gid, which a login
// names a second time among them (initgroups(3)).
func ownGroups() ([]uint32, error) {
	all, err := unix.Getgroups()
	if err != nil {
		return nil, fmt.Errorf("groups: %w", err)
	}
	var groups []uint32
	for _, g := range all {
		if g != os.Getegid() {
			groups = append(groups, uint32(g)) //nolint:gosec // a gid has 32 bits
		}
	}
	return groups, nil
}

// without are the groups of list that are neither u's own nor among others.
func (u *User) without(list, others []uint32) []uint32 {
	return slices.DeleteFunc(slices.Clone(list), func(g uint32) bool { return g == u.GID || slices.Contains(others, g) })
}

// regroups reports whether the child gets another group or other groups. A child that
// has user and group of this process keeps groups of this process which it would not
// have by itself, where they cannot be taken from it: nothing is gained by it.
func (u *User) regroups(c sets) (bool, error) {
	if u == nil {
		return false, nil
	}
	own, err := ownGroups()
	if err != nil {
		return false, err
	}
	if int(u.GID) != os.Getegid() || len(u.without(u.Groups, own)) > 0 {
		return true, nil
	}
	return len(u.without(own, u.Groups)) > 0 && (u.Other() || c.effective.has(unix.CAP_SETGID)), nil
}

// Possible reports why a child of this user cannot be started, or could not be
// ended: a signal to another uid needs CAP_KILL, the kernel's at the parent's
// death (PDEATHSIG) as well as the parent's own.
func (u *User) Possible() error {
	if u == nil {
		return nil
	}
	if u.Other() && u.UID == 0 {
		return fmt.Errorf("run as uid 0: only a parent that is root may have a child that is")
	}
	c, err := capabilities()
	if err != nil {
		return err
	}
	var missing []string
	need := func(capability int, name string) {
		if !c.effective.has(capability) {
			missing = append(missing, name)
		}
	}
	if u.Other() {
		need(unix.CAP_SETUID, "CAP_SETUID")
		need(unix.CAP_KILL, "CAP_KILL")
	}
	regroups, err := u.regroups(c)
	if err != nil {
		return err
	}
	if regroups {
		need(unix.CAP_SETGID, "CAP_SETGID")
	}
	if missing != nil && !u.Other() && int(u.GID) == os.Getegid() {
		own, err := ownGroups()
		if err != nil {
			return err
		}
		return fmt.Errorf("run as uid %d and gid %d: the user is in group %d, this process is not: start it from a new login, or grant it CAP_SETGID, or give uid:gid in the place of the name",
			u.UID, u.GID, u.without(u.Groups, own)[0])
	}
	if missing != nil {
		return &LackError{Capabilities: missing, Users: []User{*u}}
	}
	return nil
}

// LackError is returned where this process lacks capabilities for children of other users.
type LackError struct {
	Capabilities []string
	Users        []User
}

func (e *LackError) Error() string {
	var as []string
	for _, u := range e.Users {
		as = append(as, fmt.Sprintf("uid %d and gid %d", u.UID, u.GID))
	}
	return fmt.Sprintf("run as %s: this process lacks %s: grant it, or run the child as uid %d and gid %d",
		strings.Join(as, ", as "), strings.Join(e.Capabilities, " and "), os.Geteuid(), os.Getegid())
}

// And is both: what one of them lacks, the other one may too.
func (e *LackError) And(o *LackError) *LackError {
	all := &LackError{slices.Clone(e.Capabilities), slices.Clone(e.Users)}
	for _, c := range o.Capabilities {
		if !slices.Contains(all.Capabilities, c) {
			all.Capabilities = append(all.Capabilities, c)
		}
	}
	for _, u := range o.Users {
		if !slices.ContainsFunc(all.Users, func(has User) bool { return has.UID == u.UID && has.GID == u.GID }) {
			all.Users = append(all.Users, u)
		}
	}
	return all
}

// onThread runs f on a thread of its own, which ends with f. The kernel sends
// PDEATHSIG when the thread that forked ends, so f must last as long as its child.
func onThread(f func()) {
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	// The main thread would not end but stay, with what was taken from it. Hold it
	// while another goroutine gets another thread.
	taken := make(chan struct{})
	go onThread(func() {
		close(taken)
		f()
	})
	<-taken
	runtime.UnlockOSThread()
}

// shed takes from the calling thread what a child must not inherit.
//
// What is left over is for what the child itself must still do between fork and
// exec, and for this thread's end: with a uid of its own it needs CAP_SETUID, and
// this thread CAP_KILL for PDEATHSIG. Neither survives the exec: a change of uid
// from root clears the permitted set; else it is cleared since the ambient set is
// empty, unless the file executed has capabilities itself. Then the permitted set
// is at most these two (no_new_privs), for programs of ours alone, and Confine
// drops them.
func shed(spec Spec) error {
	// Nothing that is executed from here on adds a privilege, and a uid of 0 does
	// not bring back what is dropped below.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_NO_NEW_PRIVS: %w", err)
	}
	now, err := capabilities()
	if err != nil {
		return err
	}
	if err := spec.User.regroup(now); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_CAP_AMBIENT_CLEAR_ALL: %w", err)
	}
	if now.effective.has(unix.CAP_SETPCAP) {
		if err := emptyBoundingSet(); err != nil {
			return err
		}
	}
	var left set
	if spec.User.Other() {
		left = now.permitted & (set(1)<<unix.CAP_SETUID | set(1)<<unix.CAP_KILL)
	}
	if want := (sets{effective: left, permitted: left}); want != now {
		if err := want.apply(); err != nil {
			return err
		}
	}
	return nil
}

// regroup changes the calling thread alone. Its groups give it nothing that others
// of this process have not, and nothing is decided by them when it is signalled.
func (u *User) regroup(c sets) error {
	regroups, err := u.regroups(c)
	if err != nil || !regroups {
		return err
	}
	groups := append([]uint32{0}, u.Groups...)[1:]                                                                                                  // &groups[0] must exist
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0); errno != 0 { //nolint:gosec // a pointer to our own slice
		return fmt.Errorf("setgroups: %w", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(u.GID), uintptr(u.GID), uintptr(u.GID)); errno != 0 {
		return fmt.Errorf("setresgid: %w", errno)
	}
	return nil
}

// forking is held while the umask of the whole process is a child's.
var forking sync.Mutex

// withUmask runs start with the umask that a child is to have. Threads share it,
// unless they ask not to, which some sandboxes forbid: there all of this process has
// it for as long as a fork takes.
func withUmask(umask int, start func() error) error {
	if umask == 0 {
		umask = 0o077
	}
	if unix.Unshare(unix.CLONE_FS) == nil {
		unix.Umask(umask)
		return start()
	}
	forking.Lock()
	defer forking.Unlock()
	defer unix.Umask(unix.Umask(umask))
	return start()
}

func emptyBoundingSet() error {
	for c := range 64 {
		switch err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); {
		case errors.Is(err, unix.EINVAL):
			return nil // the kernel has no more
		case err != nil:
			return fmt.Errorf("PR_CAPBSET_DROP %d: %w", c, err)
		}
	}
	return nil
}

// set is a capability set.
type set uint64

func (s set) has(capability int) bool { return s>>capability&1 == 1 }

// sets are those of a thread that capget(2) shows.
type sets struct{ effective, permitted, inheritable set }

// capabilities of the calling thread.
func capabilities() (sets, error) {
	var data [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return sets{}, fmt.Errorf("capget: %w", err)
	}
	both := func(low, high uint32) set { return set(high)<<32 | set(low) }
	return sets{
		effective:   both(data[0].Effective, data[1].Effective),
		permitted:   both(data[0].Permitted, data[1].Permitted),
		inheritable: both(data[0].Inheritable, data[1].Inheritable),
	}, nil
}

// apply gives the calling thread these sets.
func (s sets) apply() error {
	low := func(s set) uint32 { return uint32(s) } //nolint:gosec // its low half
	high := func(s set) uint32 { return uint32(s >> 32) }
	data := [2]unix.CapUserData{
		{Effective: low(s.effective), Permitted: low(s.permitted), Inheritable: low(s.inheritable)},
		{Effective: high(s.effective), Permitted: high(s.permitted), Inheritable: high(s.inheritable)},
	}
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}

// plainFile refuses a program whose file has capabilities or set-id bits. A child
// gains nothing by them, but such an exec disarms PDEATHSIG: it would outlive us.
func plainFile(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if mode := info.Mode(); mode&(os.ModeSetuid|os.ModeSetgid) != 0 {
		return fmt.Errorf("it is set-user-id or set-group-id, and a child would not end with its parent: chmod ug-s %s", path)
	}
	if n, err := unix.Getxattr(path, "security.capability", nil); err == nil && n > 0 {
		return fmt.Errorf("its file has capabilities, which no child gets, and a child would not end with its parent: setcap -r %s", path)
	}
	return nil
}

// closeOnExec marks every descriptor of this process from 3 on: some may come from
// whoever started it, and no child is to have them. Those that a child is given
// are unmarked in the child.
func closeOnExec() error {
	err := unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil || !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	entries, err := os.ReadDir("/proc/self/fd") // Linux < 5.11
	if err != nil {
		return err
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
