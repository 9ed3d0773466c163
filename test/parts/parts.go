// Package parts finds what tests need beside this repository's own code: the
// real Envoy, the signet binary, the shared vectors, system programs. A test
// whose part is missing skips by its name; under REQUIRE_ALL=1 it fails.
package parts

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Missing skips the test for want of a part, or fails it under REQUIRE_ALL=1.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("REQUIRE_ALL") == "1" {
		t.Fatalf("required: %s", what)
	}
	t.Skip(what)
}

// Root of the module, wherever the test runs.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	if filepath.IsAbs(file) {
		return filepath.Join(filepath.Dir(file), "..", "..")
	}
	dir, err := os.Getwd() // -trimpath: look for go.mod above the test
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	return "."
}

// Envoy is the real one: SIGNET_ENVOY, else .bin/envoy.
func Envoy(t testing.TB) string {
	t.Helper()
	return found(t, "SIGNET_ENVOY", filepath.Join(".bin", "envoy"), "run make tools")
}

// Signet is the binary under test: SIGNET_BIN, else bin/signet.
func Signet(t testing.TB) string {
	t.Helper()
	return found(t, "SIGNET_BIN", filepath.Join("bin", "signet"), "run make build")
}

// Shared is a file or folder of the shared vectors and samples, below
// SIGNET_SHARED, else ../shared; a relative path counts from the module's root.
func Shared(t testing.TB, name ...string) string {
	t.Helper()
	dir := os.Getenv("SIGNET_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "shared")
	}
	return found(t, "", filepath.Join(append([]string{dir}, name...)...), "set SIGNET_SHARED")
}

func found(t testing.TB, env, path, how string) string {
	t.Helper()
	if v := os.Getenv(env); env != "" && v != "" {
		path = v
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(Root(), path)
	}
	if _, err := os.Stat(path); err != nil {
		Missing(t, filepath.Base(path)+" is not here: "+how)
	}
	return path
}

// Program is a system program: from PATH, else from .bin.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	return found(t, "", filepath.Join(".bin", name), "run make deps")
}

// Soak reports whether counts and durations are scaled up: SOAK=1.
func Soak() bool { return os.Getenv("SOAK") == "1" }
