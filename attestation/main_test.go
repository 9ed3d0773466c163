package attestation_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"signet.example/attestation"
)

// The test binary is also the process that is attested: with this variable set
// it plays a part instead of running tests.
const roleVariable = "SIGNET_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if err := play(role, os.Args[1:]); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func play(role string, args []string) error {
	switch role {
	case "connect": // <socket>
		return playConnect(args[0])
	case "idle": // what an exec'd process is
		fmt.Println("idle")
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	case "receive": // <socket on which a connection is handed over>
		return playReceive(args[0])
	case "attest": // <socket>: what an agent in a PID namespace makes of who comes from outside
		return playAttest(args[0])
	case "listener": // <socket>: what an agent in a PID namespace makes of who listens outside
		l, err := attestation.ListenerAt(args[0])
		fmt.Println(l.UID, errors.Is(l.Unseen, attestation.ErrInvisible), err)
		return nil
	case "mount": // <directory> <file in it> <socket>: a file system of our own, and a program in it
		return playMount(args[0], args[1], args[2])
	}
	return fmt.Errorf("unknown role %q", role)
}

func playConnect(socket string) error {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	fmt.Println("connected")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		verb, rest, _ := strings.Cut(in.Text(), " ")
		if err := obey(verb, strings.Fields(rest), c); err != nil {
			return err
		}
		fmt.Println("done")
	}
	return c.Close()
}

func obey(verb string, args []string, c *net.UnixConn) error {
	switch verb {
	case "setuid":
		uid, err := strconv.Atoi(args[0])
		return errors.Join(err, unix.Setuid(uid))
	case "exec":
		return unix.Exec(args[0], args, []string{roleVariable + "=idle", "GORACE=atexit_sleep_ms=0"})
	case "pass":
		return pass(args[0], c)
	}
	return fmt.Errorf("unknown order %q", verb)
}

// pass hands the connection to whoever listens at socket.
func pass(socket string, c *net.UnixConn) error {
	to, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	defer func() { _ = to.Close() }() // nothing is lost
	f, err := c.File()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // nothing is lost
	_, _, err = to.WriteMsgUnix([]byte{'x'}, unix.UnixRights(int(f.Fd())), nil)
	return err
}

func playReceive(socket string) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	fmt.Println("listening")
	from, err := l.AcceptUnix()
	if err != nil {
		return err
	}
	data, control := make([]byte, 1), make([]byte, 64)
	_, n, _, _, err := from.ReadMsgUnix(data, control)
	if err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return err
	}
	if _, err := unix.Write(fds[0], []byte("mine now")); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func playMount(dir, file, socket string) error {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := errors.Join(
		private(),
		unix.Mount("none", dir, "tmpfs", 0, ""),
	); err != nil {
		return err
	}
	program := filepath.Join(dir, file)
	if err := os.WriteFile(program, self, 0o755); err != nil {
		return err
	}
	return unix.Exec(program, []string{program, socket}, []string{roleVariable + "=connect", "GORACE=atexit_sleep_ms=0"})
}

func playAttest(socket string) error {
	if err := errors.Join(
		private(),
		unix.Mount("proc", "/proc", "proc", 0, ""),
	); err != nil {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	fmt.Println("listening")
	c, err := l.AcceptUnix()
	if err != nil {
		return err
	}
	_, err = new(attestation.Attestor).Peer(c)
	_, legacy := attestation.ForceLegacy(new(attestation.Attestor)).Peer(c)
	p, inTask := (&attestation.Attestor{Task: true, Supervised: new(attestation.Children).Supervised}).Peer(c)
	if err := errors.Join(inTask, sayPeer(p)); err != nil {
		return err
	}
	if errors.Is(err, attestation.ErrInvisible) && errors.Is(legacy, attestation.ErrInvisible) {
		fmt.Println("invisible invisible")
		return nil
	}
	fmt.Println(err, legacy)
	return nil
}

// sayPeer says what a task's agent makes of a peer.
func sayPeer(p *attestation.Peer) error {
	has, here, err := p.Look(context.Background())
	if err != nil {
		return err
	}
	fmt.Println(p.Mode(), p.PID(), has.Strings(), here)
	return errors.Join(p.Alive(), p.Close())
}

// private keeps this namespace's mounts from the one it came from. In a chroot
// "/" may be no mount point (EINVAL): whoever made the chroot has seen to it.
func private() error {
	err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}
