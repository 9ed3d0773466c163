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

	"golang.org/x/sys/unix"
)

// The user database is /etc/passwd and /etc/group: the program is built without the C
// library, and so asks no directory service (LDAP, SSSD, systemd-userdb).

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
		known, err := user.LookupId(text)
		if absent, err := isAbsent(err); absent || err != nil {
			return u, err
		}
		if u.GID, err = number(known.Gid); err != nil {
			return User{}, fmt.Errorf("user %s: group: %w", text, err)
		}
		return u, nil
	}
	known, err := byName(text, "uid:gid")
	if err != nil {
		return User{}, err
	}
	return named(known)
}

// LookupUID is the uid of a user given by name, or by number without a look at the
// user database.
func LookupUID(text string) (uint32, error) {
	if uid, err := number(text); err == nil {
		return uid, nil
	}
	known, err := byName(text, "the uid")
	if err != nil {
		return 0, err
	}
	u, err := named(known)
	return u.UID, err
}

// NameOf is the name and the group that the user database has for a uid, "" for a name
// where it has none.
func NameOf(uid uint32) (name string, gid uint32) {
	known, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return "", uid
	}
	if gid, err = number(known.Gid); err != nil {
		return "", uid
	}
	return known.Username, gid
}

// byName finds a user; instead is what can be given in the place of the name.
func byName(name, instead string) (*user.User, error) {
	if strings.Trim(name, "0123456789") == "" { // nothing, or a number that is none of a user
		return nil, fmt.Errorf("user %q: want a name or %s", name, instead)
	}
	known, err := user.Lookup(name)
	absent, err := isAbsent(err)
	switch {
	case err != nil:
		return nil, fmt.Errorf("user %q: %w", name, err)
	case absent:
		return nil, fmt.Errorf("user %q is not in /etc/passwd: make it with `useradd --system --shell /usr/sbin/nologin %s`, or give %s, as for a user of a directory service", name, name, instead)
	}
	return known, nil
}

// isAbsent reports whether a look into the user database found nothing, by its error.
// One without its file is empty, one that cannot be read has said nothing.
func isAbsent(err error) (bool, error) {
	var noName user.UnknownUserError
	var noUser user.UnknownUserIdError
	var noGroup user.UnknownGroupIdError
	if errors.As(err, &noName) || errors.As(err, &noUser) || errors.As(err, &noGroup) || errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("the user database cannot be read: %w", err)
	}
	return false, nil
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

// SpareUser is a user that no visible process runs as and that /etc/passwd and
// /etc/group do not have, for a child of root for which nobody has named one. Directory
// services are not asked, nor the owners of files: where one of them has such uids, a
// user must be named. Whoever starts other processes by such uids may come to the same
// one later.
func SpareUser() (User, error) {
	used, err := uidsInUse("/proc")
	if err != nil {
		return User{}, fmt.Errorf("find a user for a child: %w", err)
	}
	for uid := uint32(spareFirst); uid <= spareLast; uid++ {
		text := strconv.Itoa(int(uid))
		_, err := user.LookupId(text)
		noUser, errUser := isAbsent(err)
		_, err = user.LookupGroupId(text)
		noGroup, errGroup := isAbsent(err)
		if err := errors.Join(errUser, errGroup); err != nil {
			return User{}, fmt.Errorf("find a user for a child: %w", err)
		}
		if noUser && noGroup && !used[uid] {
			return User{UID: uid, GID: uid}, nil
		}
	}
	return User{}, fmt.Errorf("find a user for a child: none of the uids %d to %d is free", spareFirst, spareLast)
}

// uidsInUse are the real, effective, saved and file system uids of all threads: those
// of one process may differ. One that is there and cannot be read may have any.
func uidsInUse(proc string) (map[uint32]bool, error) {
	processes, err := numbered(proc)
	if err != nil {
		return nil, err
	}
	used := map[uint32]bool{}
	for _, process := range processes {
		threads, err := numbered(filepath.Join(process, "task"))
		if hasEnded(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, thread := range threads {
			content, err := os.ReadFile(filepath.Join(thread, "status"))
			if hasEnded(err) {
				continue
			}
			if err != nil {
				return nil, err
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
	}
	if !used[uint32(os.Geteuid())] { //nolint:gosec // a uid has 32 bits
		return nil, fmt.Errorf("%s does not show this process", proc)
	}
	return used, nil
}

// numbered are the folders of processes, or of the threads of one.
func numbered(dir string) ([]string, error) {
	all, err := os.ReadDir(dir) // filepath.Glob leaves out what it cannot read
	if err != nil {
		return nil, err
	}
	var list []string
	for _, entry := range all {
		if _, err := strconv.ParseUint(entry.Name(), 10, 32); err == nil {
			list = append(list, filepath.Join(dir, entry.Name()))
		}
	}
	return list, nil
}

func hasEnded(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }
