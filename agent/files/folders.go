package files

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"signet.example/agent/resources"
	"signet.example/agent/svids"
	"signet.example/identity"
	"signet.example/internal/child"
	"signet.example/internal/private"
	"signet.example/internal/retry"
	"signet.example/internal/watched"
)

const (
	// every is how often folders are looked at that nothing was told of: what somebody took
	// away is written again.
	every = 30 * time.Second
	// mostFolders bounds what an agent writes.
	mostFolders = 1024
)

// again is when what could not be written is tried again, and a command that failed.
var again = retry.Policy{First: time.Second, Most: time.Minute, Jitter: 0.5, Settled: time.Minute}

// Parts are what Folders are made of.
type Parts struct {
	// Root is nil where the operator allows no files.
	Root *Root
	// Owners are whose files there may be, Commands what may be run.
	Owners   []child.User
	Commands []Command
	// Task: there is one user, the first of Owners, or without any the agent's own.
	Task bool

	State *watched.Value[*resources.Snapshot]
	SVIDs *svids.Keeper
	Trust *watched.Value[*svids.Trust]
	// Changed is called when Problems or Users may be others than before.
	Changed func()
	Metrics *Metrics
	Log     *slog.Logger
}

// Folders are the credential folders of this host.
type Folders struct {
	Parts

	wake watched.Signal
	// folders are those that the servers ask for, by name; owned by Run.
	folders map[string]*folder
	// seen is the state that folders were last cleared by, at looked, and left what could not
	// be taken away; owned by Run.
	seen   *resources.Snapshot
	looked time.Time
	left   []string
	// runs are commands that have not ended, by folder; owned by Run.
	runs    map[string]*running
	waiting sync.WaitGroup

	mu       sync.Mutex
	problems []string          // guarded by mu
	users    map[string]string // entries, to the folders that they are kept in; guarded by mu
}

// folder is one that is asked for.
type folder struct {
	name  string
	entry identity.Entry
	owner Owner

	// What it has: nil before the first.
	svid    *svids.SVID
	trust   *svids.Trust
	problem string // why it is not what it is to be
	lacks   string // what of it cannot be here, whatever is tried
	tries   retry.Tries
	next    time.Time // of a try after one that failed; zero is now

	command command
}

// New returns what has not begun.
func New(p Parts) *Folders {
	return &Folders{Parts: p, wake: watched.NewSignal(), folders: map[string]*folder{}, users: map[string]string{}, runs: map[string]*running{}}
}

// Problems are what is wrong, sorted.
func (f *Folders) Problems() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.problems)
}

// Of is the folder in which an entry's identity is kept, "" for none.
func (f *Folders) Of(entry string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.users[entry]
}

