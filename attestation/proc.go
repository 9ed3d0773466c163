package attestation

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// proc reads one process through an open /proc/<pid> directory, which goes on
// meaning that process: once it is reaped every read fails, even if its pid is
// another's by then.
type proc struct {
	dir  int // a descriptor
	name string
}

// openProc opens the directory of pid, which pidfd stands for. The order makes
// it the right one: if the process is still alive after the opening, its pid
// was its own all the time.
func openProc(pid, pidfd int) (*proc, error) {
	path := "/proc/" + strconv.Itoa(pid)
	dir, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if gone := alive(pidfd); gone != nil {
		if err == nil {
			_ = unix.Close(dir) // nothing was written
		}
		return nil, gone
	}
	if err != nil {
		return nil, fmt.Errorf("open the peer's /proc: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	return &proc{dir, path}, nil
}

func (p *proc) close() { _ = unix.Close(p.dir) } // nothing was written

func (p *proc) open(name string, flags int) (fd int, err error) {
	fd, err = unix.Openat(p.dir, name, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: p.name + "/" + name, Err: err}
	}
	return fd, nil
}

// mostProc is what is read of a file of /proc: far more than any of those has that are read.
const mostProc = 64 << 10

// read reads a whole file into buf, or where that is too small into memory of its own. It
// goes without os.File, of which making one and closing it cost as much as the reading: this
// is done for every answer.
func (p *proc) read(name string, buf []byte) ([]byte, error) {
	fd, err := p.open(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	have := 0
	for have < mostProc {
		if have == len(buf) {
			buf = append(buf, make([]byte, max(512, len(buf)))...)
		}
		n, err := unix.Read(fd, buf[have:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, &os.PathError{Op: "read", Path: p.name + "/" + name, Err: err}
		case n == 0:
			return buf[:have], nil
		}
		have += n
	}
	return buf[:have], nil
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
	var st unix.Stat_t
	if err := unix.Fstatat(p.dir, "exe", &st, 0); err != nil { // of the file that runs, which the link stands for
		if errors.Is(err, os.ErrPermission) {
			return image{}, fmt.Errorf("the agent may not see which program the peer runs (another user's process needs CAP_SYS_PTRACE): %w", err)
		}
		return image{}, &os.PathError{Op: "stat", Path: p.name + "/exe", Err: err}
	}
	im := image{exe: inode{dev: uint64(st.Dev), ino: st.Ino}}
	var buf [1024]byte
	raw, err := p.read("stat", buf[:])
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

// ids returns the effective user and group: those of the folder itself, which the kernel
// gives it whatever it says of the files in it, since status costs it far more (fs/proc/base.c,
// task_dump_owner). Of a process that is gone it says user 0: whoever asks looks afterwards
// whether it is alive.
func (p *proc) ids() (uid, gid uint32, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(p.dir, &st); err != nil {
		return 0, 0, &os.PathError{Op: "stat", Path: p.name, Err: err}
	}
	return st.Uid, st.Gid, nil
}
