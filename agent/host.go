package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"signet.example/agent/dns"
	"signet.example/agent/files"
	"signet.example/agent/join"
	"signet.example/agent/operator"
	"signet.example/agent/wayout"
	"signet.example/api"
	"signet.example/internal/private"
	"signet.example/internal/tcpsock"
	"signet.example/proxy"
)

// host is what the agent needs of its own host. All of it is had before a server
// is asked: a start that fails for a port in use must not cost the join token.
type host struct {
	data    *join.Dir
	sockets *sockets
	metrics net.Listener
	names   *dns.Server // nil where it is no name server
	files   *files.Root // nil where there are none
	// operators are where whoever runs the host asks.
	operators operator.Listeners
	// applications are who was remembered to stand behind the proxies.
	applications wayout.Known
	// peerMode is how this kernel lets peers be attested.
	peerMode api.Report_PeerMode
}

// openHost takes it, or says everything that cannot be had, each error beginning
// with the key that it is about.
func openHost(ctx context.Context, cfg Config) (_ *host, err error) {
	h := &host{}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	var errs []error
	if h.data, err = join.OpenDir(cfg.DataDir); err == nil {
		err = h.data.Writable()
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("data_dir: %w", err))
	} else {
		h.applications, err = wayout.Remembered(cfg.DataDir)
		errs = append(errs, err)
	}
	h.peerMode, err = cfg.peerMode()
	errs = append(errs, err, cfg.Mode.ownNamespace())
	if h.sockets, err = listen(ctx, cfg); err != nil {
		errs = append(errs, err)
	}
	if h.metrics, err = listenMetrics(ctx, cfg); err != nil {
		errs = append(errs, err)
	}
	if cfg.Files.Given() {
		if h.files, err = files.Open(cfg.Files.Dir); err != nil {
			errs = append(errs, fmt.Errorf("files.dir: %w", err))
		}
	}
	if h.names, err = dns.Listen(ctx, cfg.DNS); err != nil {
		errs = append(errs, fmt.Errorf("dns: %w", err))
	}
	if h.operators, err = operator.Listen(ctx, cfg.SocketDir, cfg.Mode.task()); err != nil {
		errs = append(errs, fmt.Errorf("socket_dir: %w", err))
	}
	return h, errors.Join(slices.Concat(errs, tryProxies(ctx, cfg), tryReadOnly(ctx, cfg))...)
}

// peerMode is how peers are attested here.
func (c Config) peerMode() (api.Report_PeerMode, error) {
	if c.Mode.task() {
		return api.Report_TASK, nil
	}
	return join.PeerMode(c.RefuseLegacyPeers)
}

