package parts

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Disk makes a folder a disk of its own, of a size such as "256k", until the test ends.
func Disk(t testing.TB, dir, size string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		Missing(t, "a small tmpfs: mount: "+err.Error())
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// FillDisk leaves no room on the disk that a folder is on, until the returned function
// is called or the test ends.
func FillDisk(t testing.TB, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	free = func() { _ = os.Remove(path) } // it may be called twice
	t.Cleanup(free)
	for size := 1 << 16; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2 // what is left is less
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return free
}
