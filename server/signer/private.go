package signer

import (
	"errors"
	"fmt"
	"path/filepath"

	"signet.example/internal/private"
)

// guarded returns why the server's user, or anybody but our own and root, could
// get at what a signer's configuration names. A signer with a user of its own is
// worth what keeps the server's user out.
func (c Config) guarded(own, server uint32) error {
	switch server {
	case 0:
		return errors.New("the server's user is root, who reads every file here: run the server as another")
	case own:
		return fmt.Errorf("the signer runs as uid %d, and so does the server: whoever gets into the server could read the keys; give the signer a user of its own", own)
	}
	var foreign *private.ForeignError
	if err := private.Ours(c.DataDir, own); errors.As(err, &foreign) && foreign.UID != server {
		return err
	}
	return errors.Join(
		private.Folder(filepath.Dir(c.Listen), own),
		private.Secret(c.PasswordFile, own),
		private.SecretTree(Folder(c.DataDir).CA(), own),
	)
}
