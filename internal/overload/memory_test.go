package overload

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

func TestTheLeastOfAllCgroupsAroundAProcessIsWhatItMayHave(t *testing.T) {
	root := t.TempDir()
	for at, text := range map[string]string{
		"a/memory.max": "1000000\n", "a/b/memory.max": "max\n", "a/b/c/memory.max": "2000000\n", "other/memory.max": "5\n", "odd/memory.max": "much\n",
	} {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(at)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, at), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for own, want := range map[string]int64{
		"0::/a/b/c\n":                      1000000,
		"4:memory:/x\n0::/other\n":         5,
		"0::/\n":                           math.MaxInt64,
		"0::/odd\n":                        math.MaxInt64,
		"0::/../../other\n":                5, // as the kernel writes what is outside of a namespace
		"0::/gone/away\n1:name=systemd:/a": math.MaxInt64,
		"":                                 math.MaxInt64,
	} {
		if got := ofCgroups([]byte(own), root); got != want {
			t.Errorf("%q: %d, not %d", own, got, want)
		}
	}
	if all := Memory(); all < 64<<20 || all > 1<<50 {
		t.Errorf("this host has %d", all)
	}
}
