package agent

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"signet.example/agent/envoy"
	"signet.example/internal/private"
	"signet.example/internal/unixsock"
)

// The files of the agent's sockets, in socket_dir.
const (
	xdsSocket      = "xds.sock"
	workloadSocket = "workload.sock" // the longest of them (Config.Validate)
	authzSocket    = "authz.sock"
	wayoutSocket   = "wayout.sock"

	proxiesDir = "proxies" // has a folder of each proxy
)

// sockets are the agent's.
type sockets struct {
	dir                          string
	xds, workload, authz, wayout *net.UnixListener
}

func (s *sockets) path(name string) string { return filepath.Join(s.dir, name) }

// all are the sockets by the names of their files.
func (s *sockets) all() map[string]**net.UnixListener {
	return map[string]**net.UnixListener{xdsSocket: &s.xds, workloadSocket: &s.workload, authzSocket: &s.authz, wayoutSocket: &s.wayout}
}

// listen opens the sockets. Everyone on the host may connect: who they are is
// attested, and no file mode could tell a proxy from an application. A task is told from
// others by who may enter the folder.
func listen(ctx context.Context, cfg Config) (*sockets, error) {
	s := &sockets{dir: cfg.SocketDir}
	if err := os.MkdirAll(s.dir, cfg.Mode.folderMode()); err != nil {
		return nil, fmt.Errorf("socket_dir: %w", err)
	}
	// Whoever could put other sockets in the place of ours would be asked for
	// keys and decisions by every workload and proxy.
	if err := private.Folder(s.dir, private.Self()); err != nil {
		return nil, fmt.Errorf("socket_dir: %w", err)
	}
	if cfg.Mode.task() { // whatever the volume was
		if err := os.Chmod(s.dir, cfg.Mode.folderMode()); err != nil {
			return nil, fmt.Errorf("socket_dir: %w", err)
		}
	}
	if err := cfg.letIn(); err != nil {
		return nil, err
	}
	if err := envoy.MakeFolder(s.dir, proxiesDir); err != nil {
		return nil, fmt.Errorf("socket_dir: %w", err)
	}
	for name, l := range s.all() {
		listener, err := unixsock.Listen(ctx, s.path(name), 0o666)
		if err != nil {
			s.close()
			return nil, err
		}
		*l = listener
	}
	return s, nil
}

func (s *sockets) close() {
	for _, l := range s.all() {
		if *l != nil {
			_ = (*l).Close() // closed already where it was served
		}
	}
}
