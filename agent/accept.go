package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"signet.example/internal/durable"
)

// This file is about the file of applications, which an operator may change while
// the agent runs: it is looked at whenever an owner is.

// Application is who is remembered to be the application behind a proxy.
type Application struct {
	Name string // the virtual node, and where the application listens
	UID  uint32
	Unit string // the service or container, "" for none
}

// Applications are those that are remembered in a data_dir, by name.
func Applications(dataDir string) ([]Application, error) {
	if err := ownDataDir(dataDir); err != nil {
		return nil, err
	}
	known, err := readOwners(filepath.Join(dataDir, applicationsFile))
	if err != nil {
		return nil, err
	}
	var list []Application
	for _, name := range slices.Sorted(maps.Keys(known)) {
		list = append(list, Application{name, known[name].UID, known[name].Unit})
	}
	return list, nil
}

// AcceptApplication remembers another owner in the place of the one that is. The
// agent, if it runs, goes by the file the next time that it looks for the owner.
func AcceptApplication(dataDir string, a Application) error {
	now := owner{a.UID, a.Unit}
	switch {
	case a.Unit != "" && (!strings.HasPrefix(a.Unit, "/") || path.Clean(a.Unit) != a.Unit || a.Unit == "/"):
		return fmt.Errorf("unit %q: want a path such as /system.slice/web.service, as `signet check` and the agent's log have it", a.Unit)
	case now.dynamic() && now.Unit == "":
		return fmt.Errorf("uid %d is one of those that are given to services while they run (%d to %d): name its service as the unit, too", a.UID, dynamicFirst, dynamicLast)
	}
	if err := ownDataDir(dataDir); err != nil {
		return err
	}
	file := filepath.Join(dataDir, applicationsFile)
	unlock, err := lockOwners(file, acceptWaits)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = changeOwners(file, func(known map[string]owner) error {
		if _, ok := known[a.Name]; !ok {
			return fmt.Errorf("no application %q is remembered", a.Name)
		}
		known[a.Name] = now
		return nil
	})
	return err
}

// ownDataDir refuses another user's folder: what is written there must be readable
// to that user.
func ownDataDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; int(uid) != os.Geteuid() { //nolint:forcetypeassert // Linux
		return fmt.Errorf("%s belongs to uid %d: run this as that user, sudo -u '#%d' signet …", dir, uid, uid)
	}
	return nil
}

// How long the file is waited for: the agent has a second to answer Envoy.
const (
	rememberWaits = 300 * time.Millisecond
	acceptWaits   = 5 * time.Second
)

// errOwnersLocked is returned when others change the file for too long.
var errOwnersLocked = errors.New("another process keeps the file locked: end it if it hangs or is stopped (fuser -v has its number)")

// lockOwners keeps everybody else from changing the file until
// unlock is called. flock(2) has no deadline, and a process that is stopped keeps its lock.
func lockOwners(file string, wait time.Duration) (unlock func(), err error) {
	lock, err := os.OpenFile(file+".lock", os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return nil, err
	}
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		switch err = durable.Lock(lock); {
		case err == nil:
			return func() { _ = lock.Close() }, nil // lets go
		case errors.Is(err, durable.ErrLocked) && time.Since(start) < wait:
			continue
		case errors.Is(err, durable.ErrLocked):
			err = errOwnersLocked
		}
		_ = lock.Close() // nothing was written
		return nil, fmt.Errorf("%s: %w", lock.Name(), err)
	}
}

// changeOwners changes the file, which the caller has locked. It returns what is
// in it then.
func changeOwners(file string, change func(map[string]owner) error) (known map[string]owner, err error) {
	if known, err = readOwners(file); err != nil {
		return nil, err
	}
	if err := change(known); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(known, "", "  ")
	if err == nil {
		err = durable.WriteFile(file, append(b, '\n'), 0o600)
	}
	return known, err
}

// refresh takes what an operator has changed. A file that is gone or broken
// changes nothing, and is logged once.
func (o *owners) refresh() {
	o.mu.Lock()
	before, since := o.read, o.since
	o.mu.Unlock()
	info, err := os.Stat(o.file)
	if err == nil && before != nil && os.SameFile(before, info) && before.ModTime().Equal(info.ModTime()) && before.Size() == info.Size() {
		return
	}
	var known map[string]owner
	if err == nil {
		known, err = readOwners(o.file)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err == nil && o.since == since: // else somebody has what is newer
		o.known, o.read, o.since, o.unread = known, info, since+1, ""
	case err == nil, errors.Is(err, os.ErrNotExist) && len(o.known) == 0, err.Error() == o.unread:
	default:
		o.unread = err.Error()
		o.log.Error("way out: who the applications are cannot be read; those that were known stay in force", slog.Any("err", err))
	}
}

// acceptLine is the command by which an operator accepts who is new, "" where a name
// in it is one that a shell could read in another way: local users choose the
// names of their units.
func (o *owners) acceptLine(key string, now owner) string {
	prefix := ""
	if uid := os.Geteuid(); uid != 0 {
		prefix = "sudo -u '#" + strconv.Itoa(uid) + "' "
	}
	dir := filepath.Dir(o.file)
	for _, word := range []string{key, dir, now.Unit} {
		if strings.ContainsFunc(word, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\'' }) {
			return ""
		}
	}
	unit := ""
	if now.Unit != "" {
		unit = " --unit '" + now.Unit + "'"
	}
	return fmt.Sprintf("; or, if that is the application now, run on its host: %ssignet agent owners accept '%s' --uid %d%s --data-dir '%s'", prefix, key, now.UID, unit, dir)
}

// lock is lockOwners, for which of all those who queue for it only the first waits.
func (o *owners) lock() (unlock func(), err error) {
	wait := rememberWaits
	if time.Since(o.stuck) < time.Second {
		wait = 0
	}
	if unlock, err = lockOwners(o.file, wait); errors.Is(err, errOwnersLocked) {
		o.stuck = time.Now()
	}
	return unlock, err
}

var errRememberedMeanwhile = errors.New("another is remembered meanwhile")

// remember has the application in the file before it counts. before is what was
// known when it was looked for, if anything was.
func (o *owners) remember(key string, known bool, before, app owner) error {
	o.saving.Lock()
	defer o.saving.Unlock() // after known is set, so that it never goes back to what was before
	unlock, err := o.lock()
	if err != nil {
		return err
	}
	defer unlock()
	o.mu.Lock()
	memory := o.known
	o.mu.Unlock()
	all, err := changeOwners(o.file, func(all map[string]owner) error {
		for k, v := range memory { // those of a file that was taken away are not forgotten
			if _, ok := all[k]; !ok {
				all[k] = v
			}
		}
		if was, ok := all[key]; ok != known || was != before {
			return errRememberedMeanwhile
		}
		all[key] = app
		return nil
	})
	if err == nil {
		o.mu.Lock()
		o.known, o.since = all, o.since+1
		o.mu.Unlock()
	}
	return err
}
