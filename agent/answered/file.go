package answered

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/encoding/protodelim"

	"signet.example/api"
	"signet.example/internal/durable"
	"signet.example/internal/watched"
)

const (
	// fileName of data_dir holds what was answered before the agent was restarted.
	fileName = "answered"
	// saves is how often it is written: what an agent loses that is killed.
	saves = 5 * time.Minute
)

// Keep reads what an earlier run kept in a data_dir, and keeps it there until ctx ends: every
// five minutes and at the end. What cannot be read or written is missing from answers, and
// nothing depends on them.
func (d *Day) Keep(ctx context.Context, dataDir string, log *slog.Logger) error {
	file := filepath.Join(dataDir, fileName)
	if err := d.load(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.WarnContext(ctx, "what proxies answered before the agent's start is not known", slog.Any("err", err))
	}
	for before := uint64(0); ; {
		again := watched.Sleep(ctx, saves)
		if now := d.last(); now != before {
			if err := d.save(file); err != nil {
				log.WarnContext(ctx, "what proxies answered is not kept over a restart", slog.Any("err", err))
			}
			before = now
		}
		if !again {
			return nil
		}
	}
}

// last is the number of answers that were added, by which it is known whether there are new ones.
func (d *Day) last() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.added
}

func (d *Day) load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read to where it is whole
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() > int64(4*d.bytes) {
		return fmt.Errorf("%s: %d bytes are more than were written", file, info.Size())
	}
	for r := bufio.NewReader(f); ; {
		a := &api.Decision{}
		switch err := protodelim.UnmarshalFrom(r, a); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", file, err)
		}
		d.restore(a)
	}
}

// restore keeps a record of the file, unless it is older than a day by now.
func (d *Day) restore(a *api.Decision) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := record{first: a.GetFirst().AsTime(), last: a.GetLast().AsTime(), count: a.GetCount(), sample: encoded(a)}
	if old := d.now().Add(-kept); r.last.Before(old) || r.first.After(d.now()) {
		return
	}
	if d.put(a.GetProxy(), keyOf(a), r); d.size > d.bytes {
		d.relieve()
	}
}

func (d *Day) save(file string) error {
	var b bytes.Buffer
	d.mu.Lock()
	d.forget()
	b.Grow(d.size) // about what is written, so that it is not copied again and again as it grows
	for proxy, sh := range d.shares {
		for k, s := range sh.series {
			for _, r := range s.list {
				_, _ = protodelim.MarshalTo(&b, decoded(proxy, k, r)) // a buffer does not fail, and it was encoded before
			}
		}
	}
	d.mu.Unlock()
	if err := durable.WriteFile(file, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}
