package envoytest

import (
	"os"
	"path/filepath"
	"testing"
)

// Binary returns the path of Envoy: SIGNET_ENVOY, else .bin/envoy of the
// module. Without it the test is skipped, or fails where REQUIRE_ALL=1.
func Binary(t testing.TB) string {
	t.Helper()
	if p := os.Getenv("SIGNET_ENVOY"); p != "" {
		return p
	}
	if root := Root(t); root != "" {
		p := filepath.Join(root, ".bin", "envoy")
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() {
			return p
		}
	}
	Missing(t, "envoy: not in .bin; run make tools")
	return ""
}

// Root returns the directory that holds go.mod, above the working directory.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			return ""
		}
		dir = up
	}
}

// Missing skips a test for want of a part, or fails it where REQUIRE_ALL=1.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("REQUIRE_ALL") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// Soak is whether counts and durations are to be scaled up: SOAK=1.
func Soak() bool { return os.Getenv("SOAK") == "1" }
