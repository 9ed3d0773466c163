package dev

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"text/template"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
)

//go:embed world
var worldFiles embed.FS

const (
	folderPrefix = "signet-"
	trustDomain  = "demo.example"
	meshName     = "demo"
	group        = "demo-hosts"
	issuer       = "https://login.demo.example"
	service      = "http://orders.demo.internal"
	appPort      = 8080
	egressPort   = 15001
)

// node is one virtual node of the demo with its proxy and its application.
type node struct {
	Name string
	// Bind is the proxy's own loopback address, App the application's.
	Bind, App string
	// Program is the path of the application's executable, by which it is attested.
	Program string
}

// Where the demo is root it gives the Envoys and the authz process users of their own,
// that own nothing. No system or tool hands these numbers out. The applications stay
// the demo's user: only an application's own user calls out through its proxy, and
// here that is whoever pastes a call.
const (
	proxyUID = 60810
	authzUID = 60811
)

// world is everything the demo writes down, under one folder.
type world struct {
	Dir         string
	TrustDomain string
	Nodes       []node
	Issuer      string
	JWKS        string
	PolicyRepo  string
	Commit      string
	tokens      *tokenMint
	loopback    *Loopback
	// Exe and Envoy are the programs, where every user that runs them gets at them.
	Exe, Envoy string
}

// newWorld makes the folder with the mesh, the policies in git and one
// executable for each application.
func newWorld(exe, envoy string) (*world, error) {
	dir, err := os.MkdirTemp("", folderPrefix) // short: a Unix socket's path has 107 bytes
	if err != nil {
		return nil, fmt.Errorf("make the demo's folder: %w", err)
	}
	w := &world{Dir: dir, Exe: exe, Envoy: envoy, TrustDomain: trustDomain, Issuer: issuer, PolicyRepo: filepath.Join(dir, "policy")}
	if err := w.build(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return w, nil
}

// Close gives the addresses back and removes the folder.
func (w *world) Close() error {
	var err error
	if w.loopback != nil {
		err = w.loopback.Close()
	}
	return errors.Join(err, os.RemoveAll(w.Dir))
}

func (w *world) build() error {
	// Attested applications of other users must be able to reach the sockets.
	if err := os.Chmod(w.Dir, 0o711); err != nil { //nolint:gosec // no secret lies in the folder itself
		return err
	}
	if err := openToOthers(w.Dir); root() && err != nil {
		return err
	}
	if err := w.placePrograms(); err != nil {
		return err
	}
	var err error
	if w.loopback, err = ReserveLoopback(2*len(nodeNames), appPort, egressPort); err != nil {
		return err
	}
	addresses := w.loopback.Addresses
	for i, name := range nodeNames {
		n := node{Name: name, Bind: addresses[2*i], App: addresses[2*i+1], Program: filepath.Join(w.Dir, "apps", name)}
		if err := placeProgram(w.Exe, n.Program); err != nil {
			return err
		}
		w.Nodes = append(w.Nodes, n)
	}
	if w.tokens, err = newTokenMint(); err != nil {
		return err
	}
	w.JWKS = w.tokens.jwks()
	if err := w.commitPolicies(); err != nil {
		return fmt.Errorf("make the policy repository: %w", err)
	}
	return w.writeManifests()
}

// openToOthers refuses a folder which the users that run proxies and applications
// could not enter, such as one in a temporary folder of root's own.
func openToOthers(dir string) error {
	for at := dir; at != filepath.Dir(at); at = filepath.Dir(at) {
		if info, err := os.Stat(at); err != nil {
			return err
		} else if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("%s: as root, the demo runs proxies and applications as other users, who cannot enter %s: set TMPDIR to a folder that they can, such as /tmp", dir, at)
		}
	}
	return nil
}

// nodeNames of the demo's mesh, as world/mesh.yaml has them.
var nodeNames = []string{"web", "batch", "orders-v1", "orders-v2"}

func root() bool { return os.Geteuid() == 0 }

// placePrograms puts the programs where other users can execute them; the folders
// in which they lie may be closed to those.
func (w *world) placePrograms() error {
	if !root() {
		return nil
	}
	for _, p := range []*string{&w.Exe, &w.Envoy} {
		placed := filepath.Join(w.Dir, "bin", filepath.Base(*p))
		if err := placeProgram(*p, placed); err != nil {
			return err
		}
		*p = placed
	}
	return nil
}

// placeProgram gives an application an executable of its own path: a hard
// link where the file system can, else a copy.
func placeProgram(exe, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // executables are for all to run
		return err
	}
	exe, err := filepath.EvalSymlinks(exe)
	if err != nil {
		return err
	}
	if info, err := os.Stat(exe); err == nil && info.Mode().Perm()&0o001 != 0 && os.Link(exe, path) == nil {
		return nil
	}
	content, err := os.ReadFile(exe)
	if err != nil {
		return fmt.Errorf("copy %s: %w", exe, err)
	}
	return os.WriteFile(path, content, 0o755) //nolint:gosec // an executable
}

func (w *world) writeManifests() error {
	dir := filepath.Join(w.Dir, "mesh")
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // for the user to read
		return err
	}
	for _, name := range []string{"mesh.yaml", "signet.yaml"} {
		t, err := template.ParseFS(worldFiles, "world/"+name)
		if err != nil {
			return fmt.Errorf("internal error: %w", err)
		}
		var out bytes.Buffer
		if err := t.Execute(&out, w); err != nil {
			return fmt.Errorf("internal error: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), out.Bytes(), 0o644); err != nil { //nolint:gosec // for the user to read
			return err
		}
	}
	return nil
}

// commitPolicies makes the git repository that the demo's PolicySource names.
func (w *world) commitPolicies() error {
	repo, err := git.PlainInitWithOptions(w.PolicyRepo, &git.PlainInitOptions{
		InitOptions: git.InitOptions{DefaultBranch: plumbing.NewBranchReferenceName("main")},
	})
	if err != nil {
		return err
	}
	tree, err := repo.Worktree()
	if err != nil {
		return err
	}
	policies, err := fs.Sub(worldFiles, "world/policy")
	if err != nil {
		return err
	}
	names, err := fs.Glob(policies, "*.rego")
	if err != nil {
		return err
	}
	for _, name := range names {
		content, err := fs.ReadFile(policies, name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(w.PolicyRepo, name), content, 0o644); err != nil { //nolint:gosec // for the user to edit
			return err
		}
		if _, err := tree.Add(name); err != nil {
			return err
		}
	}
	hash, err := tree.Commit("Allow web to read orders, customers to read their account",
		&git.CommitOptions{Author: &object.Signature{Name: "demo", Email: "demo@" + trustDomain, When: time.Now()}})
	w.Commit = hash.String()
	return err
}

func (w *world) node(name string) node {
	for _, n := range w.Nodes {
		if n.Name == name {
			return n
		}
	}
	panic("internal error: no node " + name)
}
