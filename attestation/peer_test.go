package attestation_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/test/parts"
)

func TestSelectorsAreUserGroupPathAndHashOfTheProgramThatConnected(t *testing.T) {
	eachMode(t, func(t *testing.T, a *attestation.Attestor) {
		s := newStage(t)
		child, conn := s.connect(t, nil)
		p := peerOf(t, a, conn)
		want := []string{
			"unix:uid:" + strconv.Itoa(os.Geteuid()), "unix:gid:" + strconv.Itoa(os.Getegid()),
			"unix:path:" + s.program, "unix:sha256:" + fileSHA256(t, s.program),
		}
		for range 2 { // the second time from the cache
			if diff := cmp.Diff(want, selectors(t, p).Strings()); diff != "" {
				t.Error(diff)
			}
		}
		if p.PID() != child.cmd.Process.Pid {
			t.Errorf("pid %d, want %d", p.PID(), child.cmd.Process.Pid)
		}
		if err := attestation.CheckWorkload(selectors(t, p).Strings()); err != nil {
			t.Errorf("an entry could not name what is attested: %v", err)
		}
	})
}

func TestPeerTellsHowItIsHeldAndLegacyCanBeRefused(t *testing.T) {
	s := newStage(t)
	_, conn := s.connect(t, nil)
	want := attestation.ModePidfd
	if attestation.LegacyKernel {
		want = attestation.ModeLegacy
	}
	if got := peerOf(t, new(attestation.Attestor), conn).Mode(); got != want {
		t.Errorf("mode %q, want %q; a kernel before 6.5?", got, want)
	}
	legacy := attestation.ForceLegacy(new(attestation.Attestor))
	if got := peerOf(t, legacy, conn).Mode(); got != attestation.ModeLegacy {
		t.Errorf("mode %q", got)
	}
	legacy.RefuseLegacy = true
	if _, err := legacy.Peer(conn); !errors.Is(err, attestation.ErrLegacy) {
		t.Errorf("got %v, want ErrLegacy", err)
	}
}

