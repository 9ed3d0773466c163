package child_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"signet.example/internal/child"
	"signet.example/test/parts"
)

// This binary is parent and child, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "parent":
			exitOn(parent(os.Args[2]))
		case "child", "confined-child":
			if os.Args[1] == "confined-child" {
				exitOn(child.Confine())
			}
			exitOn(report(os.Stdout))
			time.Sleep(time.Minute)
		case "eat":
			eat()
		case "first":
			exitOn(first(os.Args[2]))
		case "first-nothing":
			exitOn(firstNothing(os.Stdout))
		}
	}
	os.Exit(m.Run())
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

// has is what the kernel says of a process.
type has struct {
	PID    int
	Status map[string]string
	Cwd    string
	Env    []string
	FDs    []string
	Leader bool // of a session
}

var interesting = []string{"Uid", "Gid", "Groups", "Umask", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"}

// report is about the calling process, of every thread of which the same must be true.
func report(w io.Writer) error {
	h := has{PID: os.Getpid(), Env: os.Environ()}
	h.Cwd, _ = os.Getwd()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		status, err := statusOf("/proc/self/task/" + task.Name())
		if err != nil {
			return err
		}
		if h.Status != nil && !cmp.Equal(h.Status, status) {
			return fmt.Errorf("threads differ: %v", cmp.Diff(h.Status, status))
		}
		h.Status = status
	}
	for fd := range 64 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
			if err != nil {
				target = err.Error()
			}
			kind, _, _ := strings.Cut(target, ":[")
			if kind == "anon_inode" || strings.HasPrefix(kind, "anon_inode:") || strings.HasPrefix(kind, "/sys/fs/cgroup/") {
				continue // the runtime's own
			}
			h.FDs = append(h.FDs, fmt.Sprintf("%d %s", fd, kind))
		}
	}
	sid, err := unix.Getsid(0)
	h.Leader = err == nil && sid == h.PID
	return json.NewEncoder(w).Encode(h)
}

func statusOf(dir string) (map[string]string, error) {
	content, err := os.ReadFile(dir + "/status")
	if err != nil {
		return nil, err
	}
	status := map[string]string{}
	for line := range strings.Lines(string(content)) {
		key, value, _ := strings.Cut(line, ":")
		if slices.Contains(interesting, key) {
			status[key] = strings.Join(strings.Fields(value), " ")
		}
	}
	return status, nil
}

// plan is what a parent in a process of its own is told to start.
type plan struct {
	Path     string
	Confines bool
	User     *child.User
}

func parent(text string) error {
	var p plan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return err
	}
	arg := "child"
	if p.Confines {
		arg = "confined-child"
	}
	c, err := child.Start(child.Spec{Path: p.Path, Args: []string{arg}, Env: []string{"GIVEN=1"}, User: p.User, Confines: p.Confines, Stdout: os.Stdout, Stderr: os.Stderr})
	if err != nil {
		return err
	}
	<-c.Done()
	return c.Err()
}

func run(t *testing.T, spec child.Spec) has {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	spec.Path, spec.Args, spec.Stdout, spec.Stderr = exe, []string{"child"}, w, os.Stderr
	c, err := child.Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Stop(0) })
	var h has
	if err := json.NewDecoder(r).Decode(&h); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, r) //nolint:errcheck // nothing comes
	return h
}

