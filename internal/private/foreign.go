package private

import (
	"fmt"
	"os"
	"syscall"
)

// ForeignError is returned by Ours for a folder that is another user's: what is wrong is
// who runs the process, and chown would take the folder from the service that has it.
type ForeignError struct {
	Dir      string
	UID, GID uint32 // whose it is
	own      uint32
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s belongs to uid %d, and this process is uid %d: run it as that user, or choose another folder", e.Dir, e.UID, e.own)
}

// Ours returns a *ForeignError where a folder is good for its owner, who is another user
// than own and root: whatever else own finds there follows from that.
func Ours(dir string, own uint32) error {
	if err := foreign(dir, own); err != nil && err.UID != 0 && Guarded(dir, err.UID) == nil {
		return err
	}
	return nil
}

// Own is Ours for a folder in which files are to be made that belong to its owner: to
// root neither.
func Own(dir string, own uint32) error {
	if err := foreign(dir, own); err != nil {
		return err
	}
	return nil
}

func foreign(dir string, own uint32) *ForeignError {
	info, err := os.Stat(dir)
	if err != nil {
		return nil // who uses it reports what is wrong
	}
	owner := info.Sys().(*syscall.Stat_t) //nolint:forcetypeassert // Linux
	if owner.Uid == own {
		return nil
	}
	return &ForeignError{dir, owner.Uid, owner.Gid, own}
}
