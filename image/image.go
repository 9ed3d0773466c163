package main

import (
	"fmt"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// image is one kind of image.
type image struct {
	name  string
	uid   int
	dirs  []string // of its own user
	share []string // of dirs, those that other containers of a task mount too
	cmd   []string
	about string
	envoy bool // with an Envoy, and what that needs
}

// The user of an agent and its Envoy is the one whom App Mesh's proxies had, which rules for
// redirected traffic leave out; a server's is nobody's else.
var (
	server = image{
		name: "signet-server", uid: 1338, dirs: []string{"var/lib/signet", "run/signet"},
		cmd: []string{"server", "--config", "/etc/signet/server.yaml"}, about: "The control plane of Signet",
	}
	agent = image{
		name: "signet-agent", uid: 1337, dirs: []string{"var/lib/signet", "var/lib/signet-agent", "run/signet"}, share: []string{"run/signet"},
		cmd: []string{"agent", "--config", "/etc/signet/agent.yaml"}, about: "The node agent of Signet, with Envoy", envoy: true,
	}
)

func (i image) file(arch string) string { return i.name + "-" + arch + ".tar" }

// write makes the image, as an archive in OCI's layout, and its bill of materials beside it.
func (i image) write(in inputs, to string) error {
	layers, err := i.layers(in)
	if err != nil {
		return err
	}
	bill, err := i.bill(in)
	if err != nil {
		return err
	}
	last := &layers[len(layers)-1] // the bill is another whenever the program is
	last.files = append(last.files, file{name: "usr/share/doc/signet/sbom.cdx.json", mode: 0o644, body: bill})
	img, err := i.assemble(in, layers)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(to), ".layout")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // of no use any more
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	name := map[string]string{"org.opencontainers.image.ref.name": "localhost/" + i.name + ":" + in.version}
	if err := l.AppendImage(img, layout.WithAnnotations(name)); err != nil {
		return err
	}
	if err := archive(dir, to, in.created); err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	fmt.Println(to, digest)
	return os.WriteFile(to[:len(to)-len(".tar")]+".cdx.json", bill, 0o644) //nolint:gosec // public
}

// part is one layer.
type part struct {
	name  string
	files []file
}

// layers are the parts of an image, what changes least first: who has one release loads little for the next.
func (i image) layers(in inputs) ([]part, error) {
	base, err := in.authorities()
	if err != nil {
		return nil, err
	}
	base = append(base, i.folders()...)
	if i.envoy {
		c, err := in.cLibrary()
		if err != nil {
			return nil, err
		}
		base = append(base, c...)
	}
	layers := []part{{"certificates of authorities and what programs expect", base}}
	if i.envoy {
		files, err := in.envoy()
		if err != nil {
			return nil, err
		}
		layers = append(layers, part{"envoy", files})
	}
	program, err := in.program()
	return append(layers, part{"signet", program}), err
}

// folders are what a program expects to be there, and who it is.
func (i image) folders() []file {
	files := []file{
		{name: "tmp", mode: 0o1777, dir: true},
		{name: "etc/signet", mode: 0o755, dir: true},
		{name: "etc/passwd", mode: 0o644, body: fmt.Appendf(nil, "root:x:0:0::/:/\nsignet:x:%d:%d::/var/lib/signet:/\n", i.uid, i.uid)},
		{name: "etc/group", mode: 0o644, body: fmt.Appendf(nil, "root:x:0:\nsignet:x:%d:\n", i.uid)},
	}
	for _, d := range i.dirs {
		files = append(files, file{name: d, mode: 0o700, dir: true, uid: i.uid})
	}
	return files
}

// assemble joins the layers.
func (i image) assemble(in inputs, layers []part) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	created := v1.Time{Time: in.created}
	for _, p := range layers {
		l, err := layer(p.files, in.created)
		if err != nil {
			return nil, err
		}
		img, err = mutate.Append(img, mutate.Addendum{Layer: l, History: v1.History{Created: created, CreatedBy: p.name}, MediaType: types.OCILayer})
		if err != nil {
			return nil, err
		}
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture, cfg.Created = "linux", in.arch, created
	user := fmt.Sprintf("%d:%d", i.uid, i.uid)
	cfg.Config = v1.Config{
		User: user, Entrypoint: []string{"/usr/bin/signet"}, Cmd: i.cmd, WorkingDir: "/var/lib/signet", StopSignal: "SIGTERM",
		Env: []string{"PATH=/usr/bin", "HOME=/var/lib/signet"},
		Labels: map[string]string{
			"org.opencontainers.image.title": i.name, "org.opencontainers.image.description": i.about,
			"org.opencontainers.image.version": in.version, "org.opencontainers.image.licenses": "Apache-2.0",
		},
	}
	for _, d := range i.share { // an empty volume that is mounted there gets its owner and mode by this
		if cfg.Config.Volumes == nil {
			cfg.Config.Volumes = map[string]struct{}{}
		}
		cfg.Config.Volumes["/"+d] = struct{}{}
	}
	return mutate.ConfigFile(img, cfg)
}
