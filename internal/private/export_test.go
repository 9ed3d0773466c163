package private

import "testing"

// SetDatabase has users and groups read from other files until the test ends.
func SetDatabase(t *testing.T, group, passwd string) {
	g, p := groupFile, passwdFile
	groupFile, passwdFile = group, passwd
	t.Cleanup(func() { groupFile, passwdFile = g, p })
}
