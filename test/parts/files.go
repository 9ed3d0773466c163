package parts

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// WriteLogMark puts the mark of an issuance log at path that had a record of this
// number, whose hash is zero.
func WriteLogMark(path string, sequence int) error {
	text := fmt.Sprintf("%d %x", sequence, make([]byte, sha256.Size))
	slot := fmt.Sprintf("%-4095s\n", fmt.Sprintf("%s %x", text, sha256.Sum256([]byte(text))))
	return os.WriteFile(path, []byte(slot+slot), 0o600)
}

// SpoilByte changes a file in its middle.
func SpoilByte(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	content[len(content)/2] ^= 1
	return os.WriteFile(path, content, 0o600)
}

// Tree lists the files of a folder with when they were changed.
func Tree(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	_ = filepath.Walk(dir, func(p string, fi os.FileInfo, err error) error { // a missing folder is an empty list
		if err == nil && !fi.IsDir() {
			b.WriteString(strings.TrimPrefix(p, dir) + " " + fi.ModTime().String() + "\n")
		}
		return nil
	})
	return b.String()
}
