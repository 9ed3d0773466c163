package main

import (
	"archive/tar"
	"bytes"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// file is a file, a folder or a link of an image, which is root's unless it says otherwise.
type file struct {
	name string // without a leading slash
	mode int64
	body []byte
	link string
	dir  bool
	uid  int // and the group of the same number
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// layer makes a layer of files, and of the folders that lead to them.
func layer(files []file, at time.Time) (v1.Layer, error) {
	all := make(map[string]file)
	for _, f := range files {
		all[f.name] = f
		for d := path.Dir(f.name); d != "."; d = path.Dir(d) {
			if _, ok := all[d]; !ok {
				all[d] = file{name: d, mode: 0o755, dir: true}
			}
		}
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range sorted(all) {
		if err := all[name].write(w, at); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
}

// write writes one entry. Nothing of whoever builds is in it.
func (f file) write(w *tar.Writer, at time.Time) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.body)), Uid: f.uid, Gid: f.uid, ModTime: at, Format: tar.FormatPAX}
	switch {
	case f.dir:
		h.Typeflag, h.Name = tar.TypeDir, f.name+"/"
	case f.link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.link, 0o777
	}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(f.body)
	return err
}

// archive makes one file of a folder.
func archive(dir, to string, at time.Time) (err error) {
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() {
		if e := out.Close(); err == nil {
			err = e
		}
	}()
	w := tar.NewWriter(out)
	err = filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error { // in order of names
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		body, err := os.ReadFile(name) //nolint:gosec // just written
		if err != nil {
			return err
		}
		return file{name: rel, mode: 0o644, body: body}.write(w, at)
	})
	if err != nil {
		return err
	}
	return w.Close()
}
