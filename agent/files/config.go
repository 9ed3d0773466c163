package files

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"signet.example/identity"
	"signet.example/internal/child"
	"signet.example/internal/private"
)

// Config is what the host's operator allows: without it no file is written, whatever an
// entry asks for.
type Config struct {
	// Dir is the folder in which the credential folders are made, on a tmpfs and the
	// agent's own. Default: none, and then there are no files.
	Dir string `yaml:"dir"`
	// Users are whose files they may be: a name, a uid or uid:gid each.
	Users []string `yaml:"users"`
	// Commands are what entries may have run after a change, by name.
	Commands []Command `yaml:"commands"`
}

// Command is a program that is run after a change of a folder, as the folder's owner.
type Command struct {
	Name string `yaml:"name"`
	// Run is the program, by its absolute path, and its arguments.
	Run []string `yaml:"run"`
	// Timeout is how long it may take before it is killed. Default 30s.
	Timeout time.Duration `yaml:"timeout"`
}

const (
	defaultTimeout = 30 * time.Second
	mostTimeout    = 10 * time.Minute
)

// Given reports whether there are files at all.
func (c Config) Given() bool { return c.Dir != "" }

// Validate checks what can be told without a look at the host. kept are folders of the
// agent's own.
func (c Config) Validate(refuse func(key, format string, args ...any), kept ...string) {
	switch {
	case !c.Given():
		if len(c.Users) > 0 || len(c.Commands) > 0 {
			refuse("dir", "is missing: the folder on a tmpfs in which the credential folders are made, such as /run/signet-files")
		}
		return
	case !filepath.IsAbs(c.Dir) || filepath.Clean(c.Dir) != c.Dir || c.Dir == "/":
		refuse("dir", "want the absolute path of a folder below /, without . and .., got %q", c.Dir)
	}
	for _, other := range kept {
		if in, err := filepath.Rel(other, c.Dir); err == nil && filepath.IsLocal(in) {
			refuse("dir", "%s is in %s, which the agent keeps to itself: give the files a folder of their own", c.Dir, other)
		}
	}
	for i, command := range c.Commands {
		key := fmt.Sprintf("commands[%d].", i)
		if err := identity.CheckName(command.Name); err != nil {
			refuse(key+"name", "%v", err)
		}
		if slices.ContainsFunc(c.Commands[:i], func(o Command) bool { return o.Name == command.Name }) {
			refuse(key+"name", "%q is there twice", command.Name)
		}
		if len(command.Run) == 0 || !filepath.IsAbs(command.Run[0]) {
			refuse(key+"run", "want the program by its absolute path, then its arguments, such as [/usr/bin/pkill, -HUP, nginx]")
		}
		if command.Timeout < 0 || command.Timeout > mostTimeout {
			refuse(key+"timeout", "%s is out of bounds: at most %s", command.Timeout, mostTimeout)
		}
	}
}

// NoUser is a user that files cannot be of, by the key that names it.
type NoUser struct {
	Key string
	Err error
}

// Owners finds the users.
func (c Config) Owners() (list []child.User, wrong []NoUser) {
	for i, text := range c.Users {
		u, err := child.LookupUser(text)
		if err == nil {
			err = u.Possible()
		}
		if err == nil && slices.ContainsFunc(list, func(o child.User) bool { return o.UID == u.UID }) {
			err = fmt.Errorf("uid %d is there twice", u.UID)
		}
		if err != nil {
			wrong = append(wrong, NoUser{fmt.Sprintf("files.users[%d]", i), err})
			continue
		}
		list = append(list, u)
	}
	return list, wrong
}

// Check reports why a start could not have the folder, which it would make.
func (c Config) Check() error {
	if !c.Given() {
		return nil
	}
	err := Check(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err = private.Folder(filepath.Dir(c.Dir), private.Self()); err == nil {
			err = checkMemory(filepath.Dir(c.Dir), c.Dir)
		}
		if err == nil {
			err = private.Creatable(c.Dir)
		}
	}
	if err != nil {
		return fmt.Errorf("files.dir: %w", err)
	}
	return nil
}
