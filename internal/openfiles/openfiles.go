// Package openfiles is how many files a process may open, for those that bound by it what
// strangers can have them hold open. Pure.
package openfiles

import "golang.org/x/sys/unix"

// least is what POSIX systems begin with.
const least = 1024

// Limit returns how many files this process may open now, and the most to which it, or a
// child that it starts, may raise that.
func Limit() (now, most uint64) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return least, least
	}
	return limit.Cur, limit.Max
}
