package files

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"signet.example/identity"
)

// The files of the layout pem, by the names that spiffe-helper's examples have.
const (
	pemName   = "pem"
	pemSVID   = "svid.pem"
	pemKey    = "svid_key.pem"
	pemTrust  = "svid_bundle.pem"
	setPrefix = "." + pemName + "-"
	setOne    = setPrefix + "1"
	setTwo    = setPrefix + "2"
)

// layouts are the forms beside the standard's, by name.
var layouts = map[string]func(c Credentials) ([]file, error){
	identity.LayoutPEM: pemLayout, identity.LayoutPKCS12: pkcs12Layout,
}

// LayoutNames are the layouts that there are, sorted.
func LayoutNames() []string { return slices.Sorted(maps.Keys(layouts)) }

// ofLayout reports whether a name is one of a layout's.
func ofLayout(name string) bool {
	return name == pemName || strings.HasPrefix(name, setPrefix) || name == keystoreName || name == trustName
}

// filesOf are all files of a folder, in the order in which they are written: authorities
// before the key that is verified by them. missing are layouts that are not known here.
func filesOf(c Credentials, names []string) (list []file, missing []string, err error) {
	var domains []string
	for td := range c.Trust {
		domains = append(domains, td)
	}
	slices.Sort(domains)
	for _, td := range domains {
		list = append(list, file{name: td + trustSuffix, content: certificatesPEM(c.Trust[td])})
	}
	list = append(list, file{name: bundleName, content: c.bundle()})
	for _, name := range names {
		layout, ok := layouts[name]
		if !ok {
			missing = append(missing, name)
			continue
		}
		more, errLayout := layout(c)
		list, err = append(list, more...), errors.Join(err, errLayout)
	}
	return list, missing, err
}

// pemLayout has key, chain and authorities in a file each. Nobody can replace three files
// at one instant, so it is the folder that they lie in which is replaced.
func pemLayout(c Credentials) ([]file, error) {
	td, _, _ := strings.Cut(strings.TrimPrefix(c.ID, "spiffe://"), "/")
	return []file{{name: pemName, set: []file{
		{name: pemTrust, content: certificatesPEM(c.Trust[td])},
		{name: pemKey, content: c.keyPEM()},
		{name: pemSVID, content: c.chainPEM()},
	}}}, nil
}

// putSet makes the files in a folder of their own, and has the name lead there once all of
// them are whole. The set before stays for who is reading it, until the next one.
func (r *Root) putSet(dir *os.File, f file, o Owner) error {
	now := ""
	if to, err := readlinkat(dir, f.name); err == nil && (to == setOne || to == setTwo) {
		now = to
		if r.sameSet(dir, now, f, o) {
			return nil
		}
	}
	next := setOne
	if now == setOne {
		next = setTwo
	}
	for _, left := range []string{newSet, newLink} { // of one that failed
		if err := r.root.RemoveAll(filepath.Join(stageName, left)); err != nil {
			return err
		}
	}
	set, err := r.mkdir(newSet)
	if err != nil {
		return err
	}
	defer func() { _ = set.Close() }() // its files are written by themselves
	for _, one := range f.set {
		if err := r.put(set, one.name, one.content, o); err != nil {
			return err
		}
	}
	if err := letIn(set, o); err != nil {
		return err
	}
	if err := r.unlink(dir, next); err != nil { // the one before the one that is read
		return err
	}
	if err := unix.Renameat(int(r.stage.Fd()), newSet, int(dir.Fd()), next); err != nil {
		return &fs.PathError{Op: "rename", Path: next, Err: err}
	}
	if err := unix.Symlinkat(next, int(r.stage.Fd()), newLink); err != nil {
		return &fs.PathError{Op: "symlink", Path: f.name, Err: err}
	}
	if err := unix.Renameat(int(r.stage.Fd()), newLink, int(dir.Fd()), f.name); err != nil {
		return &fs.PathError{Op: "rename", Path: f.name, Err: err}
	}
	return nil
}

func (r *Root) sameSet(dir *os.File, name string, f file, o Owner) bool {
	set, err := r.open(dir, name)
	if err != nil {
		return false
	}
	defer func() { _ = set.Close() }() // only read
	return !slices.ContainsFunc(f.set, func(one file) bool { return !same(set, one, o) })
}

func readlinkat(dir *os.File, name string) (string, error) {
	to := make([]byte, 64)
	n, err := unix.Readlinkat(int(dir.Fd()), name, to)
	if err != nil {
		return "", err
	}
	return filepath.Clean(string(to[:n])), nil
}
