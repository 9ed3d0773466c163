package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"signet.example/internal/durable"
)

// saveAgain is how long after the names could not be written they are written again.
const saveAgain = time.Minute

// namesFile of data_dir has the names of the services that proxies called last, one a line.
const namesFile = "names"

// Kept is what the agent answers as a name server. From its start to the first routes of all of
// its proxies it knows the services of the run before: their names are answered as failing, since
// others would lead whoever asks past the proxies, for as long as their answer is kept.
type Kept struct {
	routes Routes
	file   string
	log    *slog.Logger
	own    []string // in lower case, without a dot at the end
	again  time.Duration

	mu     sync.Mutex
	before map[string]bool // guarded by mu; nil once the routes are there
}

// Routes is what the proxies of this host call. It is asked by several goroutines at once.
type Routes interface {
	// ServiceAddress implements Names.
	ServiceAddress(name string) (address netip.Addr, known bool)
	// Services returns the names in order, and whether all proxies of the configuration have
	// their routes. changed is closed when that may have become another answer.
	Services() (list []string, complete bool, changed <-chan struct{})
}

// Keep returns the names of a folder. own are the hosts that the agent itself asks, which no mesh
// may have for a service; where no proxy is to find services, nobody says when the routes are
// there, and nothing is remembered.
func Keep(dir string, own []string, find bool, routes Routes, log *slog.Logger) *Kept {
	n := &Kept{routes: routes, file: filepath.Join(dir, namesFile), log: log, again: saveAgain, before: map[string]bool{}}
	for _, name := range own {
		n.own = append(n.own, strings.TrimSuffix(strings.ToLower(name), "."))
	}
	if !find {
		return n
	}
	b, err := os.ReadFile(n.file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Warn("names of services that were known are asked of other name servers until the routes are there", slog.Any("err", err))
	}
	for name := range strings.FieldsSeq(string(b)) {
		n.before[name] = true
	}
	return n
}

// Address implements Names.
func (n *Kept) Address(name string) (address netip.Addr, known bool) {
	if slices.Contains(n.own, name) {
		return netip.Addr{}, false
	}
	if address, known = n.routes.ServiceAddress(name); known {
		return address, true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return netip.Addr{}, n.before[name]
}

// Run writes the names down as they change, until ctx ends: again where that failed, as on a full disk.
func (n *Kept) Run(ctx context.Context) {
	again := time.NewTimer(n.again)
	defer again.Stop()
	for {
		list, complete, changed := n.routes.Services()
		again.Stop()
		if complete {
			if err := n.save(list); err != nil {
				n.log.WarnContext(ctx, "names of services are not kept, until they can be written: after a start they are asked of other name servers until the routes are there", slog.Any("err", err))
				again.Reset(n.again)
			}
			n.mu.Lock()
			n.before = nil
			n.mu.Unlock()
		}
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
}

func (n *Kept) save(list []string) error {
	text := strings.Join(list, "\n") + "\n"
	if was, err := os.ReadFile(n.file); err == nil && string(was) == text {
		return nil
	}
	if err := durable.WriteFile(n.file, []byte(text), 0o600); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	return nil
}
