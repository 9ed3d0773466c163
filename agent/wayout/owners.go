package wayout

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/proxy"
)

// owners knows who is the application behind each proxy: who holds the sockets
// that the proxy sends inbound calls to. Whoever it was first is remembered, for while
// an application is down anybody can take its port.
//
// Nobody waits for what is looked up for another proxy: mu is never held over
// that, nor over the memory, and those who ask about one proxy at once share one answer.
type owners struct {
	memory *memory
	log    *slog.Logger
	// cgroups is an attestation.Cgroups.
	cgroups cgroups
	// listeners is attestation.ListenerOwners.
	listeners func(netip.AddrPort) ([]attestation.SocketOwner, error)
	// socket is attestation.ListenerAt.
	socket func(path string) (attestation.SocketListener, error)
	// changed is told of what a report should tell.
	changed func()

	mu     sync.Mutex
	recent map[front]*foundNow // guarded by mu
}

// cgroups tells the units of sockets, to several goroutines at once.
type cgroups interface {
	// Units has no answer for a cgroup that is gone or cannot be seen; with an
	// error it may be there all the same.
	Units(ids []uint64) (map[uint64]string, error)
	In(unit string, id uint64) bool
}

// foundNow is what was found lately: listing sockets for each connection of a
// burst would cost more than it tells.
type foundNow struct {
	done  chan struct{} // closed when the rest is set
	at    time.Time
	owner owner
	err   error
}

const (
	ownerFresh = time.Second
	// maxFronts bounds what was found lately.
	maxFronts = 4096
)

func newOwners(m *memory, log *slog.Logger, changed func()) *owners {
	return &owners{
		memory: m, log: log, recent: map[front]*foundNow{}, changed: changed,
		cgroups: &attestation.Cgroups{}, listeners: attestation.ListenerOwners, socket: attestation.ListenerAt,
	}
}

// allows returns nil if the holder of a connection is the application behind f, whose
// proxy a Binding of that name lets be one.
func (o *owners) allows(f front, binding string, caller attestation.SocketOwner) error {
	app, err := o.of(f, binding)
	if err != nil {
		return err
	}
	if caller.UID != app.UID { // whose unit is not looked for: another user decides how much there is to search
		return no(reasonNotTheirs, "%s: %s is not the application, which is %s; name it in applications of Binding %s if it may call out", f.node, owner{UID: caller.UID}, app, binding)
	}
	if app.Unit != "" && !o.cgroups.In(app.Unit, caller.Cgroup) {
		return no(reasonNotTheirs, "%s: a process of user %d outside of %s is not the application; name the user in applications of Binding %s if all of its processes may call out", f.node, caller.UID, app.Unit, binding)
	}
	return nil
}

// of is the application behind f.
func (o *owners) of(f front, binding string) (owner, error) {
	o.mu.Lock()
	before := o.recent[f]
	if before != nil {
		select {
		case <-before.done:
			if time.Since(before.at) >= ownerFresh {
				break
			}
			o.mu.Unlock()
			return before.owner, before.err
		default: // somebody looks for it
			o.mu.Unlock()
			<-before.done
			return before.owner, before.err
		}
	}
	if len(o.recent) >= maxFronts {
		clear(o.recent)
	}
	r := &foundNow{done: make(chan struct{})}
	o.recent[f] = r
	o.mu.Unlock()
	r.owner, r.err = o.find(f, binding)
	r.at = time.Now()
	close(r.done)
	if before == nil || before.owner != r.owner || (before.err == nil) != (r.err == nil) {
		o.changed()
	}
	return r.owner, r.err
}

