package identity_test

import (
	"os"
	"path/filepath"
	"testing"
)

// shared returns the path of a file of the shared vectors, and skips by name
// where they are not at hand (fails under REQUIRE_ALL=1).
func shared(t *testing.T, name string) string {
	t.Helper()
	root := os.Getenv("SIGNET_SHARED")
	if root == "" {
		root = filepath.Join("..", "..", "shared")
	}
	path := filepath.Join(root, "testdata", name)
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("REQUIRE_ALL") == "1" {
			t.Fatalf("shared vectors: %v", err)
		}
		t.Skipf("shared vectors: %s is not there; set SIGNET_SHARED", name)
	}
	return path
}
