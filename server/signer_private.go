package server

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"signet.example/internal/unixsock"
)

// A signer with a user of its own is worth what keeps the server's user out. So
// it holds its files to the rule that sshd has for its own (StrictModes), and
// does not start where it is broken.

// private resolves the paths in a configuration and tells why the server's user,
// or anybody but our own and root, could get at what they name.
func (c SignerConfig) private(own, server uint32) (SignerConfig, error) {
	switch server {
	case 0:
		return c, errors.New("the server's user is root, who reads every file here: run the server as another")
	case own:
		return c, fmt.Errorf("the signer runs as uid %d, and so does the server: whoever gets into the server could read the keys; give the signer a user of its own", own)
	}
	// What was resolved and found unwritable for others stays what it is; a link
	// in the path could lead elsewhere by the time it is opened.
	folder := filepath.Dir(c.Listen)
	for _, p := range []*string{&c.DataDir, &c.PasswordFile, &folder} {
		var err error
		if *p, err = filepath.Abs(*p); err != nil {
			return c, err
		}
		if *p, err = filepath.EvalSymlinks(*p); err != nil {
			return c, err
		}
	}
	c.Listen = filepath.Join(folder, filepath.Base(c.Listen))
	if err := errors.Join(unixsock.Guarded(folder, own, unixsock.OthersWrite), unixsock.Guarded(c.PasswordFile, own, unixsock.OthersAll)); err != nil {
		return c, err
	}
	return c, filepath.WalkDir(dataDir(c.DataDir).ca(), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unixsock.Guarded(path, own, unixsock.OthersAll)
	})
}
