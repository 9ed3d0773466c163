package private_test

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"signet.example/internal/private"
	"signet.example/test/parts"
)

const (
	users  = "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/:/bin/sh\nyou:x:1001:1001::/:/bin/sh\nthird:x:1002:1003::/:/bin/sh\n"
	groups = "root:x:0:\nme:x:1000:\nyou:x:1001:\nteam:x:1002:me,you\nhidden:x:1003:\nsolo:x:1004:me,root\nghost:x:1005:nobody-knows\n"
)

// database gives the test the users and groups above.
func database(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	g, p := filepath.Join(dir, "group"), filepath.Join(dir, "passwd")
	for path, content := range map[string]string{g: groups, p: users} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	private.SetDatabase(t, g, p)
}

// file makes a folder and a file in it that belong to a user, with these modes.
func file(t *testing.T, uid, gid int, folder, mode fs.FileMode) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "private")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for p, m := range map[string]fs.FileMode{dir: folder, path: mode} {
		if err := errors.Join(os.Chown(p, uid, gid), os.Chmod(p, m)); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestOnlyWhatNobodyElseCanGetAtIsPrivate(t *testing.T) {
	asRoot(t)
	database(t)
	for name, c := range map[string]struct {
		uid, gid     int
		folder, mode fs.FileMode
		guarded      string // empty: accepted
		secret       string
	}{
		"mine alone":                    {1000, 1000, 0o700, 0o600, "", ""},
		"root's":                        {0, 0, 0o755, 0o600, "", ""},
		"readable":                      {1000, 1000, 0o755, 0o644, "", "chmod go-r"},
		"another's":                     {1001, 1001, 0o700, 0o600, "belongs to uid 1001", "belongs to uid 1001"},
		"written by all":                {1000, 1000, 0o755, 0o666, "chmod go-w", "chmod go-rw"},
		"folder written by all":         {1000, 1000, 0o777, 0o600, "chmod go-w", "chmod go-w"},
		"folder written by all, sticky": {1000, 1000, 0o777 | fs.ModeSticky, 0o600, "", ""},
		"my own group, umask 002":       {1000, 1000, 0o775, 0o664, "", "chmod go-rw"},
		"my own group, secret":          {1000, 1000, 0o770, 0o660, "", "chmod g-rw"},
		"a group that another is in":    {1000, 1002, 0o775, 0o600, "chmod g-w", "chmod g-w"},
		"the main group of another":     {1000, 1003, 0o775, 0o600, "chmod g-w", "chmod g-w"},
		"a group of root and me":        {1000, 1004, 0o775, 0o660, "", "chmod g-rw"},
		"a member that nobody knows":    {1000, 1005, 0o775, 0o600, "chmod g-w", "chmod g-w"},
		"a group that nobody knows":     {1000, 4711, 0o775, 0o600, "chmod g-w", "chmod g-w"},
		"another's own group":           {0, 1001, 0o775, 0o600, "chmod g-w", "chmod g-w"},
	} {
		t.Run(name, func(t *testing.T) {
			path := file(t, c.uid, c.gid, c.folder, c.mode)
			expect(t, private.Guarded(path, 1000), c.guarded)
			expect(t, private.Secret(path, 1000), c.secret)
		})
	}
}

func expect(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err == nil:
	case want == "" || err == nil || !strings.Contains(err.Error(), want):
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestAFileIsNoFolder(t *testing.T) {
	asRoot(t)
	path := file(t, 1000, 1000, 0o700, 0o600)
	expect(t, private.Folder(filepath.Dir(path), 1000), "")
	expect(t, private.Folder(path, 1000), "not a directory")
	expect(t, private.Folder(filepath.Dir(path), 1001), "belongs to uid 1000")
}

// Whoever has a folder above a mount can move the mount away with it, and make another
// folder of that name.
func TestAFolderThatItsUserCanMoveAwayIsNotFixed(t *testing.T) {
	asRoot(t)
	database(t)
	for name, c := range map[string]struct {
		uid, gid int
		mode     fs.FileMode // of what is above
		own      int         // of the folder
		want     string
	}{
		"above it is root's":                 {0, 0, 0o755, 1000, ""},
		"above it is the user's":             {1000, 1000, 0o755, 1000, "must be root: chown 0"},
		"above it is its group's":            {0, 1000, 0o775, 1000, "chmod g-w"},
		"above it is everybody's":            {0, 0, 0o777, 1000, "chmod go-w"},
		"everybody's, sticky, and it theirs": {0, 0, 0o777 | fs.ModeSticky, 1000, "chmod go-w"},
		"everybody's, sticky, and it root's": {0, 0, 0o777 | fs.ModeSticky, 0, ""},
		"it is another's":                    {0, 0, 0o755, 1001, "root or uid 1000"},
	} {
		t.Run(name, func(t *testing.T) {
			above := filepath.Dir(file(t, 0, 0, 0o755, 0o600))
			dir := filepath.Join(above, "d")
			if err := errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, c.own, c.own), os.Chown(above, c.uid, c.gid), os.Chmod(above, c.mode)); err != nil {
				t.Fatal(err)
			}
			expect(t, private.Fixed(dir, 1000), c.want)
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(dir, link); err != nil {
				t.Fatal(err)
			}
			expect(t, private.Fixed(link, 1000), c.want)
		})
	}
}

