package files

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"signet.example/internal/fsuser"
)

// file is one of a folder's.
type file struct {
	name    string
	content []byte
	// set, where it is there in the place of a content, are files below this name that are
	// replaced all at once.
	set []file
}

// write puts it in its place, unless it is there as it is to be.
func (f file) write(r *Root, dir *os.File, o Owner) error {
	if f.set != nil {
		return r.putSet(dir, f, o)
	}
	if same(dir, f, o) {
		return nil
	}
	return r.put(dir, f.name, f.content, o)
}

// same reports whether a file is there with this content, owner and mode.
func same(dir *os.File, f file, o Owner) bool {
	var s unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), f.name, &s, unix.AT_SYMLINK_NOFOLLOW); err != nil ||
		s.Mode != unix.S_IFREG|uint32(o.fileMode()) || s.Uid != o.UID || !o.own() && s.Gid != o.GID || s.Size != int64(len(f.content)) {
		return false
	}
	fd, err := unix.Openat(int(dir.Fd()), f.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false // another user's: it is written again
	}
	in := os.NewFile(uintptr(fd), f.name)
	defer func() { _ = in.Close() }() // only read
	content, err := io.ReadAll(io.LimitReader(in, s.Size+1))
	return err == nil && bytes.Equal(content, f.content)
}

// put makes a file and moves it into the place of the one that is there: a reader opens the
// old one or the new, and each is whole. tmpfs has no disk that would have to be waited for.
func (r *Root) put(dir *os.File, name string, content []byte, o Owner) (err error) {
	f, err := r.create(o)
	if err != nil {
		return fmt.Errorf("make %s: %w", name, err)
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, r.root.Remove(stageName+"/"+newFile)))
	}
	if err := unix.Renameat(int(r.stage.Fd()), newFile, int(dir.Fd()), name); err != nil {
		return &fs.PathError{Op: "rename", Path: name, Err: err}
	}
	return nil
}

// create makes a file of the owner's in the stage. For another user's the stage is open to
// the owner's group while the file gets its name; what has that name afterwards must be it.
func (r *Root) create(o Owner) (*os.File, error) {
	if err := r.root.RemoveAll(stageName + "/" + newFile); err != nil {
		return nil, err
	}
	if o.own() {
		fd, err := unix.Openat(int(r.stage.Fd()), newFile, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, &fs.PathError{Op: "create", Path: newFile, Err: err}
		}
		f := os.NewFile(uintptr(fd), newFile)
		if o.Group {
			err = fsuser.GiveGroup(f, o.GID)
		}
		if err = errors.Join(err, f.Chmod(o.fileMode())); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return f, nil
	}
	var f *os.File
	err := r.lend(o, func() (err error) {
		f, err = fsuser.Create(r.stage, newFile, o.fileMode(), o.UID, o.GID)
		return err
	})
	if err == nil {
		err = r.isNew(f)
	}
	if err != nil {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		return nil, err
	}
	return f, nil
}

// lend opens the stage to the owner's group while make runs.
func (r *Root) lend(o Owner, make func() error) error {
	if err := fsuser.GiveGroup(r.stage, o.GID); err != nil {
		return err
	}
	// Sticky: nobody but its owner renames what lies there, such as a folder that is half made.
	err := r.stage.Chmod(0o730 | fs.ModeSticky)
	if err == nil {
		err = make()
	}
	return errors.Join(err, r.stage.Chmod(0o700))
}

// isNew checks, now that nobody else can change the stage, that what has the name there is
// this file, and that it has no other name.
func (r *Root) isNew(f *os.File) error {
	var named, opened unix.Stat_t
	if err := unix.Fstatat(int(r.stage.Fd()), newFile, &named, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if err := unix.Fstat(int(f.Fd()), &opened); err != nil {
		return err
	}
	if named.Dev != opened.Dev || named.Ino != opened.Ino || opened.Nlink != 1 {
		return errors.New("somebody of the owner's group meddled with the file as it was made: it is not written")
	}
	return nil
}
