package envoy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"signet.example/proxy"
	"signet.example/test/parts"
)

// aProgram says something when it is asked for its version, and counts how often that was.
func aProgram(t *testing.T, says string) (path string, asked func() int) {
	t.Helper()
	dir := t.TempDir()
	path = filepath.Join(dir, "envoy")
	replaceProgram(t, path, says)
	return path, func() int {
		b, err := os.ReadFile(path + ".asked")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(b), "--version\n")
	}
}

func replaceProgram(t *testing.T, path, says string) {
	t.Helper()
	script := "#!/bin/sh\necho \"$1\" >>" + path + ".asked\necho\necho '" + says + "'\n"
	if err := os.WriteFile(path+".new", []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

const ofBuild = "/opt/a:b/envoy  version: 6f9f5d1f2c6c0c1e0d7c/%/Clean/RELEASE/BoringSSL"

func TestAProgramIsAskedForItsVersionOnceAndAgainWhenItIsReplaced(t *testing.T) {
	var of programs
	path, asked := aProgram(t, strings.Replace(ofBuild, "%", "1.39.2", 1))
	want := func(version string) {
		t.Helper()
		for range 3 {
			if v, err := of.version(path, nil); v != version || err != nil {
				t.Errorf("got %q, %v, want %s", v, err, version)
			}
		}
	}
	want("1.39.2")
	if n := asked(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	replaceProgram(t, path, strings.Replace(ofBuild, "%", "1.41.0-dev", 1))
	want("1.41.0-dev")
	if n := asked(); n != 2 {
		t.Errorf("asked %d times", n)
	}
}

func TestAProgramThatSaysNoVersionIsOfNoneAndOneThatIsTooOldIsRefused(t *testing.T) {
	for says, old := range map[string]bool{
		"":          false,
		"no option": false,
		strings.Replace(ofBuild, "%", "latest", 1):                  false,
		strings.Repeat("x", 2*mostVersion) + ": c/1.40.0/Clean/R/B": false,
		strings.Replace(ofBuild, "%", "1.37.9", 1):                  true,
	} {
		var of programs
		path, asked := aProgram(t, says)
		for range 2 {
			if v, err := of.version(path, nil); v != "" || errors.Is(err, proxy.ErrOldEnvoy) != old || (err != nil) != old {
				t.Errorf("%.80q: got %q, %v", says, v, err)
			}
		}
		if n := asked(); n != 1 {
			t.Errorf("%.80q: asked %d times", says, n)
		}
	}
	var of programs
	if _, err := of.version(filepath.Join(t.TempDir(), "gone"), nil); err == nil {
		t.Error("a program that is not there")
	}
}

func TestTheRealEnvoyIsKnownByItsVersionBeforeItRuns(t *testing.T) {
	var of programs
	v, err := of.version(parts.Envoy(t), nil)
	if v == "" || err != nil {
		t.Errorf("got %q, %v", v, err)
	}
}
