package attestation_test

import (
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"signet.example/attestation"
)

func withPidfd(fd *int) *syscall.SysProcAttr { return &syscall.SysProcAttr{PidFD: fd} }

func TestProcessThatTheAgentStartedIsItsProxy(t *testing.T) {
	eachMode(t, func(t *testing.T, a *attestation.Attestor) {
		s := newStage(t)
		var children attestation.Children
		a.Supervised = children.Supervised
		pidfd := -1
		_, conn := s.connect(t, withPidfd(&pidfd))
		defer func() { _ = unix.Close(pidfd) }() // nothing is lost
		_, stranger := s.connect(t, nil)
		remove, err := children.Add(pidfd, "web-1")
		if err != nil {
			t.Fatal(err)
		}
		own := peerOf(t, a, conn)
		if sels := selectors(t, own); !has(sels, "signet:proxy:web-1") {
			t.Errorf("its own proxy: %v", sels)
		}
		if sels := selectors(t, peerOf(t, a, stranger)); has(sels, "signet:proxy:web-1") {
			t.Errorf("the same program, started by somebody else: %v", sels)
		}
		if name, ok := children.Supervised(pidfd, own.PID()+1); ok {
			t.Errorf("by another process id it is %s", name)
		}
		remove()
		remove() // once more does no harm
		if sels := selectors(t, own); has(sels, "signet:proxy:web-1") {
			t.Errorf("no longer supervised: %v", sels)
		}
	})
}

func TestOfAProcessThatTheAgentDidNotStartNothingIsOpened(t *testing.T) {
	eachMode(t, func(t *testing.T, a *attestation.Attestor) {
		s := newStage(t)
		var children attestation.Children
		looked := 0
		a.Supervised = func(pidfd, pid int) (string, bool) {
			looked++
			return children.Supervised(pidfd, pid)
		}
		a.Started = children.Has
		pidfd := -1
		web, conn := s.connect(t, withPidfd(&pidfd))
		defer func() { _ = unix.Close(pidfd) }() // nothing is lost
		_, stranger := s.connect(t, nil)
		remove, err := children.Add(pidfd, "web-1")
		if err != nil {
			t.Fatal(err)
		}
		if name, ok := a.Proxy(stranger); ok || looked != 0 {
			t.Errorf("another process is proxy %q, and was looked at %d times", name, looked)
		}
		if name, ok := a.Proxy(conn); name != "web-1" || !ok || !children.Has(web.cmd.Process.Pid) {
			t.Errorf("its own proxy is %q", name)
		}
		remove()
		if _, ok := a.Proxy(conn); ok || children.Has(web.cmd.Process.Pid) {
			t.Error("it is a proxy still")
		}
	})
}

func TestTwoPidfdsOfOneProcessAreTheSameAndOfTwoAreNot(t *testing.T) {
	s := newStage(t)
	var a, b int
	one, _ := s.connect(t, withPidfd(&a))
	defer func() { _ = unix.Close(a) }() // nothing is lost
	s.connect(t, withPidfd(&b))
	defer func() { _ = unix.Close(b) }() // nothing is lost
	again, err := unix.PidfdOpen(one.cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(again) }() // nothing is lost
	for name, same := range map[string]func(int, int) (bool, error){"inode": attestation.SameProcess, "pid": attestation.SameLivePID} {
		if ok, err := same(a, again); err != nil || !ok {
			t.Errorf("%s: one process: %v, %v", name, ok, err)
		}
		if ok, err := same(a, b); err != nil || ok {
			t.Errorf("%s: two processes: %v, %v", name, ok, err)
		}
	}
	one.exit()
	if ok, err := attestation.SameLivePID(a, again); err == nil || ok {
		t.Errorf("by pid, of a process that is gone: %v, %v", ok, err)
	}
}
