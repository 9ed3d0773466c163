package proxy

import (
	"slices"
	"strings"
)

// OfItsHost reports whether Envoy, where it refuses a resource, speaks of the host that it runs
// on: another host takes the same resource. These are the words of its listeners and access logs,
// and strerror's.
func OfItsHost(message string) bool {
	return slices.ContainsFunc([]string{
		"cannot bind", "Address already in use", "Cannot assign requested address", "unable to open file", "Permission denied",
		"No such file or directory", "Too many open files", "No space left on device", "Read-only file system", "Cannot allocate memory",
	}, func(words string) bool { return strings.Contains(message, words) })
}
