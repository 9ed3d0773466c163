package parts

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Addresses of the first two hosts that [Hosts] makes; the third has 10.231.0.3.
const (
	ThisHost    = "10.231.0.1"
	AnotherHost = "10.231.0.2"
)

// otherHosts has the network namespaces of the hosts beside this one, with spaces between.
const otherHosts = "SIGNET_TEST_OTHER_HOSTS"

// Hosts runs the calling test, whose name it is given, on a host of its own: a
// network namespace that a wire joins to a second one, so that "from another host"
// is tried and not supposed. It returns true in that second run; the first only
// waits for it and returns false. Needs root and iproute2.
func Hosts(t *testing.T, name string) bool {
	t.Helper()
	return SeveralHosts(t, name, 2)
}

// SeveralHosts is [Hosts] with so many of them, all on one wire.
func SeveralHosts(t *testing.T, name string, count int) bool {
	t.Helper()
	if os.Getenv(otherHosts) != "" {
		return true
	}
	if os.Getuid() != 0 {
		Missing(t, "network namespaces need root")
	}
	ip := Program(t, "ip")
	run := func(ctx context.Context, args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(ctx, ip, args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	var hosts []string
	for i := range count {
		ns := fmt.Sprintf("sg%d%c", os.Getpid(), 'a'+i)
		run(t.Context(), "netns", "add", ns)
		t.Cleanup(func() {
			// What a run that was killed left there, such as containers, which are nobody's children.
			left, _ := exec.CommandContext(context.WithoutCancel(t.Context()), ip, "netns", "pids", ns).Output()
			for pid := range strings.FieldsSeq(string(left)) {
				if n, err := strconv.Atoi(pid); err == nil {
					_ = unix.Kill(n, unix.SIGKILL) // or it has ended a moment ago
				}
			}
			run(context.WithoutCancel(t.Context()), "netns", "del", ns)
		})
		run(t.Context(), "-n", ns, "link", "set", "lo", "up")
		hosts = append(hosts, ns)
	}
	here, others := hosts[0], hosts[1:]
	run(t.Context(), "-n", here, "link", "add", "wire", "type", "bridge")
	for i, ns := range others {
		end := fmt.Sprintf("wire%d", i+2)
		run(t.Context(), "link", "add", end, "netns", here, "type", "veth", "peer", "name", "wire", "netns", ns)
		run(t.Context(), "-n", here, "link", "set", end, "master", "wire", "up")
	}
	for i, ns := range hosts {
		run(t.Context(), "-n", ns, "addr", "add", fmt.Sprintf("10.231.0.%d/24", i+1), "dev", "wire")
		run(t.Context(), "-n", ns, "link", "set", "wire", "up")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bound := "5m"
	if Soak() {
		bound = "1h"
	}
	again := exec.CommandContext(t.Context(), ip, "netns", "exec", here, self, "-test.run", "^"+name+"$", "-test.v", "-test.timeout", bound)
	again.Env = append(os.Environ(), otherHosts+"="+strings.Join(others, " "))
	out, err := again.CombinedOutput()
	t.Logf("on a host of its own:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
	return false
}

// OnAnotherHost is the beginning of a command line that runs on the second host.
func OnAnotherHost() string { return OnHost(2) }

// OnHost is the beginning of a command line that runs on the n-th host, of which the first is this one.
func OnHost(n int) string { return "ip netns exec " + strings.Fields(os.Getenv(otherHosts))[n-2] }

// NetNS is the file of the network namespace that is the n-th host, of which the second is the first other one.
func NetNS(n int) string { return "/run/netns/" + strings.Fields(os.Getenv(otherHosts))[n-2] }

// FromAnotherHost is [FromHost] of the second one.
func FromAnotherHost(t testing.TB, f func()) {
	t.Helper()
	FromHost(t, 2, f)
}

// FromHost calls f where every socket it makes is on the n-th host, of which the first is this
// one, for the calling goroutine only.
func FromHost(t testing.TB, n int, f func()) {
	t.Helper()
	ns, err := os.Open(NetNS(n))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ns.Close() }() // read only
	onThread(t, f, func() error { return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET) })
}

// AsUser calls f as a user without any rights, for the calling goroutine only.
func AsUser(t testing.TB, uid int, f func()) {
	t.Helper()
	onThread(t, f, func() error {
		// The raw calls: those of package syscall change every thread.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
			return errno
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			return errno
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			return errno
		}
		return nil
	})
}

// AsEffectiveUser is AsUser for the effective user alone, as in a set-user-ID program.
func AsEffectiveUser(t testing.TB, uid int, f func()) {
	t.Helper()
	onThread(t, f, func() error {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			return errno
		}
		return nil
	})
}

// onThread runs f on a thread that change has changed, which ends with it.
func onThread(t testing.TB, f func(), change func() error) {
	t.Helper()
	if err := onAnotherThread(f, change); err != nil {
		t.Fatal(err)
	}
}

func onAnotherThread(f func(), change func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// The first thread never ends, and its user is the process' to whoever looks. It is
			// kept here while another one is changed.
			defer runtime.UnlockOSThread()
			done <- onAnotherThread(f, change)
			return
		}
		err := change() // never unlocked: the thread is of no use to others
		if err == nil {
			f()
		}
		done <- err
	}()
	return <-done
}