func (o *owners) find(f front, binding string) (owner, error) {
	key := f.key()
	before, known, full := o.memory.of(key, f.node)
	l, err := o.listening(f)
	now := l.owner
	name := fmt.Sprintf("name who may call out in applications of Binding %s", binding)
	switch {
	case err != nil:
		return owner{}, no(reasonNoOwner, "%s: %w; %s", f.node, err, name)
	case f.ports == "":
		return owner{}, no(reasonNoOwner, "%s: the virtual node has no listener, so that its application cannot be found by one; %s", f.node, name)
	case !l.any && known:
		return before, nil // it calls before it listens
	case !l.any:
		return owner{}, no(reasonNoOwner, "%s: nobody listens at %s, port %s, so that its application is not known yet; %s", f.node, f.app, f.ports, name)
	case known && now == before, known && l.unseen && l.canBe(before):
		return before, nil // what cannot be seen changes nothing of what is known
	case known && (l.unseen || !now.follows(before)):
		accept := ""
		if !l.hidden { // else it would be accepted with all that the user runs
			accept = o.memory.acceptLine(key, now)
		}
		return owner{}, no(reasonNewOwner, "%s: its application was %s, and now %s listens at %s, port %s; %s%s", f.node, before, now, f.app, f.ports, name, accept)
	case !known && l.unseen && l.seen:
		return owner{}, no(reasonNoOwner, "%s: %s listens at %s, port %s, and the service or container of one of its sockets cannot be seen; %s", f.node, now, f.app, f.ports, name)
	case !known && l.search != nil:
		return owner{}, no(reasonNoOwner, "%s: %s listens at %s, port %s, and may be in a service or container: %w; %s", f.node, now, f.app, f.ports, l.search, name)
	case !known && now.dynamic() && now.Unit == "":
		return owner{}, no(reasonNoOwner, "%s: %s, of those that are given to services while they run (%d to %d), listens at %s, port %s, in no service that can be seen; %s",
			f.node, now, dynamicFirst, dynamicLast, f.app, f.ports, name)
	case !known && full:
		return owner{}, no(reasonNoOwner, "%s: its applications at %d addresses are remembered already (`signet agent owners list`); %s", f.node, maxAddressesOfNode, name)
	}
	if err := o.memory.remember(key, known, before, now); err != nil {
		return owner{}, no(reasonNoOwner, "%s: its application is %s, and cannot be remembered: %w", f.node, now, err)
	}
	o.log.Info("way out: the application is known", slog.String("node", f.node), slog.String("owner", now.String()))
	return now, nil
}

// holder is who listens, and how much of it can be seen.
type holder struct {
	owner  owner // with the unit of the sockets whose unit is seen
	any    bool
	seen   bool  // the unit of a socket at least
	unseen bool  // that of one is not seen
	hidden bool  // since its cgroup is gone, or not to be seen from here; else the kernel shows none
	search error // or the search for it could not be finished
	byFile bool  // the user is that of the socket's file: nobody has said who listens
}

// with is the holder of the sockets of both. A unit that is not seen is equal to
// none and differs from none.
func (l holder) with(m holder) (holder, error) {
	switch {
	case !m.any:
		return l, nil
	case !l.any:
		return m, nil
	case l.owner.UID != m.owner.UID, l.seen && m.seen && l.owner.Unit != m.owner.Unit:
		return holder{}, fmt.Errorf("its listeners have several owners, %s and %s, and so it has none", l.owner, m.owner)
	}
	both := holder{
		owner: l.owner, any: true, seen: l.seen || m.seen, unseen: l.unseen || m.unseen, hidden: l.hidden || m.hidden,
		search: cmp.Or(l.search, m.search), byFile: l.byFile || m.byFile,
	}
	if !l.seen {
		both.owner = m.owner
	}
	return both, nil
}

// canBe reports whether nothing that is seen speaks against the holder being the same
// application as before.
func (l holder) canBe(before owner) bool {
	if l.seen {
		return l.owner.follows(before)
	}
	return l.owner.UID == before.UID
}

