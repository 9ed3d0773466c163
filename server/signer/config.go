package signer

import (
	"log/slog"
	"path/filepath"
	"time"

	"signet.example/ca"
	"signet.example/internal/manifest"
)

// Config is the signer process's configuration: on the command line where it is
// the server's child, decoded strictly from one YAML file where it is a service.
// There is no secret in it: command lines are for everybody to see.
type Config struct {
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
func (c Config) Complete() Config {
	if c.PasswordFile == "" && c.DataDir != "" {
		c.PasswordFile = Folder(c.DataDir).Password()
	}
	return c
}

// Validate reports everything that is wrong with a service's completed configuration.
func (c Config) Validate() error {
	var errs manifest.Errors
	for _, k := range []struct{ key, value, what string }{
		{"data_dir", c.DataDir, "folder that `signet init --signer-dir` made"},
		{"listen", c.Listen, "socket that the server connects to"},
		{"server_user", c.ServerUser, "user that the server runs as"},
	} {
		if k.value == "" {
			errs = append(errs, &manifest.Error{Field: k.key, Msg: "missing: name the " + k.what, Lacks: k.key})
		}
	}
	return errs.OrNil()
}

// Folder has a signer's files. Where the signer is the server's child it is the
// server's own data directory.
type Folder string

// CA is the folder of the authority and its log.
func (f Folder) CA() string { return filepath.Join(string(f), "ca") }

// Password is the file that Config.PasswordFile is without a word of its own.
func (f Folder) Password() string { return filepath.Join(string(f), "password") }