func TestAChildHasOnlyWhatItIsGiven(t *testing.T) {
	// As whoever started this process may have left it: a descriptor that is not
	// closed on exec, and an environment.
	t.Setenv("SECRET", "x")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(r.Close(), w.Close()) }()
	leaked, err := unix.Dup(int(r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(leaked) }()
	before, err := statusOf("/proc/thread-self")
	if err != nil {
		t.Fatal(err)
	}

	h := run(t, child.Spec{Files: []*os.File{w}, Env: []string{"GIVEN=1"}, Umask: 0o027})
	if want := []string{"0 /dev/null", "1 pipe", "2 " + stderrKind(t), "3 pipe"}; !slices.Equal(h.FDs, want) {
		t.Errorf("descriptors %q, want %q", h.FDs, want)
	}
	if want := []string{"GIVEN=1"}; !slices.Equal(h.Env, want) {
		t.Errorf("environment %q, want %q", h.Env, want)
	}
	if h.Cwd != "/" || h.Status["Umask"] != "0027" || !h.Leader || h.Status["NoNewPrivs"] != "1" {
		t.Errorf("cwd %s, umask %s, leads a session %t, no_new_privs %s", h.Cwd, h.Status["Umask"], h.Leader, h.Status["NoNewPrivs"])
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
		if h.Status[set] != none {
			t.Errorf("%s: %s", set, h.Status[set])
		}
	}
	for _, own := range []string{"Uid", "Gid", "Groups"} {
		if h.Status[own] != before[own] {
			t.Errorf("%s is %s, the parent's %s", own, h.Status[own], before[own])
		}
	}
	after, err := statusOf("/proc/self")
	if err != nil {
		t.Fatal(err)
	}
	if !cmp.Equal(before, after) {
		t.Errorf("starting a child changed the parent: %s", cmp.Diff(before, after))
	}
}

func stderrKind(t *testing.T) string {
	t.Helper()
	target, err := os.Readlink("/proc/self/fd/2")
	if err != nil {
		t.Fatal(err)
	}
	kind, _, _ := strings.Cut(target, ":[")
	return kind
}

const (
	none     = "0000000000000000"
	nobody   = 64990 // of the parent
	stranger = 64991 // of the child
)

// granted are what the unit of the agent grants.
var granted = []uintptr{unix.CAP_SYS_PTRACE, unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_KILL}

// copyOf this binary that everybody may execute, with capabilities on the file.
func copyOf(t *testing.T, capabilities []uintptr) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "child")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "program")
	if err := errors.Join(os.WriteFile(path, content, 0o755), os.Chmod(path, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	if capabilities != nil {
		var bits uint32
		for _, c := range capabilities {
			bits |= 1 << c
		}
		// struct vfs_cap_data, revision 2, effective.
		var b bytes.Buffer
		if err := binary.Write(&b, binary.LittleEndian, []uint32{0x02000001, bits, 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
		if err := unix.Setxattr(path, "security.capability", b.Bytes(), 0); err != nil {
			parts.Missing(t, "file capabilities on "+dir+": "+err.Error())
		}
	}
	return path
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		parts.Missing(t, "root, to start parents of other users with capabilities")
	}
}

func TestHoweverAParentGotItsCapabilitiesAChildHasNoneAndEndsWithIt(t *testing.T) {
	needRoot(t)
	plain, withCaps := copyOf(t, nil), copyOf(t, granted)
	unprivileged := &syscall.Credential{Uid: nobody, Gid: nobody}
	ways := map[string]struct {
		program string
		attr    *syscall.SysProcAttr
		bounded string // the child's bounding set
	}{
		"ambient":         {plain, &syscall.SysProcAttr{Credential: unprivileged, AmbientCaps: granted}, ""},
		"file capability": {withCaps, &syscall.SysProcAttr{Credential: unprivileged}, ""},
		"root":            {plain, &syscall.SysProcAttr{}, none},
	}
	for way, w := range ways {
		for name, c := range map[string]plan{
			"own program as the same user":   {Path: w.program, Confines: true},
			"own program as another user":    {Path: w.program, Confines: true, User: &child.User{UID: stranger, GID: stranger}},
			"other program as the same user": {Path: plain},
			"other program as another user":  {Path: plain, User: &child.User{UID: stranger, GID: stranger, Groups: []uint32{stranger + 1}}},
		} {
			t.Run(way+", "+name, func(t *testing.T) {
				t.Parallel()
				text, err := json.Marshal(c)
				if err != nil {
					t.Fatal(err)
				}
				cmd := exec.Command(w.program, "parent", string(text))
				attr := *w.attr
				cmd.SysProcAttr, cmd.Stderr, cmd.Env, cmd.Dir = &attr, os.Stderr, []string{"SECRET=x"}, "/"
				out, err := cmd.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				defer func() { _ = cmd.Wait() }()
				defer func() { _ = cmd.Process.Kill() }()
				var h has
				if err := json.NewDecoder(bufio.NewReader(out)).Decode(&h); err != nil {
					t.Fatal(err)
				}
				uid := int(attrUID(&attr))
				groups := ""
				if attr.Credential == nil {
					own, err := statusOf("/proc/self")
					if err != nil {
						t.Fatal(err)
					}
					groups = own["Groups"]
				}
				if c.User != nil {
					uid, groups = int(c.User.UID), ""
					if c.User.Groups != nil {
						groups = strconv.Itoa(int(c.User.Groups[0]))
					}
				}
				ids := strings.TrimSpace(strings.Repeat(strconv.Itoa(uid)+" ", 4))
				want := map[string]string{
					"Uid": ids, "Gid": ids, "Groups": groups, "Umask": "0077", "NoNewPrivs": "1",
					"CapInh": none, "CapPrm": none, "CapEff": none, "CapAmb": none, "CapBnd": w.bounded,
				}
				if w.bounded == "" {
					delete(want, "CapBnd") // the kernel lets nobody without CAP_SETPCAP drop from it
					delete(h.Status, "CapBnd")
				}
				if diff := cmp.Diff(want, h.Status); diff != "" {
					t.Errorf("want, has: %s", diff)
				}
				pidfd, err := unix.PidfdOpen(h.PID, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = unix.Close(pidfd) }()
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				if n, err := poll(pidfd, 10*time.Second); err != nil || n != 1 {
					_ = unix.Kill(h.PID, unix.SIGKILL)
					t.Errorf("10 s after kill -9 of its parent the child is there: %v", err)
				}
			})
		}
	}
}

func attrUID(a *syscall.SysProcAttr) uint32 {
	if a.Credential == nil {
		return 0
	}
	return a.Credential.Uid
}

func poll(fd int, within time.Duration) (int, error) {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(within.Milliseconds())) //nolint:gosec // a descriptor is small
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func TestAChildOfAnotherUserIsRefusedWhereItCouldNotBeEnded(t *testing.T) {
	needRoot(t)
	plain := copyOf(t, nil)
	text, err := json.Marshal(plan{Path: plain, User: &child.User{UID: stranger, GID: stranger}})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(plain, "parent", string(text))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, AmbientCaps: []uintptr{unix.CAP_SETUID, unix.CAP_SETGID}}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "lacks CAP_KILL") {
		t.Errorf("%v: %s", err, out)
	}
}

