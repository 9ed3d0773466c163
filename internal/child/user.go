package child

import (
	"fmt"
	"os/user"
	"strconv"
	"strings"
)

// LookupUser finds a user by name, with the groups that the user database has for
// it; by "uid", with the group of the database or else one of the same number; or by
// "uid:gid", without a look at the database.
func LookupUser(text string) (User, error) {
	if uid, gid, both := strings.Cut(text, ":"); both {
		var u User
		var err error
		if u.UID, err = number(uid); err == nil {
			u.GID, err = number(gid)
		}
		if err != nil {
			return User{}, fmt.Errorf("user %q: want a name, a uid or uid:gid", text)
		}
		return u, nil
	}
	if uid, err := number(text); err == nil {
		u := User{UID: uid, GID: uid}
		if known, err := user.LookupId(text); err == nil {
			if u.GID, err = number(known.Gid); err != nil {
				return User{}, fmt.Errorf("user %s: group: %w", text, err)
			}
		}
		return u, nil
	}
	known, err := user.Lookup(text)
	if err != nil {
		return User{}, fmt.Errorf("user %q is not known on this host: make it with `useradd --system --shell /usr/sbin/nologin %s`, or give a uid", text, text)
	}
	return named(known)
}

func named(known *user.User) (User, error) {
	fail := func(err error) (User, error) { return User{}, fmt.Errorf("user %s: %w", known.Username, err) }
	var u User
	var err error
	if u.UID, err = number(known.Uid); err != nil {
		return fail(err)
	}
	if u.GID, err = number(known.Gid); err != nil {
		return fail(err)
	}
	groups, err := known.GroupIds()
	if err != nil {
		return fail(err)
	}
	for _, g := range groups {
		gid, err := number(g)
		if err != nil {
			return fail(err)
		}
		if gid != u.GID {
			u.Groups = append(u.Groups, gid)
		}
	}
	return u, nil
}

// number reads a uid or gid; the highest means "unchanged" to the kernel.
func number(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err == nil && n == 1<<32-1 {
		err = strconv.ErrRange
	}
	return uint32(n), err
}
