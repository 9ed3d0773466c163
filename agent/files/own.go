package files

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"signet.example/internal/private"
)

// CheckOwn reports why this process could not keep credentials of its own user in a folder,
// which WriteOwn makes where it is missing.
func CheckOwn(dir string) error {
	err := private.Secret(dir, private.Self())
	if errors.Is(err, fs.ErrNotExist) {
		above := filepath.Dir(dir)
		if err := private.Creatable(dir); err != nil {
			return err
		}
		return checkMemory(above, dir)
	}
	if err != nil {
		return err
	}
	if err := checkMemory(dir, dir); err != nil {
		return err
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) == 0 {
		return err
	}
	for _, e := range list {
		if e.Name() == markName {
			return nil
		}
	}
	return fmt.Errorf("%s has files of somebody's already, and a credential folder has nothing but its own: name a new folder", dir)
}

// WriteOwn puts credentials of this process's own user into a folder of its own, for a
// command that somebody types.
func WriteOwn(dir string, c Credentials, layouts []string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := CheckOwn(dir); err != nil {
		return err
	}
	r, err := Open(dir)
	if err != nil {
		return err
	}
	defer r.Close()
	list, missing, err := filesOf(c, layouts)
	if err == nil && missing != nil {
		err = fmt.Errorf("there is no layout %s", missing[0])
	}
	o := Owner{UID: private.Self(), GID: uint32(os.Getegid())} //nolint:gosec // a gid has 32 bits
	var content []byte
	if err == nil {
		content, err = json.Marshal(mark{SPIFFEID: c.ID, Owner: o})
	}
	if err == nil {
		err = r.put(r.dir, markName, content, o)
	}
	if err == nil {
		err = r.fill(r.dir, o, list)
	}
	return errors.Join(err, r.root.RemoveAll(stageName))
}