// A login puts the user's own group among its groups too.
func TestAUserWithoutAnyRightsStartsChildrenAsItself(t *testing.T) {
	needRoot(t)
	plain := copyOf(t, nil)
	own := child.User{UID: nobody, GID: nobody}
	in := func(groups ...uint32) *child.User { return &child.User{UID: own.UID, GID: own.GID, Groups: groups} }
	for name, c := range map[string]struct {
		has     []uint32
		user    *child.User
		refused string
	}{
		"as a login has them":                     {[]uint32{nobody}, in(), ""},
		"a service with no groups":                {nil, in(), ""},
		"with one more, by name":                  {[]uint32{nobody, stranger}, in(stranger), ""},
		"its own group given twice":               {nil, in(nobody), ""},
		"with one more, by number":                {[]uint32{nobody, stranger}, in(), ""},
		"in a group since the login, by its name": {[]uint32{nobody}, in(stranger), fmt.Sprintf("the user is in group %d, this process is not", stranger)},
		"another group of its own":                {[]uint32{nobody}, &child.User{UID: nobody, GID: stranger}, "lacks CAP_SETGID"},
	} {
		text, err := json.Marshal(plan{Path: plain, User: c.user})
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(plain, "parent", string(text))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody, Groups: c.has}}
		var stderr strings.Builder
		cmd.Stderr, cmd.Env, cmd.Dir = &stderr, nil, "/"
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var h has
		started := json.NewDecoder(bufio.NewReader(out)).Decode(&h)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if c.refused != "" {
			if started == nil || !strings.Contains(stderr.String(), c.refused) {
				t.Errorf("%s: %v: %s", name, started, stderr.String())
			}
			continue
		}
		want := strings.Trim(fmt.Sprint(c.has), "[]")
		if started != nil || h.Status["Groups"] != want || h.Status["CapEff"] != none {
			t.Errorf("%s: %v: %s: has groups %q, want %q", name, started, stderr.String(), h.Status["Groups"], want)
		}
	}
}

