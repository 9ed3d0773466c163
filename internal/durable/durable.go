// Package durable writes a file so that it is whole and on disk.
//
// [WriteFile] is all there is. It knows nothing of what it writes.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// WriteFile puts content in the place of path. A reader sees the old file or the
// new one, never a part, also after a crash at any instant; when it returns, the
// new one is on disk. The folder must exist.
func WriteFile(path string, content []byte, mode os.FileMode) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(dir)
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
