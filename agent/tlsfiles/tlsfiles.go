package tlsfiles

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"signet.example/ads"
	"signet.example/internal/plain"
	"signet.example/internal/watched"
	"signet.example/proxy"
)

const (
	// every is how often files are looked at.
	every = time.Second
	// endsSoon is how long before its end a certificate is told of.
	endsSoon = 72 * time.Hour
	// mostFiles bounds what one proxy's mesh may ask for.
	mostFiles = 256
)

// Files are the certificates, keys and authorities that one proxy gets from files. What
// was good stays until the files have something good again.
type Files struct {
	// dirs are what the proxy may have now.
	dirs func() []Dir
	log  *slog.Logger

	wanted  watched.Value[[]string]
	state   watched.Value[*State]
	secrets map[string]*secret // owned by Run
}

// State is what there is of the files. Immutable.
type State struct {
	// Of are the names of the secrets that were asked for and tried.
	Of []string
	// Secrets are those of them that there are.
	Secrets []*ads.Resource
	// Problems is what is wrong, sorted. Whatever has none is up to date.
	Problems []string
}

// secret is one that is asked for.
type secret struct {
	files   proxy.TLSFiles
	prints  []print       // of the files as they were tried last
	good    *ads.Resource // nil before the first
	ends    time.Time     // of good
	problem string        // with the files as they are
	again   bool          // problem was there the time before, too
}

// New returns the files of one proxy, which may have what lies in dirs.
func New(dirs func() []Dir, log *slog.Logger) *Files {
	return &Files{dirs: dirs, log: log, secrets: map[string]*secret{}}
}

// Want sets the names of the secrets that are to be there. Others are forgotten.
func (f *Files) Want(names []string) {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if !slices.Equal(f.wanted.Load(), names) {
		f.wanted.Set(names)
	}
}

// Get returns what there is, nil before the first look, and a channel that is closed when
// there is something else.
func (f *Files) Get() (*State, <-chan struct{}) { return f.state.Get() }

// Tried reports whether each of the names was looked for.
func (s *State) Tried(names []string) bool {
	return len(names) == 0 || s != nil && !slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(s.Of, name) })
}

// Run looks at the files until ctx ends.
func (f *Files) Run(ctx context.Context) {
	for {
		names, changed := f.wanted.Get()
		if len(names) > 0 || len(f.secrets) > 0 {
			f.look(ctx, names, time.Now())
		}
		again := time.NewTimer(every)
		if len(names) == 0 {
			again.Stop()
		}
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return
		}
		again.Stop()
	}
}

// look tries what is wanted and tells what came of it, if that is something else.
func (f *Files) look(ctx context.Context, names []string, now time.Time) {
	next := &State{Of: names}
	if len(names) > mostFiles {
		next.Problems = append(next.Problems, fmt.Sprintf("the mesh names %d certificates and authorities in files for one proxy: at most %d are read", len(names), mostFiles))
		names = names[:mostFiles]
	}
	maps.DeleteFunc(f.secrets, func(name string, _ *secret) bool { return !slices.Contains(names, name) })
	for _, name := range names {
		s := f.secrets[name]
		if s == nil {
			files, ok := proxy.ParseTLSFiles(name)
			if !ok {
				next.Problems = append(next.Problems, fmt.Sprintf("%.128q names no files", name))
				continue
			}
			s = &secret{files: files}
			f.secrets[name] = s
		}
		before := s.good
		s.try(name, f.dirs(), now)
		if before != nil && s.good != before {
			f.log.InfoContext(ctx, "certificate files read again", slog.String("files", s.files.String()), slog.Time("ends", s.ends))
		}
		if s.good != nil {
			next.Secrets = append(next.Secrets, s.good)
		}
		if p := s.wrong(now); p != "" {
			next.Problems = append(next.Problems, p)
		}
	}
	slices.Sort(next.Problems)
	old := f.state.Load()
	if old != nil && slices.Equal(old.Of, next.Of) && slices.Equal(old.Secrets, next.Secrets) && slices.Equal(old.Problems, next.Problems) {
		return
	}
	for _, p := range next.Problems {
		if old == nil || !slices.Contains(old.Problems, p) {
			f.log.WarnContext(ctx, "certificate files", slog.String("problem", p))
		}
	}
	f.state.Set(next)
}

// try reads the files of a secret if they are others than those that were read.
func (s *secret) try(name string, dirs []Dir, now time.Time) {
	had := s.problem
	if prints, err := s.look(dirs); err == nil && had == "" && s.good != nil && slices.Equal(prints, s.prints) {
		return
	}
	r, ends, prints, err := s.read(name, dirs, now)
	if s.problem, s.again = "", had != ""; err != nil {
		s.problem = err.Error()
		return
	}
	s.prints, s.ends = prints, ends
	if s.good == nil || s.good.Version != r.Version {
		s.good = r
	}
}

// wrong is what is wrong with a secret, "" for nothing. Who replaces a certificate and then
// its key is given the time between two looks.
func (s *secret) wrong(now time.Time) string {
	switch {
	case s.problem != "" && s.good == nil:
		return s.problem + ": what needs it serves nobody"
	case s.problem != "" && s.again:
		return s.problem + fmt.Sprintf(": what was read before is served still, and ends at %s", plain.UTC(s.ends))
	case s.good != nil && now.After(s.ends):
		return fmt.Sprintf("%s: ended at %s, and there is nothing newer", s.files, plain.UTC(s.ends))
	case s.good != nil && s.ends.Sub(now) < endsSoon:
		return fmt.Sprintf("%s: ends at %s, and there is nothing newer", s.files, plain.UTC(s.ends))
	}
	return ""
}

func (s *secret) paths() []string {
	if s.files.Authorities != "" {
		return []string{s.files.Authorities}
	}
	return []string{s.files.Certificate, s.files.Key}
}

func (s *secret) look(dirs []Dir) ([]print, error) {
	var prints []print
	for _, path := range s.paths() {
		p, err := look(dirs, path)
		if err != nil {
			return nil, err
		}
		prints = append(prints, p)
	}
	return prints, nil
}

func (s *secret) read(name string, dirs []Dir, now time.Time) (r *ads.Resource, ends time.Time, prints []print, err error) {
	if s.files.Authorities != "" {
		content, p, err := read(dirs, s.files.Authorities, mostAuthorities, false)
		if err != nil {
			return nil, ends, nil, err
		}
		r, ends, err := parseAuthorities(name, s.files, content, now)
		return r, ends, []print{p}, err
	}
	chain, chainPrint, err := read(dirs, s.files.Certificate, mostChain, false)
	if err != nil {
		return nil, ends, nil, err
	}
	key, keyPrint, err := read(dirs, s.files.Key, mostKey, true)
	if err != nil {
		return nil, ends, nil, err
	}
	r, ends, err = parseCertificate(name, s.files, chain, key, now)
	return r, ends, []print{chainPrint, keyPrint}, err
}
