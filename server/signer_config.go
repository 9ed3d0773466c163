package server

import (
	"errors"
	"fmt"
	"log/slog"
	"os/user"
	"strconv"
	"time"

	"signet.example/ca"
)

// SignerConfig is the signer's configuration: on the command line where it is
// the server's child, decoded strictly from one YAML file where it is a service.
// There is no secret in it: command lines are for everybody to see.
type SignerConfig struct {
	// DataDir has the authority and its log in the folder "ca".
	DataDir string `yaml:"data_dir"`
	// PasswordFile holds the password of the key files, <data_dir>/password by
	// default; only the signer reads it.
	PasswordFile string `yaml:"password_file"`
	// Listen is the socket of a service. The server's child has inherited one.
	Listen string `yaml:"listen"`
	// ServerUser, a name or a uid, is the one user that Listen is for.
	ServerUser string `yaml:"server_user"`
	// Profiles bounds lifetimes and keys.
	Profiles ca.Profiles `yaml:"-"`
	// Clock is time.Now if nil.
	Clock func() time.Time `yaml:"-"`
	// Log is where it writes; nothing if nil.
	Log *slog.Logger `yaml:"-"`
}

// Complete fills in what follows from other keys.
func (c SignerConfig) Complete() SignerConfig {
	if c.PasswordFile == "" && c.DataDir != "" {
		c.PasswordFile = dataDir(c.DataDir).password()
	}
	return c
}

// Validate tells everything that is wrong with a service's completed configuration.
func (c SignerConfig) Validate() error {
	var errs []error
	if c.DataDir == "" {
		errs = append(errs, errors.New("data_dir: missing: name the folder that `signet init --signer-dir` made"))
	}
	if c.Listen == "" {
		errs = append(errs, errors.New("listen: missing: name the socket that the server connects to"))
	}
	if c.ServerUser == "" {
		errs = append(errs, errors.New("server_user: missing: name the user that the server runs as"))
	}
	return errors.Join(errs...)
}

// userID is the uid of a user given by name or by number. Users that only NSS
// knows have a number here and no name.
func userID(nameOrUID string) (uint32, error) {
	text := nameOrUID
	if u, err := user.Lookup(nameOrUID); err == nil {
		text = u.Uid
	}
	uid, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("user %q is not known here", nameOrUID)
	}
	return uint32(uid), nil
}