// listening is the one owner of all sockets that the proxy would send calls to.
func (o *owners) listening(f front) (holder, error) {
	if f.app.Socket != "" {
		return o.listeningAtSockets(f)
	}
	var l holder
	var all []attestation.SocketOwner
	var ids []uint64
	for _, port := range f.list() {
		at := netip.AddrPortFrom(f.app.Addr, port)
		found, err := o.listeners(at)
		if err != nil {
			return holder{}, err
		}
		for _, s := range found {
			if !s.Known() {
				return holder{}, fmt.Errorf("who listens at %s has no number in the agent's user namespace", at)
			}
			if l, err = l.with(holder{any: true, owner: owner{UID: s.UID}}); err != nil {
				return holder{}, err // before its unit is looked for
			}
			all, ids = append(all, s), append(ids, s.Cgroup)
		}
	}
	if len(all) == 0 {
		return holder{}, nil
	}
	units, search := o.cgroups.Units(ids)
	l = holder{}
	for _, s := range all {
		m := holder{any: true, owner: owner{UID: s.UID}}
		if m.owner.Unit, m.seen = units[s.Cgroup]; !m.seen {
			m.unseen = true
			if s.Cgroup != 0 {
				m.hidden, m.search = true, search
			}
		}
		var err error
		if l, err = l.with(m); err != nil {
			return holder{}, err
		}
	}
	return l, nil
}

// listeningAtSockets is listening for an application on Unix sockets: whoever
// called listen(2) there, in a folder that nobody else except root can write to.
func (o *owners) listeningAtSockets(f front) (holder, error) {
	var l holder
	for _, port := range f.list() {
		m, err := o.atSocket(f.app, port)
		if err != nil {
			return holder{}, err
		}
		if l, err = l.with(m); err != nil {
			return holder{}, err
		}
	}
	return l, nil
}

// atSocket is who listens on one socket. The folder is looked at before anything there
// is: what somebody else puts there could lead to any socket that the agent may open.
func (o *owners) atSocket(app proxy.Place, port uint16) (holder, error) {
	if err := CheckAppFolder(app); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return holder{}, nil // nobody listens there
		}
		return holder{}, err
	}
	path := app.SocketFor(uint32(port))
	var l holder
	found, err := o.socket(path)
	switch {
	case errors.Is(err, attestation.ErrNoOwner):
		return holder{}, nil
	case errors.Is(err, attestation.ErrSocketBusy):
		// It is there, and whose it is says its file: enough to go on with who was known.
		var st unix.Stat_t
		if gone := unix.Lstat(path, &st); gone != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
			return holder{}, err
		}
		l = holder{any: true, owner: owner{UID: st.Uid}, unseen: true, hidden: true, search: err, byFile: true}
	case err != nil:
		return holder{}, err
	case !found.Known():
		return holder{}, fmt.Errorf("who listens at %s has no number in the agent's user namespace", path)
	default:
		l = holder{any: true, owner: owner{found.UID, found.Unit}, seen: found.Unseen == nil, unseen: found.Unseen != nil, hidden: found.Unseen != nil, search: found.Unseen}
	}
	if err := appFolder(filepath.Dir(path), l.owner.UID); err != nil {
		return holder{}, fmt.Errorf("user %d listens at %s, and its folder is not as it must be: %w", l.owner.UID, path, err)
	}
	return l, nil
}

// listeningNow is who could be named for f, for reports.
func (o *owners) listeningNow(f front) []string {
	var named identity.Applications
	add := func(uid uint32) {
		if !slices.Contains(named.UIDs, uid) {
			named.UIDs = append(named.UIDs, uid)
		}
	}
	for _, port := range f.list() {
		if f.app.Socket != "" {
			if l, err := o.atSocket(f.app, port); err == nil && l.any && !l.byFile {
				add(l.owner.UID)
			}
			continue
		}
		found, err := o.listeners(netip.AddrPortFrom(f.app.Addr, port))
		if err != nil {
			return nil
		}
		for _, s := range found {
			if s.Known() {
				add(s.UID)
			}
		}
	}
	return named.Strings()
}
