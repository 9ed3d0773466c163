package attestation_test

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"

	"signet.example/attestation"
	"signet.example/identity"
)

// Whoever asks about a process is answered by what the process would be if it came.
func TestAProcessByItsPIDHasTheSelectorsOfThePeerThatItWouldBe(t *testing.T) {
	s := newStage(t)
	a := &attestation.Attestor{}
	actor, conn := s.connect(t, nil)
	connected := selectors(t, peerOf(t, a, conn))
	p, err := a.Process(actor.cmd.Process.Pid, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	if got := selectors(t, p); !slices.Equal(got, connected) {
		t.Errorf("by its pid it has %v, as a peer %v", got, connected)
	}
	if p.Mode() != attestation.ModePidfd || p.PID() != actor.cmd.Process.Pid || p.UID() != uint32(os.Geteuid()) || p.GID() != uint32(os.Getegid()) { //nolint:gosec // ids have 32 bits
		t.Errorf("held as %s, process %d of %d:%d", p.Mode(), p.PID(), p.UID(), p.GID())
	}
	actor.exit()
	if got, err := p.Selectors(t.Context()); !errors.Is(err, attestation.ErrGone) {
		t.Errorf("of one that has ended: %v, %v", got, err)
	}
}

func TestWhetherAProcessByItsPIDIsHashedIsForWhoAsksToSay(t *testing.T) {
	s := newStage(t)
	actor, _ := s.connect(t, nil)
	hash := "unix:sha256:" + fileSHA256(t, s.program)
	for _, wanted := range []bool{true, false} {
		a := &attestation.Attestor{WantsHash: func(identity.Selectors) bool { return !wanted }}
		p, err := a.Process(actor.cmd.Process.Pid, wanted)
		if err != nil {
			t.Fatal(err)
		}
		if got := selectors(t, p); has(got, hash) != wanted {
			t.Errorf("with hash %v: %v", wanted, got)
		}
		_ = p.Close()
	}
}

func TestWhatIsNoProcessIsRefusedByItsReason(t *testing.T) {
	a := &attestation.Attestor{}
	ended := exec.CommandContext(t.Context(), "/bin/true")
	if err := ended.Start(); err != nil {
		t.Fatal(err)
	}
	waitZombie(t, ended.Process.Pid)
	if p, err := a.Process(ended.Process.Pid, false); !errors.Is(err, attestation.ErrGone) {
		t.Errorf("one that has ended and is not reaped: %v, %v", p, err)
	}
	if err := ended.Wait(); err != nil {
		t.Fatal(err)
	}
	thread := 0
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range threads {
		if n, err := strconv.Atoi(d.Name()); err == nil && n != os.Getpid() {
			thread = n
		}
	}
	for name, pid := range map[string]int{"0": 0, "negative": -1, "nobody's": 4194303, "one that was reaped": ended.Process.Pid, "a thread": thread} {
		if p, err := a.Process(pid, false); !errors.Is(err, attestation.ErrNoProcess) {
			t.Errorf("%s (%d): %v, %v", name, pid, p, err)
		}
	}
}
