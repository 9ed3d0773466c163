package wayout

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
	"sync"
	"time"

	"signet.example/internal/durable"
	"signet.example/internal/private"
)

// memory is who the applications are, in a file which an operator may change while the
// agent runs: it is looked at whenever an owner is looked for.
type memory struct {
	file string
	log  *slog.Logger

	saving sync.Mutex // held while the file is written; never waited for with mu
	stuck  time.Time  // when the file was last locked for too long; guarded by saving

	mu     sync.Mutex
	known  Known       // never changed in place; guarded by mu
	since  int         // counts the changes of known; guarded by mu
	read   os.FileInfo // of the file that known is from; guarded by mu
	unread string      // why the file cannot be read, as was logged; guarded by mu
}

// Known are the owners of applications, by node and address.
type Known map[string]owner

func newMemory(file string, known Known, log *slog.Logger) *memory {
	return &memory{file: file, known: known, log: log}
}

// applicationsFile of data_dir holds who the applications are.
const applicationsFile = "applications.json"

func fileIn(dataDir string) string { return filepath.Join(dataDir, applicationsFile) }

// Remembered reads who was remembered in a data_dir. A file that cannot be read is never
// as if nobody were known.
func Remembered(dataDir string) (Known, error) { return readKnown(fileIn(dataDir)) }

func readKnown(file string) (Known, error) {
	known := Known{}
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return known, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &known)
	}
	if err == nil && known == nil {
		err = errors.New("want an object, not null")
	}
	if err != nil {
		return nil, fmt.Errorf("data_dir: who the applications are: %s: %w (remove the file to have them found anew)", file, err)
	}
	return known, nil
}

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
	known, err := Remembered(dataDir)
	if err != nil {
		return nil, err
	}
	var list []Application
	for _, name := range slices.Sorted(maps.Keys(known)) {
		list = append(list, Application{name, known[name].UID, known[name].Unit})
	}
	return list, nil
}

// Accept remembers another owner in the place of the one that is. The
// agent, if it runs, goes by the file the next time that it looks for the owner.
func Accept(dataDir string, a Application) error {
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
	file := fileIn(dataDir)
	unlock, err := lockFile(file, acceptWaits)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = changeKnown(file, func(known Known) error {
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
	if _, err := os.Stat(dir); err != nil {
		return err
	}
	return private.Own(dir, private.Self())
}

// How long the file is waited for: the agent has a second to answer Envoy.
const (
	rememberWaits = 300 * time.Millisecond
	acceptWaits   = 5 * time.Second
)

// errFileLocked is returned when others change the file for too long.
var errFileLocked = errors.New("another process keeps the file locked: end it if it hangs or is stopped (fuser -v has its number)")

// lockFile keeps everybody else from changing the file until
// unlock is called. flock(2) has no deadline, and a process that is stopped keeps its lock.
func lockFile(file string, wait time.Duration) (unlock func(), err error) {
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
			err = errFileLocked
		}
		_ = lock.Close() // nothing was written
		return nil, fmt.Errorf("%s: %w", lock.Name(), err)
	}
}

// changeKnown changes the file, which the caller has locked. It returns what is
// in it then.
func changeKnown(file string, change func(Known) error) (known Known, err error) {
	if known, err = readKnown(file); err != nil {
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

// maxAddressesOfNode bounds what is remembered of one virtual node: a proxy that the
// agent did not start can come with ever new addresses, and fills no room except
// that of its node. How many nodes there are is what the host's Bindings say.
const maxAddressesOfNode = 64

// of is who is remembered by a key, and whether anybody is; full is whether no further
// address of its node is.
func (m *memory) of(key, node string) (before owner, known, full bool) {
	m.refresh()
	m.mu.Lock()
	defer m.mu.Unlock()
	before, known = m.known[key]
	addresses := 0
	for other := range m.known {
		if strings.HasPrefix(other, node+"@") {
			addresses++
		}
	}
	return before, known, addresses >= maxAddressesOfNode
}

// refresh takes what an operator has changed. A file that is gone or broken
// changes nothing, and is logged once.
func (m *memory) refresh() {
	m.mu.Lock()
	before, since := m.read, m.since
	m.mu.Unlock()
	info, err := os.Stat(m.file)
	if err == nil && before != nil && os.SameFile(before, info) && before.ModTime().Equal(info.ModTime()) && before.Size() == info.Size() {
		return
	}
	var known Known
	if err == nil {
		known, err = readKnown(m.file)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil && m.since == since: // else somebody has what is newer
		m.known, m.read, m.since, m.unread = known, info, since+1, ""
	case err == nil, errors.Is(err, os.ErrNotExist) && len(m.known) == 0, err.Error() == m.unread:
	default:
		m.unread = err.Error()
		m.log.Error("way out: who the applications are cannot be read; those that were known stay in force", slog.Any("err", err))
	}
}

// lock is lockFile, for which of all those who queue for it only the first waits. The
// caller holds saving.
func (m *memory) lock() (unlock func(), err error) {
	wait := rememberWaits
	if time.Since(m.stuck) < time.Second {
		wait = 0
	}
	if unlock, err = lockFile(m.file, wait); errors.Is(err, errFileLocked) {
		m.stuck = time.Now()
	}
	return unlock, err
}

var errRememberedMeanwhile = errors.New("another is remembered meanwhile")

// remember has the application in the file before it counts. before is what was
// known when it was looked for, if anything was.
func (m *memory) remember(key string, known bool, before, app owner) error {
	m.saving.Lock()
	defer m.saving.Unlock() // after known is set, so that it never goes back to what was before
	unlock, err := m.lock()
	if err != nil {
		return err
	}
	defer unlock()
	m.mu.Lock()
	memory := m.known
	m.mu.Unlock()
	all, err := changeKnown(m.file, func(all Known) error {
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
		m.mu.Lock()
		m.known, m.since = all, m.since+1
		m.mu.Unlock()
	}
	return err
}

// acceptLine is the command by which an operator accepts who is new, "" where a name
// in it is one that a shell could read in another way: local users choose the
// names of their units.
func (m *memory) acceptLine(key string, now owner) string {
	prefix := ""
	if uid := os.Geteuid(); uid != 0 {
		prefix = "sudo -u '#" + strconv.Itoa(uid) + "' "
	}
	dir := filepath.Dir(m.file)
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
