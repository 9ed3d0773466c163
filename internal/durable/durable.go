// Package durable writes a file so that it is whole and on disk.
//
// [WriteFile] is what most need; [Create] is for what must know that it can be
// written before it is made. [Lock] keeps other processes from a file or folder, and
// [Locked] asks whether one does. It knows nothing of what it writes.
package durable

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// WriteFile puts content in the place of path. A reader sees the old file or the
// new one, never a part, also after a crash at any instant; when it returns, the
// new one is on disk. The folder must exist. A crash may leave a file of the same
// mode or a stricter one beside it, whose name begins with a dot.
func WriteFile(path string, content []byte, mode os.FileMode) error {
	f, err := Create(path, mode)
	if err != nil {
		return err
	}
	return f.Put(content)
}

// WriteJSON is WriteFile of v as JSON, for its owner alone. Errors name the file.
func WriteJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	if err := WriteFile(path, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// File is a file that is not yet in its place. It ends with Put or Drop.
type File struct {
	f    *os.File
	path string
	mode os.FileMode
}

// Create opens what will be path. What is there now stays until Put.
func Create(path string, mode os.FileMode) (*File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return nil, err
	}
	return &File{f, path, mode}, nil
}

// Put is WriteFile. After an error before the file is in its place, the old one
// stays and nothing is left of the new one.
func (p *File) Put(content []byte) error {
	_, err := p.f.Write(content)
	if err == nil {
		err = p.f.Chmod(p.mode)
	}
	if err == nil {
		err = p.f.Sync()
	}
	if err = errors.Join(err, p.f.Close()); err == nil {
		err = os.Rename(p.f.Name(), p.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(p.f.Name()))
	}
	return SyncDir(filepath.Dir(p.path))
}

// Drop leaves what was there.
func (p *File) Drop() error { return errors.Join(p.f.Close(), os.Remove(p.f.Name())) }

// SyncDir makes the names in a folder durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
