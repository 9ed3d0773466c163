package agent

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// sealed is memory that two processes share, as a file without a path. Its seals
// hold from what fill made of it on, and whoever has it cannot add or take any.
func sealed(name string, seals int, fill func(*os.File) error) (*os.File, error) {
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

// memoryFile is for a child to read and nobody else; nobody changes it.
func memoryFile(name string, content []byte) (*os.File, error) {
	return sealed(name, unix.F_SEAL_WRITE, func(f *os.File) error {
		_, err := f.Write(content)
		return err
	})
}