func TestAProgramWhoseFileWouldDisarmTheParentsDeathIsRefused(t *testing.T) {
	needRoot(t)
	if _, err := child.Start(child.Spec{Path: copyOf(t, granted), Args: []string{"child"}}); err == nil || !strings.Contains(err.Error(), "setcap -r") {
		t.Errorf("file capabilities: %v", err)
	}
	setuid := copyOf(t, nil)
	if err := os.Chmod(setuid, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	if _, err := child.Start(child.Spec{Path: setuid, Args: []string{"child"}}); err == nil || !strings.Contains(err.Error(), "chmod ug-s") {
		t.Errorf("set-user-id: %v", err)
	}
}

// eat takes memory until it is stopped.
func eat() {
	var all [][]byte
	for {
		b := make([]byte, 1<<20)
		for i := range b {
			b[i] = byte(i)
		}
		all = append(all, b)
		time.Sleep(200 * time.Microsecond)
		if len(all) > 4<<10 {
			os.Exit(9)
		}
	}
}

func TestAChildOverItsLimitIsKilledAndSaysWhy(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		limits child.Limits
		arg    string
		what   string // "" is a death by the kernel or the runtime
	}{
		"memory in use": {child.Limits{RSS: 64 << 20}, "eat", "memory"},
		"deadline":      {child.Limits{Deadline: 50 * time.Millisecond}, "child", "deadline"},
		"data":          {child.Limits{Data: 256 << 20}, "eat", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := child.Start(child.Spec{Path: exe, Args: []string{c.arg}, Limits: c.limits})
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-p.Done():
			case <-time.After(30 * time.Second):
				p.Stop(0)
				t.Fatal("it lives")
			}
			var limit *child.LimitError
			if err := p.Err(); err == nil || errors.As(err, &limit) != (c.what != "") || limit != nil && limit.What != c.what {
				t.Errorf("ended by %v", err)
			}
			var exit *exec.ExitError
			if errors.As(p.Err(), &exit) && exit.ExitCode() == 9 {
				t.Error("it got all the memory it wanted")
			}
		})
	}
}

func TestWhatAChildLeavesBehindInItsGroupIsEnded(t *testing.T) {
	r, w := io.Pipe()
	p, err := child.Start(child.Spec{Path: "/bin/sh", Args: []string{"-c", "sleep 60 >/dev/null 2>&1 & echo $!"}, Stdout: w})
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	grandchild, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	for range 500 {
		// Its next parent may leave it a zombie.
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", grandchild))
		if err != nil || strings.Contains(string(content), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	_ = unix.Kill(grandchild, unix.SIGKILL)
	t.Error("the grandchild is there")
}

func TestAChildThatDoesNotStartLeavesNothing(t *testing.T) {
	if _, err := child.Start(child.Spec{Path: "/does/not/exist"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no program: %v", err)
	}
	refused := errors.New("refused")
	pid := 0
	_, err := child.Start(child.Spec{Path: "/bin/sleep", Args: []string{"60"}, Begun: func(fd int) (func(), error) {
		pid = pidOf(t, fd)
		return nil, refused
	}})
	if !errors.Is(err, refused) {
		t.Errorf("refused by the caller: %v", err)
	}
	if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("process %d: %v", pid, err)
	}
}

func pidOf(t *testing.T, pidfd int) int {
	t.Helper()
	content, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(pidfd))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		if rest, ok := strings.CutPrefix(line, "Pid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(rest))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatal("no pid")
	return 0
}

// `signet dev --envoy .bin/envoy` is what the README's first command runs.
func TestAProgramsRelativePathIsTheParents(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Symlink("/bin/true", "own-true"); err != nil {
		t.Fatal(err)
	}
	p, err := child.Start(child.Spec{Path: "./own-true"})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if err := p.Err(); err != nil {
		t.Error(err)
	}
}
