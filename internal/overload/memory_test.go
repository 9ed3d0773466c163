package overload

import (
	"fmt"
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

func TestWhatTheFirstCgroupsAllowIsWhatAProcessMayHave(t *testing.T) {
	const stat = "cache 4096\nhierarchical_memory_limit %s\nhierarchical_memsw_limit 99\n"
	host, contained := t.TempDir(), t.TempDir()
	for at, limit := range map[string]string{
		filepath.Join(host, "memory"):                        "9223372036854771712",
		filepath.Join(host, "memory", "ecs", "task", "web"):  "536870912",
		filepath.Join(host, "memory", "ecs", "task", "next"): "much",
		filepath.Join(host, "memory", "ecs", "task", "none"): "0",
		filepath.Join(contained, "memory"):                   "536870912", // a container has its own there
	} {
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(at, "memory.stat"), fmt.Appendf(nil, stat, limit), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, of := range []struct {
		root, own string
		want      int64
	}{
		{host, "12:cpu,cpuacct:/ecs\n4:memory:/ecs/task/web\n0::/\n", 512 << 20},
		{contained, "9:hugetlb,memory:/ecs/task/web\n", 512 << 20},
		{contained, "9:memory:/../../away\n", 512 << 20},
		{host, "4:memory:/\n", 9223372036854771712},
		{host, "4:memory:/ecs/task/next\n", math.MaxInt64},
		{host, "4:memory:/ecs/task/none\n", math.MaxInt64},
		{host, "4:memory\n0::/ecs\n", math.MaxInt64},
		{t.TempDir(), "4:memory:/ecs\n", math.MaxInt64},
	} {
		if got := ofFirstCgroups([]byte(of.own), of.root); got != of.want {
			t.Errorf("%q: %d, not %d", of.own, got, of.want)
		}
	}
}