func TestChildOfAnotherUserIsThatUser(t *testing.T) {
	needRoot(t)
	eachMode(t, func(t *testing.T, a *attestation.Attestor) {
		s := newStage(t)
		_, conn := s.connect(t, as(nobody))
		if diff := cmp.Diff(s.wanted(t, nobody), selectors(t, peerOf(t, a, conn)).Strings()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestProcessThatExitedIsRefused(t *testing.T) {
	eachMode(t, func(t *testing.T, a *attestation.Attestor) {
		s := newStage(t)
		child, conn := s.connect(t, nil)
		p := peerOf(t, a, conn)
		child.exit()
		if _, err := p.Selectors(t.Context()); !errors.Is(err, attestation.ErrGone) {
			t.Errorf("got %v, want ErrGone", err)
		}
		if err := p.Alive(); !errors.Is(err, attestation.ErrGone) {
			t.Errorf("Alive: %v, want ErrGone", err)
		}
		if _, err := a.Peer(conn); !errors.Is(err, attestation.ErrGone) {
			t.Errorf("attested only after it was gone: %v, want ErrGone", err)
		}
	})
}

func TestAProgramIsNotReadWhereNothingHangsOnItsHash(t *testing.T) {
	s := newStage(t)
	_, conn := s.connect(t, nil)
	var asked identity.Selectors
	a := &attestation.Attestor{WantsHash: func(others identity.Selectors) bool {
		asked = others
		return false
	}}
	sels := selectors(t, peerOf(t, a, conn))
	if has(sels, "unix:sha256:"+fileSHA256(t, s.program)) || !has(sels, "unix:path:"+s.program) || len(asked) != len(sels) {
		t.Errorf("got %v, asked with %v", sels, asked)
	}
}

// A zombie still answers signal 0 and still has a /proc directory.
func TestProcessThatExitedAndIsNotReapedIsRefused(t *testing.T) {
	eachMode(t, func(t *testing.T, a *attestation.Attestor) {
		s := newStage(t)
		child, conn := s.connect(t, nil)
		p := peerOf(t, a, conn)
		_ = child.in.Close()
		var b [1]byte
		_, _ = conn.Read(b[:]) // ends when the process does
		waitZombie(t, child.cmd.Process.Pid)
		if _, err := p.Selectors(t.Context()); !errors.Is(err, attestation.ErrGone) {
			t.Errorf("got %v, want ErrGone", err)
		}
	})
}

func TestPIDThatWasGivenToAnotherProcessIsRefused(t *testing.T) {
	needRoot(t)
	eachMode(t, func(t *testing.T, a *attestation.Attestor) {
		s := newStage(t)
		child, conn := s.connect(t, as(nobody))
		p := peerOf(t, a, conn)
		child.exit()
		s.takePID(t, p.PID(), as(somebody))
		if sels, err := p.Selectors(t.Context()); !errors.Is(err, attestation.ErrGone) {
			t.Errorf("got %v, %v, want ErrGone", sels, err)
		}
		// Attested only now: the kernel's pidfd knows better, the fallback sees
		// that user and group are not those that connected.
		if _, err := a.Peer(conn); !errors.Is(err, attestation.ErrGone) && !errors.Is(err, attestation.ErrCredentials) {
			t.Errorf("attested after the pid was given on: %v", err)
		}
	})
}

func TestProcessThatExecutedAnotherProgramIsRefused(t *testing.T) {
	eachMode(t, func(t *testing.T, a *attestation.Attestor) {
		s := newStage(t)
		other := filepath.Join(s.dir, "other")
		copyProgram(t, other)
		child, conn := s.connect(t, nil)
		p := peerOf(t, a, conn)
		selectors(t, p)
		child.order("exec "+other, "idle")
		if sels, err := p.Selectors(t.Context()); !errors.Is(err, attestation.ErrExec) {
			t.Errorf("got %v, %v, want ErrExec", sels, err)
		}
	})
}

// The same file, but another environment: LD_PRELOAD would make it another program.
func TestProcessThatExecutedItsOwnProgramAgainIsRefused(t *testing.T) {
	s := newStage(t)
	child, conn := s.connect(t, nil)
	p := peerOf(t, new(attestation.Attestor), conn)
	child.order("exec "+s.program, "idle")
	if sels, err := p.Selectors(t.Context()); !errors.Is(err, attestation.ErrExec) {
		t.Errorf("got %v, %v, want ErrExec", sels, err)
	}
}

func TestProcessThatChangedItsUserIsRefused(t *testing.T) {
	needRoot(t)
	eachMode(t, func(t *testing.T, a *attestation.Attestor) {
		s := newStage(t)
		child, conn := s.connect(t, nil)
		p := peerOf(t, a, conn)
		child.order("setuid 65534", "done")
		if sels, err := p.Selectors(t.Context()); !errors.Is(err, attestation.ErrCredentials) {
			t.Errorf("got %v, %v, want ErrCredentials", sels, err)
		}
		if _, err := a.Peer(conn); !errors.Is(err, attestation.ErrCredentials) {
			t.Errorf("attested only afterwards: %v, want ErrCredentials", err)
		}
	})
}

// It is done for every answer and every connection that goes out. What is allocated stands for
// what is opened: by os.File, and with each of a process's files read twice, it was 105.
func TestLookingAtAPeerCostsLittle(t *testing.T) {
	s := newStage(t)
	_, conn := s.connect(t, nil)
	p := peerOf(t, &attestation.Attestor{WantsHash: func(identity.Selectors) bool { return false }}, conn)
	n := testing.AllocsPerRun(50, func() {
		if _, here, err := p.Look(t.Context()); err != nil || !here {
			t.Fatal(here, err)
		}
	})
	if n > 60 {
		t.Errorf("%v allocations", n)
	}
}

func TestSocketPassedToAnotherUserStaysTheConnectors(t *testing.T) {
	needRoot(t)
	eachMode(t, func(t *testing.T, a *attestation.Attestor) {
		s := newStage(t)
		handover := filepath.Join(s.dir, "handover.sock")
		receiver := s.start(t, as(somebody), s.program, "receive", handover)
		receiver.says("listening")
		if err := os.Chmod(handover, 0o777); err != nil {
			t.Fatal(err)
		}
		connector, conn := s.connect(t, as(nobody))
		connector.order("pass "+handover, "done")
		b := make([]byte, 8)
		if _, err := conn.Read(b); err != nil || string(b) != "mine now" {
			t.Fatalf("read %q, %v", b, err)
		}
		p := peerOf(t, a, conn)
		if diff := cmp.Diff(s.wanted(t, nobody), selectors(t, p).Strings()); diff != "" {
			t.Error(diff)
		}
		connector.exit()
		if sels, err := p.Selectors(t.Context()); !errors.Is(err, attestation.ErrGone) {
			t.Errorf("the receiver alone is left: got %v, %v, want ErrGone", sels, err)
		}
	})
}

// A user may mount what he likes over /usr/bin in a mount namespace of his own.
func TestPathOfAnotherMountNamespaceIsNoSelector(t *testing.T) {
	needRoot(t)
	s := newStage(t)
	dir := filepath.Join(s.dir, "bin")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	copyProgram(t, filepath.Join(dir, "web"))
	impostor := s.start(t, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}, s.program, "mount", dir, "web", s.socket)
	impostor.says("connected")
	sels := selectors(t, peerOf(t, new(attestation.Attestor), s.accept(t)))
	for _, text := range sels.Strings() {
		if strings.HasPrefix(text, "unix:path:") {
			t.Errorf("got %s", text)
		}
	}
	if !has(sels, "unix:sha256:"+fileSHA256(t, s.program)) {
		t.Error("the content is what it is, and its hash is missing")
	}
}

func TestReplacedProgramKeepsItsPathOnlyForWhoWasConnected(t *testing.T) {
	s := newStage(t)
	a := new(attestation.Attestor)
	_, conn := s.connect(t, nil)
	p := peerOf(t, a, conn)
	sum := "unix:sha256:" + fileSHA256(t, s.program)
	fresh := s.program + ".new"
	copyProgram(t, fresh)
	if err := os.Rename(fresh, s.program); err != nil {
		t.Fatal(err)
	}
	if sels := selectors(t, p); !has(sels, "unix:path:"+s.program) || !has(sels, sum) {
		t.Errorf("connected before: %v", sels)
	}
	if sels := selectors(t, peerOf(t, a, conn)); has(sels, "unix:path:"+s.program) || !has(sels, sum) {
		t.Errorf("attested after the replacement: %v", sels)
	}
}

func TestHashOfAProgramIsReadOnce(t *testing.T) {
	s := newStage(t)
	a := new(attestation.Attestor)
	for range 3 {
		_, conn := s.connect(t, nil)
		selectors(t, peerOf(t, a, conn))
	}
	if n := attestation.KnownHashes(a); n != 1 {
		t.Errorf("%d hashes kept, want 1", n)
	}
}

// Nobody can keep others from their identities by starting programs that are long
// to read.
func TestAProgramThatIsBeingReadHoldsUpItsOwnUserOnly(t *testing.T) {
	needRoot(t)
	s := newStage(t)
	a := new(attestation.Attestor)
	_, slow := s.connect(t, as(nobody))
	_, other := s.connect(t, as(somebody))
	done, err := attestation.ReadFor(t.Context(), a, nobody)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := peerOf(t, a, other).Selectors(ctx); err != nil {
		t.Errorf("another user: %v", err)
	}
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := peerOf(t, a, slow).Selectors(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the same user: %v", err)
	}
	done()
	if _, err := peerOf(t, a, slow).Selectors(t.Context()); err != nil {
		t.Errorf("the same user, afterwards: %v", err)
	}
}

func TestSelectorsEndsWithItsContext(t *testing.T) {
	s := newStage(t)
	_, conn := s.connect(t, nil)
	p := peerOf(t, new(attestation.Attestor), conn)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Selectors(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestClosedPeerAnswersNothing(t *testing.T) {
	s := newStage(t)
	_, conn := s.connect(t, nil)
	before := countFDs(t)
	p, err := new(attestation.Attestor).Peer(conn)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := p.Selectors(t.Context()); !errors.Is(err, attestation.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if after := countFDs(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func TestPeerInAnotherPIDNamespaceIsRefused(t *testing.T) {
	needRoot(t)
	s := newStage(t)
	socket := filepath.Join(s.dir, "inner.sock")
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	inner := s.start(t, attr, s.program, "attest", socket)
	inner.says("listening")
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()             // nothing is lost
	inner.says("task 0 [signet:unit:task] true") // to the agent of a task it is one who could open the socket
	inner.says("invisible invisible")
}

// A container without a user namespace of its own, on a folder that it shares.
func TestAListenerInAnotherPIDNamespaceIsItsUserAndNotUserZero(t *testing.T) {
	needRoot(t)
	s := newStage(t)
	if err := os.Chmod(s.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(s.dir, "outer.sock")
	const other = 61001
	var l *net.UnixListener
	parts.AsUser(t, other, func() {
		var err error
		if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"}); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { _ = l.Close() })
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	s.start(t, attr, s.program, "listener", socket).says("61001 true <nil>")
}

func TestAServicesProcessHasItsUnitAndSlice(t *testing.T) {
	needRoot(t)
	const unit = "system.slice/signet-attested.service"
	root := attestation.CgroupRoot()
	if root == "" {
		parts.Missing(t, "cgroup v2 is not mounted")
	}
	dir := filepath.Join(root, unit)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		parts.Missing(t, "cgroups are made by root, where they may be written: "+err.Error())
	}
	t.Cleanup(func() { _ = errors.Join(os.Remove(dir), os.Remove(filepath.Dir(dir))) }) // the slice only if it is ours and empty
	eachMode(t, func(t *testing.T, a *attestation.Attestor) {
		s := newStage(t)
		child, conn := s.connect(t, as(nobody))
		p := peerOf(t, a, conn)
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(child.cmd.Process.Pid)), 0o600); err != nil {
			t.Fatal(err)
		}
		sels, err := p.Selectors(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"systemd:unit:signet-attested.service", "systemd:slice:system.slice", "unix:uid:" + strconv.Itoa(nobody)} {
			if !has(sels, want) {
				t.Errorf("%v has no %s", sels.Strings(), want)
			}
		}
		child.exit()
	})
}
