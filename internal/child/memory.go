package child

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Sealed is memory that two processes share, as a file without a path. Its seals
// (F_SEAL_… of fcntl(2), beside those of its size) hold from what fill made of it on,
// and whoever has it cannot add or remove any.
func Sealed(name string, seals int, fill func(*os.File) error) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err = fill(f); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// MemoryFile is for a child to read and nobody else; nobody changes it.
func MemoryFile(name string, content []byte) (*os.File, error) {
	return Sealed(name, unix.F_SEAL_WRITE, func(f *os.File) error {
		_, err := f.Write(content)
		return err
	})
}