// Run keeps the folders until ctx ends. They stay as they are then: who reads them goes on
// while the agent is replaced.
func (f *Folders) Run(ctx context.Context) error {
	defer f.waiting.Wait()
	defer f.stopAll()
	timer := time.NewTimer(every)
	defer timer.Stop()
	for {
		s, stateChanged := f.State.Get()
		held, heldChanged := f.SVIDs.Watch()
		t, trustChanged := f.Trust.Get()
		next := every
		if s != nil { // before the servers have said anything, what there is stays
			next = f.keep(ctx, s, held, t)
		}
		timer.Reset(next)
		select {
		case <-stateChanged:
		case <-heldChanged:
		case <-trustChanged:
		case <-f.wake:
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// End takes all folders away, after Run: the agent was banned.
func (f *Folders) End() error {
	if f.Root == nil {
		return nil
	}
	return f.Root.RemoveAll()
}

// keep makes the folders what they are to be, and returns when to look again.
func (f *Folders) keep(ctx context.Context, s *resources.Snapshot, held map[string]*svids.SVID, t *svids.Trust) time.Duration {
	now, next := time.Now(), every
	look := s != f.seen || now.Sub(f.looked) >= every || f.left != nil
	refused := f.plan(s)
	if look {
		f.seen, f.looked, f.left = s, now, f.drop()
	}
	problems := slices.Concat(refused, f.left)
	names := make([]string, 0, len(f.folders))
	for name := range f.folders {
		names = append(names, name)
	}
	slices.Sort(names)
	failing := len(problems)
	for _, name := range names {
		folder := f.folders[name]
		next = min(next, f.one(ctx, folder, held[folder.entry.Name], t, now, look))
		if wrong := folder.wrong(); wrong != "" {
			failing++
			problems = append(problems, wrong)
		}
	}
	f.Metrics.failing.Set(float64(failing))
	f.tell(problems)
	return max(next, 10*time.Millisecond)
}

// plan reads what the servers ask for, and returns why some of it is refused.
func (f *Folders) plan(s *resources.Snapshot) (refused []string) {
	wanted := map[string]*folder{}
	var needs []svids.Name
	for _, e := range s.WithFiles() {
		name := e.Files.Folder
		owner, err := f.allowed(e)
		if other := wanted[name]; err == nil && other != nil {
			err = fmt.Errorf("entry %q was there first: give one of them another folder", other.entry.Name)
		}
		if err == nil && len(wanted) == mostFolders {
			err = fmt.Errorf("%d folders are the most of one host", mostFolders)
		}
		if err != nil {
			refused = append(refused, fmt.Sprintf("entry %q is not kept in files, in folder %s: %v", e.Name, name, err))
			continue
		}
		next := &folder{name: name, entry: e, owner: owner, tries: retry.Tries{Policy: again}}
		if old := f.folders[name]; old != nil && old.entry.Name == e.Name && old.entry.ID == e.ID && old.owner == owner {
			if old.entry.Files.Command != e.Files.Command {
				f.stop(name)
				old.command = command{}
				old.command.due()
			}
			if !slices.Equal(old.entry.Files.Layouts, e.Files.Layouts) {
				old.svid = nil
			}
			old.entry, next = e, old
		}
		wanted[name] = next
		needs = append(needs, svids.Name{Entry: e.Name, ID: e.ID})
	}
	for name, old := range f.folders {
		if wanted[name] != old {
			f.stop(name)
		}
	}
	f.folders = wanted
	f.SVIDs.Need(needs...)
	return refused
}

// allowed is whose the files of an entry are, or why they cannot be here.
func (f *Folders) allowed(e identity.Entry) (Owner, error) {
	if f.Root == nil {
		return Owner{}, errors.New("the agent's configuration has no files.dir, under which it would be: docs/FILES.md")
	}
	uid, task := e.FilesOwner()
	if task != f.Task {
		return Owner{}, errors.New("signet:unit:task is the owner of files in a task, and unix:uid:N on a host")
	}
	if task && len(f.Owners) == 0 {
		return Owner{UID: private.Self(), GID: uint32(os.Getegid()), Group: e.Files.Group}, nil //nolint:gosec // a gid has 32 bits
	}
	for _, u := range f.Owners {
		if task || u.UID == uid {
			return Owner{UID: u.UID, GID: u.GID, Group: e.Files.Group}, nil
		}
	}
	return Owner{}, fmt.Errorf("uid %d is none of files.users in the agent's configuration: add it there if its files may be on this host, and restart the agent", uid)
}

// drop takes away what nobody asks for any more, also of an agent before this one, and
// returns what could not be.
func (f *Folders) drop() (problems []string) {
	if f.Root == nil {
		return nil
	}
	list, err := f.Root.List()
	if err != nil {
		return []string{fmt.Sprintf("credential folders: %v", err)}
	}
	for name, m := range list {
		folder := f.folders[name]
		if folder != nil && m == folder.mark() {
			continue // it may be from before a restart, and is good until it is written again
		}
		if err := f.Root.Remove(name); err != nil {
			problems = append(problems, fmt.Sprintf("credential folder that nobody asks for any more: %v", err))
			continue
		}
		if folder != nil {
			folder.svid = nil
		}
		f.Log.Info("credential folder removed", slog.String("folder", filepath.Join(f.Root.path, name)), slog.String("spiffe_id", m.SPIFFEID))
	}
	slices.Sort(problems)
	return problems
}

func (o *folder) mark() mark {
	return mark{Entry: o.entry.Name, SPIFFEID: o.entry.ID.String(), Owner: o.owner}
}

// one brings one folder up to date, and returns when to look again.
func (f *Folders) one(ctx context.Context, o *folder, s *svids.SVID, t *svids.Trust, now time.Time, look bool) time.Duration {
	if !s.Fresh(now) || s.ID != o.entry.ID || t == nil {
		return every // what is there stays
	}
	if now.Before(o.next) {
		return o.next.Sub(now)
	}
	changed := s != o.svid || t != o.trust
	if changed || look && !f.Root.has(o.name) {
		if err := f.write(o, s, t); err != nil {
			o.problem = err.Error()
			o.next = now.Add(o.tries.Failed(0, err))
			if o.tries.Doubled() {
				f.Log.WarnContext(ctx, "credential folder not written", slog.String("folder", o.name), slog.String("spiffe_id", s.ID.String()), slog.Any("err", err))
			}
			return o.next.Sub(now)
		}
		o.problem, o.next, o.svid, o.trust = "", time.Time{}, s, t
		o.tries.Succeeded()
		f.Log.InfoContext(ctx, "credential folder written", slog.String("folder", filepath.Join(f.Root.path, o.name)), slog.String("spiffe_id", s.ID.String()), slog.String("serial", s.Serial()))
		o.command.due()
	}
	return f.runCommand(ctx, o, now)
}

// write makes the folder anew from an SVID.
func (f *Folders) write(o *folder, s *svids.SVID, t *svids.Trust) error {
	c, err := credentialsOf(s, t)
	if err != nil {
		return err
	}
	list, missing, err := filesOf(c, o.entry.Files.Layouts)
	if err != nil {
		return err
	}
	o.lacks = ""
	if missing != nil {
		o.lacks = fmt.Sprintf("this agent knows no layout %s: the others are there", strings.Join(missing, ", "))
	}
	return f.Root.Put(o.name, o.mark(), list)
}

// wrong is what is to be said of a folder.
func (o *folder) wrong() string {
	for _, text := range []string{o.problem, o.lacks, o.command.problem()} {
		if text != "" {
			return fmt.Sprintf("credential folder %s of entry %q: %s", o.name, o.entry.Name, text)
		}
	}
	return ""
}

// tell has Problems say something else.
func (f *Folders) tell(problems []string) {
	users := map[string]string{}
	for name, o := range f.folders {
		if o.svid != nil {
			users[o.entry.Name] = name
		}
	}
	f.mu.Lock()
	same := slices.Equal(problems, f.problems) && maps.Equal(users, f.users)
	f.problems, f.users = problems, users
	f.mu.Unlock()
	if !same && f.Changed != nil {
		f.Changed()
	}
}

// stopAll ends the commands that are running.
func (f *Folders) stopAll() {
	for name := range f.runs {
		f.stop(name)
	}
}
