package private

import (
	"bufio"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// The user database. Users and groups that only a directory service knows are
// not in it: a group that is not found here counts as shared.
var groupFile, passwdFile = "/etc/group", "/etc/passwd"

// mostDatabase bounds what is read of either file.
const mostDatabase = 16 << 20

// groupOf reports whether nobody except own and root is a member of the group, by
// its list of members and as anybody's primary group. In doubt it is shared.
func groupOf(gid, own uint32) bool {
	members, found := []string(nil), false
	ok := eachLine(groupFile, func(f []string) bool {
		if len(f) != 4 || f[2] != strconv.FormatUint(uint64(gid), 10) {
			return true
		}
		found = true
		members = append(members, strings.FieldsFunc(f[3], func(r rune) bool { return r == ',' })...)
		return true
	})
	if !ok || !found {
		return false
	}
	trusted := func(uid string) bool { return uid == "0" || uid == strconv.FormatUint(uint64(own), 10) }
	known := map[string]bool{}
	ok = eachLine(passwdFile, func(f []string) bool {
		if len(f) != 7 {
			return true
		}
		if trusted(f[2]) {
			known[f[0]] = true
			return true
		}
		return f[3] != strconv.FormatUint(uint64(gid), 10) && !slices.Contains(members, f[0])
	})
	return ok && !slices.ContainsFunc(members, func(name string) bool { return !known[name] })
}

// eachLine calls line with the fields of each line, until it returns false, and
// reports whether all were read and none was refused.
func eachLine(path string, line func([]string) bool) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // only read
	limited := &io.LimitedReader{R: f, N: mostDatabase}
	s := bufio.NewScanner(limited)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if !line(strings.Split(s.Text(), ":")) {
			return false
		}
	}
	return s.Err() == nil && limited.N > 0
}
