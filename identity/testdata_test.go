package identity_test

import (
	"testing"

	"signet.example/test/parts"
)

// shared is a file of the shared vectors.
func shared(t *testing.T, name string) string {
	t.Helper()
	return parts.Shared(t, "testdata", name)
}