func TestALinkIsAsPrivateAsWhatItLeadsThrough(t *testing.T) {
	asRoot(t)
	good, bad := file(t, 0, 0, 0o755, 0o600), file(t, 0, 0, 0o777, 0o600)
	if err := os.Chmod(filepath.Dir(bad), 0o777); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, to := range map[string]string{"good": good, "bad": bad, "folder": filepath.Dir(bad), "loop": "loop", "relative": "good"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	inBad := filepath.Join(filepath.Dir(bad), "link")
	if err := os.Symlink(good, inBad); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, "foreign")
	if err := os.Symlink(good, foreign); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(foreign, 1001, -1); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"good": "", "relative": "", "bad": "chmod go-w", "folder/f": "chmod go-w", "loop": "too many levels", "foreign": "belongs to uid 1001",
	} {
		expect(t, private.Secret(filepath.Join(dir, path), 1000), want)
	}
	expect(t, private.Secret(inBad, 1000), "chmod go-w")
}

// What ".." means behind a link is the kernel's to say: it is the kernel that opens
// the file.
func TestALinkThatGoesUpLeadsWhereTheKernelSays(t *testing.T) {
	asRoot(t)
	dir, bad := t.TempDir(), filepath.Dir(file(t, 0, 0, 0o777, 0o600))
	for _, d := range []string{dir, bad} {
		if err := os.Mkdir(filepath.Join(d, "deep"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "f"), nil, 0o600),
		os.Symlink(filepath.Join(bad, "deep"), filepath.Join(dir, "there")),
		os.Symlink("there/../f", filepath.Join(dir, "up")),       // by the text: f, here
		os.Symlink("deep/../f", filepath.Join(dir, "back")),      // here
		os.Symlink("../f", filepath.Join(bad, "deep", "beside")), // by the text of there/beside: f, here
		os.Symlink("/", filepath.Join(dir, "root")),
		os.Symlink("f/../f", filepath.Join(dir, "through")),
	); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"up": "chmod go-w " + bad, "there/beside": "chmod go-w " + bad, "back": "", "through": "not a directory",
		"deep/../f": "", "there/../f": "without \"..\"", "there/../missing": "no such file", "root": "",
	} {
		expect(t, private.Guarded(dir+"/"+path, 0), want)
	}
	if err := os.WriteFile(filepath.Join(dir, "here"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, private.Guarded(dir+"/there/../here", 0), "without \"..\"") // a program that joins paths finds it
	expect(t, private.Fixed(filepath.Join(dir, "f"), 0), "not a directory")
}

func TestAnAccessControlListIsNotTheOwnersGroup(t *testing.T) {
	asRoot(t)
	database(t)
	path := file(t, 1000, 1000, 0o700, 0o600)
	list := []byte{2, 0, 0, 0} // the version, then entries of tag, permissions and id
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{0x01, 6, ^uint32(0)}, {0x02, 6, 1001}, {0x04, 0, ^uint32(0)}, {0x10, 6, ^uint32(0)}, {0x20, 0, ^uint32(0)}} {
		list = binary.LittleEndian.AppendUint16(list, e.tag)
		list = binary.LittleEndian.AppendUint16(list, e.perm)
		list = binary.LittleEndian.AppendUint32(list, e.id)
	}
	if err := unix.Setxattr(path, "system.posix_acl_access", list, 0); err != nil {
		parts.Missing(t, "this file system has no access control lists: "+err.Error())
	}
	expect(t, private.Guarded(path, 1000), "chmod g-w")
}

// asRoot skips a test that gives files to other users.
func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		parts.Missing(t, "files of other users need root")
	}
}

func TestAFolderIsWritableToTheEffectiveUser(t *testing.T) {
	asRoot(t)
	dir := filepath.Dir(file(t, 0, 0, 0o700, 0o600))
	expect(t, private.Writable(dir), "")
	parts.AsEffectiveUser(t, 1000, func() { expect(t, private.Writable(dir), "permission denied") })
}
