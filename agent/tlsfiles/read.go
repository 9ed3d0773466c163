package tlsfiles

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"signet.example/internal/private"
)

// Dir is a folder of the host whose files a proxy may have.
type Dir struct {
	// Dir is the folder.
	Dir string `yaml:"dir"`
	// As is the folder as the mesh names it, where that is another one: App Mesh's paths
	// were those of a container. Default: Dir.
	As string `yaml:"as"`
}

// Validate refuses a folder that no operator can mean. kept are folders of the agent's own.
func (d Dir) Validate(kept ...string) error {
	for _, path := range []string{d.Dir, d.as()} {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
			return fmt.Errorf("want the absolute path of a folder below /, without . and .., got %q", path)
		}
	}
	for _, other := range append([]string{"/proc", "/sys", "/dev"}, kept...) {
		if within(d.Dir, other) || within(other, d.Dir) {
			return fmt.Errorf("%s and %s are not for the certificates of a proxy: give them a folder of their own", d.Dir, other)
		}
	}
	return nil
}

func (d Dir) as() string {
	if d.As == "" {
		return d.Dir
	}
	return d.As
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// errNotAllowed is what a mesh asks for and the host does not give.
type errNotAllowed struct{ file string }

func (e *errNotAllowed) Error() string {
	return fmt.Sprintf("the mesh names %s, which the agent's configuration does not let this proxy have; if it is to, add to the proxy in agent.yaml the folder of this host that has the file, and nothing of others: tls_dirs: [{dir: FOLDER, as: %s}]",
		e.file, filepath.Dir(e.file))
}

// find is the folder that has a file, and the file's path in it. Of several folders the
// one of the longest path is meant.
func find(dirs []Dir, file string) (dir, rest string, err error) {
	longest := -1
	for _, d := range dirs {
		if in, ok := strings.CutPrefix(file, d.as()+"/"); ok && len(d.as()) > longest {
			dir, rest, longest = d.Dir, in, len(d.as())
		}
	}
	if longest < 0 {
		return "", "", &errNotAllowed{file}
	}
	return dir, rest, nil
}

// print is by what a file is seen to be another one.
type print struct {
	dev, ino       uint64
	size           int64
	changed, moved time.Time
}

func printOf(info fs.FileInfo) print {
	s := info.Sys().(*syscall.Stat_t) //nolint:forcetypeassert // Linux
	return print{s.Dev, s.Ino, info.Size(), info.ModTime(), time.Unix(s.Ctim.Sec, s.Ctim.Nsec)}
}

// look is the print of a file as it is now.
func look(dirs []Dir, file string) (print, error) {
	dir, rest, err := find(dirs, file)
	if err != nil {
		return print{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return print{}, err
	}
	defer func() { _ = root.Close() }() // only looked at
	info, err := root.Stat(rest)
	if err != nil {
		return print{}, fmt.Errorf("%s: %w", filepath.Join(dir, rest), err)
	}
	return printOf(info), nil
}

// read is what is in a file, if nobody but root and the agent could have put it there, and
// nobody else can read it where it is a secret. A link may lead to another place in the
// same folder, as Kubernetes' own do; os.Root lets none lead out of it.
func read(dirs []Dir, file string, most int64, secret bool) (_ []byte, _ print, err error) {
	dir, rest, err := find(dirs, file)
	if err != nil {
		return nil, print{}, err
	}
	path := filepath.Join(dir, rest)
	defer func() {
		if p := (*fs.PathError)(nil); errors.As(err, &p) {
			err = p.Err
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, print{}, err
	}
	defer func() { _ = root.Close() }() // only read
	info, err := root.Stat(rest)
	if err != nil {
		return nil, print{}, err
	}
	if !info.Mode().IsRegular() {
		return nil, print{}, errors.New("it is not a regular file")
	}
	check := private.Guarded
	if secret {
		check = private.Secret
	}
	if err := check(path, private.Self()); err != nil {
		return nil, print{}, err
	}
	// O_NONBLOCK: what was a file a moment ago may be a pipe by now.
	f, err := root.OpenFile(rest, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, print{}, err
	}
	defer func() { _ = f.Close() }() // only read
	opened, err := f.Stat()
	if err != nil {
		return nil, print{}, err
	}
	if !opened.Mode().IsRegular() || !os.SameFile(info, opened) {
		return nil, print{}, errors.New("it was replaced while it was read")
	}
	content, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, print{}, err
	}
	if int64(len(content)) > most {
		return nil, print{}, fmt.Errorf("it has more than %d bytes", most)
	}
	return content, printOf(opened), nil
}
