package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/internal/durable"
)

// owner is who an application is: the user, and the service or container that it
// runs in, "" where that is none or cannot be seen from here.
type owner struct {
	UID  uint32 `json:"uid"`
	Unit string `json:"unit,omitempty"`
}

func (o owner) String() string {
	s := "user " + strconv.FormatUint(uint64(o.UID), 10)
	if o.Unit != "" {
		s += " in " + o.Unit
	}
	return s
}

// Users that systemd gives to services with DynamicUser=, and to others later.
const dynamicFirst, dynamicLast = 61184, 65519

// follows tells whether o is the same application as before, in spite of what a
// restart changes: a container's id is new where its user stays, and the number
// of a dynamic user where its service stays. New in both is somebody else.
func (o owner) follows(before owner) bool {
	if o.Unit != "" && o.Unit == before.Unit {
		return true
	}
	return o.UID == before.UID && (o.UID < dynamicFirst || o.UID > dynamicLast)
}

// owners knows who is the application behind each proxy: who holds the sockets
// that the proxy sends inbound calls to. Whoever it was first is remembered, in a
// file, for while an application is down anybody may take its port.
type owners struct {
	file    string
	cgroups attestation.Cgroups
	log     *slog.Logger
	// listeners is attestation.ListenerOwners.
	listeners func(netip.AddrPort) ([]attestation.SocketOwner, error)
	// changed is told of what a report should tell.
	changed func()

	mu     sync.Mutex
	known  map[string]owner   // by node and address; guarded by mu
	recent map[front]foundNow // guarded by mu
}

// foundNow is what was found lately: listing sockets for each connection of a
// burst would cost more than it tells.
type foundNow struct {
	at    time.Time
	owner owner
	err   error
}

const (
	ownerFresh = time.Second
	// maxOwners bounds what is remembered: proxies that the agent did not start
	// may come with ever new addresses.
	maxOwners = 4096
)

func newOwners(file string, known map[string]owner, log *slog.Logger, changed func()) *owners {
	return &owners{
		file: file, known: known, recent: map[front]foundNow{}, log: log, changed: changed, listeners: attestation.ListenerOwners,
	}
}

// applicationsFile of data_dir holds who the applications are.
const applicationsFile = "applications.json"

// readOwners reads who was remembered. A file that cannot be read is never as if
// nobody were known.
func readOwners(file string) (map[string]owner, error) {
	known := map[string]owner{}
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return known, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &known)
	}
	if err != nil {
		return nil, fmt.Errorf("data_dir: who the applications are: %s: %w (remove the file to have them found anew)", file, err)
	}
	return known, nil
}

// allows returns nil if the holder of a connection is the application behind f.
func (o *owners) allows(f front, b identity.Binding, caller attestation.SocketOwner) error {
	app, err := o.of(f, b)
	if err != nil {
		return err
	}
	if caller.UID != app.UID {
		return no(reasonNotTheirs, "%s: %s is not the application, which is %s; name it in applications of Binding %s if it may call out", f.node, o.describe(caller), app, b.Name)
	}
	if app.Unit != "" && o.cgroups.Unit(caller.Cgroup) != app.Unit {
		return no(reasonNotTheirs, "%s: a process of user %d outside of %s is not the application; name the user in applications of Binding %s if all of its processes may call out", f.node, caller.UID, app.Unit, b.Name)
	}
	return nil
}

// of is the application behind f.
func (o *owners) of(f front, b identity.Binding) (owner, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if r, ok := o.recent[f]; ok && now.Sub(r.at) < ownerFresh {
		return r.owner, r.err
	}
	app, err := o.find(f, b)
	if len(o.recent) >= maxOwners {
		clear(o.recent)
	}
	if was, ok := o.recent[f]; !ok || was.owner != app || (was.err == nil) != (err == nil) {
		o.changed()
	}
	o.recent[f] = foundNow{now, app, err}
	return app, err
}

// find needs mu.
func (o *owners) find(f front, b identity.Binding) (owner, error) {
	key := f.node + "@" + f.app.String()
	before, known := o.known[key]
	now, listens, err := o.listening(f)
	name := fmt.Sprintf("name who may call out in applications of Binding %s", b.Name)
	switch {
	case err != nil:
		return owner{}, no(reasonNoOwner, "%s: %w; %s", f.node, err, name)
	case f.ports == "":
		return owner{}, no(reasonNoOwner, "%s: the virtual node has no listener, so that its application cannot be found by one; %s", f.node, name)
	case !listens && known:
		return before, nil // it calls before it listens
	case !listens:
		return owner{}, no(reasonNoOwner, "%s: nobody listens at %s, port %s, so that its application is not known yet; %s", f.node, f.app, f.ports, name)
	case known && now == before:
		return now, nil
	case known && !now.follows(before):
		return owner{}, no(reasonNewOwner, "%s: its application was %s, and now %s listens at %s, port %s; %s", f.node, before, now, f.app, f.ports, name)
	case !known && len(o.known) >= maxOwners:
		return owner{}, no(reasonNoOwner, "%s: %d applications are remembered already; %s", f.node, len(o.known), name)
	}
	if err := o.remember(key, now); err != nil {
		return owner{}, no(reasonNoOwner, "%s: its application is %s, and cannot be remembered: %w", f.node, now, err)
	}
	o.log.Info("way out: the application is known", slog.String("node", f.node), slog.String("owner", now.String()))
	return now, nil
}

// listening is the one owner of all sockets that the proxy would send calls to.
func (o *owners) listening(f front) (one owner, any bool, err error) {
	for _, port := range f.list() {
		at := netip.AddrPortFrom(f.app, port)
		found, err := o.listeners(at)
		if err != nil {
			return owner{}, false, err
		}
		for _, s := range found {
			now := owner{s.UID, o.cgroups.Unit(s.Cgroup)}
			switch {
			case !s.Known():
				return owner{}, false, fmt.Errorf("who listens at %s has no number in the agent's user namespace", at)
			case any && now != one:
				return owner{}, false, fmt.Errorf("its listeners have several owners, %s and %s, and so it has none", one, now)
			}
			one, any = now, true
		}
	}
	return one, any, nil
}

// remember needs mu. It is in the file before it counts.
func (o *owners) remember(key string, app owner) error {
	known := map[string]owner{key: app}
	for k, v := range o.known {
		if k != key {
			known[k] = v
		}
	}
	b, err := json.MarshalIndent(known, "", "  ")
	if err == nil {
		err = durable.WriteFile(o.file, append(b, '\n'), 0o600)
	}
	if err == nil {
		o.known = known
	}
	return err
}

// describe is for logs.
func (o *owners) describe(s attestation.SocketOwner) string {
	return owner{s.UID, o.cgroups.Unit(s.Cgroup)}.String()
}

func (f front) list() []uint16 {
	var out []uint16
	for text := range strings.SplitSeq(f.ports, ", ") {
		if n, err := strconv.ParseUint(text, 10, 16); err == nil {
			out = append(out, uint16(n))
		}
	}
	return out
}

// listeningNow is who could be named for f, for reports.
func (o *owners) listeningNow(f front) []string {
	var named identity.Applications
	for _, port := range f.list() {
		found, err := o.listeners(netip.AddrPortFrom(f.app, port))
		if err != nil {
			return nil
		}
		for _, s := range found {
			if s.Known() && !slices.Contains(named.UIDs, s.UID) {
				named.UIDs = append(named.UIDs, s.UID)
			}
		}
	}
	return named.Strings()
}
