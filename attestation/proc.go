package attestation

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// proc reads one process through an open /proc/<pid> directory, which goes on
// meaning that process: once it is reaped every read fails, even if its pid is
// another's by then.
type proc struct{ dir *os.File }

// openProc opens the directory of pid, which pidfd stands for. The order makes
// it the right one: if the process is still alive after the opening, its pid
// was its own all the time.
func openProc(pid, pidfd int) (*proc, error) {
	dir, err := os.OpenFile("/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY, 0)
	if gone := alive(pidfd); gone != nil {
		if err == nil {
			_ = dir.Close() // nothing was written
		}
		return nil, gone
	}
	if err != nil {
		return nil, fmt.Errorf("open the peer's /proc: %w", err)
	}
	return &proc{dir: dir}, nil
}

func (p *proc) close() { _ = p.dir.Close() } // nothing was written

func (p *proc) open(name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(p.dir.Fd()), name, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: p.dir.Name() + "/" + name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (p *proc) read(name string) ([]byte, error) {
	f, err := p.open(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	const most = 64 << 10
	raw, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return nil, fmt.Errorf("read %s/%s: %w", p.dir.Name(), name, err)
	}
	return raw, nil
}

// image is one execution of one program by one process: start tells the
// process from a later one with its pid, the executable's inode one program
// from another, and the addresses, which execve(2) draws anew, one execution
// of a program from the next.
type image struct {
	start              uint64
	startCode, endCode uint64
	startStack         uint64
	exe                inode
}

// image fails when the executable cannot be read, for then an execve could
// not be seen either: another user's process needs CAP_SYS_PTRACE.
func (p *proc) image() (image, error) {
	exe, err := p.open("exe", unix.O_PATH)
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return image{}, fmt.Errorf("the agent may not see which program the peer runs (another user's process needs CAP_SYS_PTRACE): %w", err)
		}
		return image{}, err
	}
	defer exe.Close() //nolint:errcheck // nothing was written
	var st unix.Stat_t
	if err := unix.Fstat(int(exe.Fd()), &st); err != nil {
		return image{}, fmt.Errorf("stat the peer's executable: %w", err)
	}
	im := image{exe: inode{dev: uint64(st.Dev), ino: st.Ino}}
	raw, err := p.read("stat")
	if err != nil {
		return image{}, err
	}
	if err := im.parseStat(raw); err != nil {
		return image{}, err
	}
	return im, nil
}

// inode names a file for as long as someone holds it.
type inode struct{ dev, ino uint64 }

// parseStat reads the fields of proc_pid_stat(5). The second one, the command,
// is in parentheses and may hold spaces and parentheses itself.
func (im *image) parseStat(raw []byte) error {
	end := bytes.LastIndexByte(raw, ')')
	if end < 0 {
		return errors.New("/proc stat: no command")
	}
	const first = 3 // number of the field after the command
	fields := bytes.Fields(raw[end+1:])
	for _, f := range []struct {
		number int
		into   *uint64
	}{{22, &im.start}, {26, &im.startCode}, {27, &im.endCode}, {28, &im.startStack}} {
		if len(fields) <= f.number-first {
			return fmt.Errorf("/proc stat: field %d is missing", f.number)
		}
		n, err := strconv.ParseUint(string(fields[f.number-first]), 10, 64)
		if err != nil {
			return fmt.Errorf("/proc stat: field %d: %w", f.number, err)
		}
		*f.into = n
	}
	return nil
}

// ids returns the effective user and group.
func (p *proc) ids() (uid, gid uint32, err error) {
	raw, err := p.read("status")
	if err != nil {
		return 0, 0, err
	}
	if uid, err = effectiveID(raw, "Uid:"); err != nil {
		return 0, 0, err
	}
	gid, err = effectiveID(raw, "Gid:")
	return uid, gid, err
}

// effectiveID reads a line "Uid: real effective saved filesystem" of
// proc_pid_status(5). The name of the process comes first there, with its line
// breaks escaped, so it cannot pass for one.
func effectiveID(status []byte, key string) (uint32, error) {
	for line := range strings.Lines(string(status)) {
		rest, ok := strings.CutPrefix(line, key)
		if !ok {
			continue
		}
		fields := strings.Fields(rest)
		if len(fields) != 4 {
			break
		}
		n, err := strconv.ParseUint(fields[1], 10, 32)
		if err != nil {
			break
		}
		return uint32(n), nil
	}
	return 0, fmt.Errorf("/proc status: no proper line %q", key)
}