// listenMetrics returns nil where they are turned off.
func listenMetrics(ctx context.Context, cfg Config) (net.Listener, error) {
	if cfg.Metrics == "" {
		return nil, nil // off is not an error
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return l, nil
}

func (h *host) close() {
	if h.data != nil {
		h.data.Close()
	}
	if h.sockets != nil {
		h.sockets.close()
	}
	if h.metrics != nil {
		_ = h.metrics.Close() // closed already where it was served
	}
	if h.names != nil {
		_ = h.names.Close() // likewise
	}
	if h.files != nil {
		h.files.Close()
	}
	h.operators.Close()
}

// tryProxies checks whether the host can run the proxies of a configuration.
func tryProxies(ctx context.Context, cfg Config) []error {
	var errs []error
	if len(cfg.Proxies) > 0 {
		if _, err := exec.LookPath(cfg.Envoy); err != nil {
			errs = append(errs, fmt.Errorf("envoy: %w", err))
		}
	}
	for i, p := range cfg.Proxies {
		if err := tcpsock.TryAddress(ctx, p.Bind); err != nil {
			errs = append(errs, fmt.Errorf("proxies[%d].bind: %w", i, err))
		}
		if app, err := proxy.ParsePlace(p.App); err == nil { // Validate has refused others
			if err := wayout.CheckAppFolder(app); err != nil {
				errs = append(errs, fmt.Errorf("proxies[%d].app: %w", i, err))
			}
		}
		if at, err := p.egress(); err == nil {
			if err := wayout.CheckEgress(at, p.uid()); err != nil {
				errs = append(errs, fmt.Errorf("proxies[%d].egress: %w", i, err))
			}
		}
	}
	return errs
}

// tryReadOnly checks whether a start could listen where proxies are to be read.
func tryReadOnly(ctx context.Context, cfg Config) []error {
	var errs []error
	for i, p := range cfg.Proxies {
		if p.AdminReadOnly == "" {
			continue
		}
		if err := tcpsock.Try(ctx, p.AdminReadOnly); err != nil {
			errs = append(errs, fmt.Errorf("proxies[%d].admin_read_only: %w", i, err))
		}
	}
	return errs
}

// Check tries what a start would try before it asks a server, and leaves
// nothing behind. Beside an agent that runs it does not try what that one holds.
func Check(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	if err := cfg.ours(); err != nil {
		return err
	}
	cfg, err := cfg.withUsers()
	cfg, unknown := cfg.withPlatform(ctx)
	errs := append(tryProxies(ctx, cfg), err, unknown)
	joined, running, err := checkDataDir(cfg.DataDir)
	if err != nil {
		errs = append(errs, fmt.Errorf("data_dir: %w", err))
	} else if !joined {
		errs = append(errs, cfg.checkWays())
	}
	if err == nil {
		_, err = wayout.Remembered(cfg.DataDir)
		errs = append(errs, err)
	}
	_, err = cfg.peerMode()
	errs = append(errs, err, cfg.Mode.ownNamespace(), cfg.Files.Check())
	if !running {
		errs = append(errs, checkFree(ctx, cfg)...)
	}
	return errors.Join(errs...)
}

// ours returns why the agent's folders are another user's, once: all that this process
// finds there follows from it.
func (c Config) ours() error {
	for _, dir := range []struct{ key, path string }{{"data_dir", c.DataDir}, {"socket_dir", c.SocketDir}} {
		if err := private.Ours(dir.path, private.Self()); err != nil {
			return fmt.Errorf("%s: %w", dir.key, err)
		}
	}
	return nil
}

// checkDataDir looks at a data_dir without making or locking it.
func checkDataDir(path string) (joined, running bool, err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return false, false, private.Creatable(path)
	}
	return join.CheckDir(path)
}

// checkWays checks whether a host that has not joined has what it takes.
func (c Config) checkWays() error {
	err := c.ways().Check(c.TrustDomain, time.Now())
	if errors.Is(err, join.ErrNoToken) {
		return fmt.Errorf("token_file: this host has not joined (nothing in %s): %w", c.DataDir, err)
	}
	return err
}

// checkFree checks whether a start could take its port and its sockets.
func checkFree(ctx context.Context, cfg Config) []error {
	errs := tryReadOnly(ctx, cfg)
	if cfg.Metrics != "" {
		if err := tcpsock.Try(ctx, cfg.Metrics); err != nil {
			errs = append(errs, fmt.Errorf("metrics: %w", err))
		}
	}
	info, err := os.Stat(cfg.SocketDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := private.Creatable(cfg.SocketDir); err != nil {
			errs = append(errs, fmt.Errorf("socket_dir: %w", err))
		}
		return errs
	case err == nil && !info.IsDir():
		return append(errs, fmt.Errorf("socket_dir: %s is not a folder", cfg.SocketDir))
	}
	if err := private.Folder(cfg.SocketDir, private.Self()); err != nil {
		errs = append(errs, fmt.Errorf("socket_dir: %w", err))
	}
	for _, name := range slices.Sorted(maps.Keys(new(sockets).all())) {
		path := filepath.Join(cfg.SocketDir, name)
		if info, err := os.Lstat(path); err == nil && info.Mode().Type() != os.ModeSocket {
			errs = append(errs, fmt.Errorf("socket_dir: %s exists and is not a socket", path))
		}
		if c, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
			errs = append(errs, errors.Join(fmt.Errorf("%s is in use: is another agent running?", path), c.Close()))
		}
	}
	return errs
}
