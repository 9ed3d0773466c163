package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"signet.example/internal/child"
	"signet.example/internal/private"
)

// This file is about the users that the agent's children run as. Users are the
// boundary on a host: a process can read what another one of its user holds.

// ProxyUsers are the different users that the proxies run as, nil for the agent's
// own, and an error names what is wrong with the children's users on this host and
// for this process. It looks names up, so it is not part of Validate.
func (c Config) ProxyUsers() ([]*child.User, error) {
	c, err := c.withDefaults().withUsers()
	var list []*child.User
	for _, p := range c.Proxies {
		if !slices.ContainsFunc(list, func(u *child.User) bool { return reflect.DeepEqual(u, p.as) }) {
			list = append(list, p.as)
		}
	}
	return list, err
}

// withUsers finds the users that the children are to run as.
func (c Config) withUsers() (Config, error) {
	var errs []error
	var lacking []string // the keys whose users this process lacks capabilities for
	var lack *child.LackError
	refuse := func(key string, err error) {
		var l *child.LackError
		switch {
		case !errors.As(err, &l):
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
			return
		case lack != nil:
			l = lack.And(l)
		}
		lack, lacking = l, append(lacking, key)
	}
	var err error
	if c.Authz.as, err = c.Authz.user(); err != nil {
		refuse("authz.user", err)
	}
	if c.Authz.spare() {
		if err := sparePossible(); err != nil {
			refuse("authz.user", err)
		}
	}
	owners, wrong := c.Files.Owners()
	c.owners = owners
	for _, w := range wrong {
		refuse(w.Key, w.Err)
	}
	c.Proxies = slices.Clone(c.Proxies)
	for i := range c.Proxies {
		p := &c.Proxies[i]
		p.as, err = p.user()
		if err == nil && c.Authz.as.Other() && p.as != nil && p.as.UID == c.Authz.as.UID {
			err = fmt.Errorf("uid %d is the authz process's, too, which could read this proxy's key: give each a user of its own", p.as.UID)
		}
		if err == nil && c.Authz.spare() && p.as != nil && child.IsSpare(p.as.UID) {
			err = fmt.Errorf("uid %d is among those that the agent takes for the authz process where none is named: name authz.user, too", p.as.UID)
		}
		if err != nil {
			refuse(fmt.Sprintf("proxies[%d].user", i), err)
		}
	}
	if lack != nil { // one cause, however many users there are
		errs = append(errs, fmt.Errorf("%s: %w", strings.Join(lacking, ", "), lack))
	}
	return c, errors.Join(append(errs, c.adminFolders())...)
}

// user whom the authz process runs as.
func (o AuthzOptions) user() (*child.User, error) {
	if o.User == "" && o.UID == nil && o.GID == nil {
		return nil, nil
	}
	u := child.User{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())} //nolint:gosec // never negative on Linux
	var err error
	if o.User != "" {
		u, err = child.LookupUser(o.User)
	}
	if o.UID != nil {
		u.UID = *o.UID
	}
	if o.GID != nil {
		u.GID = *o.GID
	}
	if err != nil {
		return nil, err
	}
	return &u, u.Possible()
}

// spare reports whether the authz process runs as a user that is found when it is
// started: where the agent is root, and nobody has named one. As root, if without
// capabilities, whoever takes it over could write root's files.
func (o AuthzOptions) spare() bool { return o.as == nil && os.Geteuid() == 0 }

// sparePossible reports why the authz process could not run as such a user.
func sparePossible() error {
	u, err := child.SpareUser()
	if err == nil {
		err = u.Possible()
	}
	if err == nil {
		var info os.FileInfo
		if info, err = os.Stat(child.Self); err == nil && info.Mode().Perm()&0o001 == 0 {
			err = errors.New("the signet program's file may not be executed by others")
		}
	}
	if err != nil {
		return fmt.Errorf("is missing, and this agent is root, but cannot run the authz process as a user of its own (%w): name one; \"root\" is one only if named", err)
	}
	return nil
}

// user whom the proxy runs as. Root only by name: an Envoy that strangers reach
// would own this host.
func (p Proxy) user() (*child.User, error) {
	if p.User == "" {
		if os.Geteuid() == 0 {
			return nil, errors.New("is missing, and this agent is root: name the user that Envoy is to run as, here or with proxy_user for all (docs/AGENT.md); \"root\" is one only if named")
		}
		return nil, nil
	}
	u, err := child.LookupUser(p.User)
	if err != nil {
		return nil, err
	}
	return &u, u.Possible()
}

// uid is the user that the proxy runs as.
func (p Proxy) uid() uint32 {
	if p.as != nil {
		return p.as.UID
	}
	return private.Self()
}

// adminFolders refuses admin sockets of proxies of different users in one folder:
// each must be able to make its own there, and nobody else's.
func (c Config) adminFolders() error {
	var errs []error
	of := map[string]*child.User{
		filepath.Clean(c.SocketDir): nil, filepath.Join(c.SocketDir, proxiesDir): nil,
	}
	for i, p := range c.Proxies {
		dir := filepath.Dir(filepath.Clean(p.Admin))
		u := p.as
		other, taken := of[dir]
		if taken && (u.Other() || other.Other()) && (u == nil || other == nil || u.UID != other.UID) {
			errs = append(errs, fmt.Errorf("proxies[%d].admin: %s is not in a folder of its own, and only this proxy's user must be able to write there", i, p.Admin))
		}
		of[dir] = u
	}
	return errors.Join(errs...)
}
