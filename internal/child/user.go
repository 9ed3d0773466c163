package child

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
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

// Uids that nobody is given: `useradd` ends before them, and systemd leaves them
// unused, its dynamic users come after (https://systemd.io/UIDS-GIDS).
const spareFirst, spareLast = 60578, 61183

// IsSpare reports whether a uid is one that SpareUser may give.
func IsSpare(uid uint32) bool { return uid >= spareFirst && uid <= spareLast }

// SpareUser is a user that no process runs as and no database knows, for a child of
// root for which nobody has named one. Whoever starts other processes by such uids may
// come to the same one later.
func SpareUser() (User, error) {
	used, err := uidsInUse()
	if err != nil {
		return User{}, fmt.Errorf("find a user for a child: %w", err)
	}
	for uid := uint32(spareFirst); uid <= spareLast; uid++ {
		text := strconv.Itoa(int(uid))
		_, errUser := user.LookupId(text)
		_, errGroup := user.LookupGroupId(text)
		if used[uid] || errUser == nil || errGroup == nil {
			continue
		}
		return User{UID: uid, GID: uid}, nil
	}
	return User{}, fmt.Errorf("find a user for a child: none of the uids %d to %d is free", spareFirst, spareLast)
}

// uidsInUse are the real, effective, saved and file system uids of all processes.
func uidsInUse() (map[uint32]bool, error) {
	all, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		return nil, err
	}
	used := map[uint32]bool{}
	for _, path := range all {
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(content) == 0 {
			continue // it has ended
		}
		for line := range strings.Lines(string(content)) {
			uids, ok := strings.CutPrefix(line, "Uid:")
			for text := range strings.FieldsSeq(uids) {
				if uid, err := number(text); ok && err == nil {
					used[uid] = true
				}
			}
		}
	}
	if !used[uint32(os.Geteuid())] { //nolint:gosec // a uid has 32 bits
		return nil, errors.New("/proc does not show this process")
	}
	return used, nil
}
