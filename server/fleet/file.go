package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"signet.example/internal/durable"
	"signet.example/internal/watched"
)

// saveEvery is how often the file is written at most.
const saveEvery = time.Second

// File is what is known where there is one server: in memory, and the endpoints in a file
// beside the store, so that a server that restarts serves what it served until the agents
// are back. To withdraw a healthy endpoint because the control plane restarted would be an
// outage made by us. The file is a cache: lost, the agents' first reports make it anew;
// after a crash it may lack the last second.
type File struct {
	watched.Value[*Known] // a shared.Value

	path  string
	clock func() time.Time
	log   *slog.Logger
	saved *Registered // what the file has; Run's alone
}

// OpenFile reads what the last run knew. All of it counts as gone from now: an agent
// has the grace period to come back and say it again. With an error nothing is
// registered, and what is returned is of use.
func OpenFile(path string, clock func() time.Time, log *slog.Logger) (*File, error) {
	f := &File{path: path, clock: clock, log: log}
	now := &Registered{}
	list, err := readEndpoints(path)
	for _, n := range list {
		if n != nil {
			n.Gone = clock()
			now = now.put(n)
		}
	}
	f.Set((&Known{}).withEndpoints(now))
	f.saved = now
	return f, err
}

func readEndpoints(path string) ([]*Endpoint, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var list []*Endpoint
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("last known endpoints: %w", err)
	}
	return list, nil
}

// Run keeps the file, until ctx ends and then once more. It sleeps while nothing changes.
func (f *File) Run(ctx context.Context) error {
	defer f.save(context.WithoutCancel(ctx))
	for {
		now, changed := f.Get()
		if now.endpoints() != f.saved {
			f.save(ctx)
			timer := time.NewTimer(saveEvery)
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil
			case <-timer.C:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// save writes the file, if there is anything new. Only Run calls it.
func (f *File) save(ctx context.Context) {
	now := f.Load().endpoints()
	if now == f.saved {
		return
	}
	list := slices.AppendSeq([]*Endpoint{}, now.all())
	if err := durable.WriteJSON(f.path, list); err != nil {
		f.log.WarnContext(ctx, "endpoints", slog.Any("err", fmt.Errorf("remember endpoints: %w", err)))
		return
	}
	f.saved = now
}
