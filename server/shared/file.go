package shared

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"signet.example/internal/durable"
	"signet.example/internal/watched"
)

// saveEvery is how often a file is written at most, saveAgain how long after a try that failed. A
// file that is large is written less often, so that its bytes take no more than saveRate: what is
// in it may change all the time.
const (
	saveEvery, saveAgain = time.Second, time.Minute
	saveRate             = 1 << 20 // bytes in a second
)

// Form is how a value is kept in a file: as the JSON of a J.
type Form[T, J any] struct {
	What  string // for messages: "endpoints"
	Read  func(J) T
	Write func(T) J
	Same  func(a, b T) bool // reports whether both are written alike
}

// File is a Value where there is one server: in memory, and in a file, so that a server that
// restarts has what it had. The file is a cache: what it had is found again where it is lost,
// and after a crash it may lack the last second, or as long as it takes to write it.
type File[T any] struct {
	watched.Value[T]

	path, what string
	write      func(T) any
	same       func(a, b T) bool
	log        *slog.Logger
	saved      T // what the file has; Run's alone
}

// OpenFile reads what the last run had, the zero J where there is no file. An error means that
// it could not be read, and what is returned is of use: it begins as without a file.
func OpenFile[T, J any](path string, form Form[T, J], log *slog.Logger) (*File[T], error) {
	content, err := readJSON[J](path)
	f := &File[T]{path: path, what: form.What, same: form.Same, write: func(v T) any { return form.Write(v) }, log: log, saved: form.Read(content)}
	f.Set(f.saved)
	if err != nil {
		return f, fmt.Errorf("last known %s: %w", form.What, err)
	}
	return f, nil
}

func readJSON[J any](path string) (content J, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return content, nil
	}
	if err != nil {
		return content, err
	}
	if err := json.Unmarshal(b, &content); err != nil {
		var none J
		return none, fmt.Errorf("%s: %w", path, err)
	}
	return content, nil
}

// Run keeps the file, until ctx ends and then once more. It sleeps while nothing changes.
func (f *File[T]) Run(ctx context.Context) error {
	defer f.save(context.WithoutCancel(ctx))
	for {
		now, changed := f.Get()
		if f.same(now, f.saved) {
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			}
			continue
		}
		pause := saveAgain
		if f.save(ctx) {
			pause = max(saveEvery, f.takes())
		}
		if !watched.Sleep(ctx, pause) {
			return nil
		}
	}
}

// takes is how long the bytes of the file are to take.
func (f *File[T]) takes() time.Duration {
	at, err := os.Stat(f.path)
	if err != nil {
		return 0
	}
	return time.Duration(at.Size()) * time.Second / saveRate
}

// save writes the file, if there is anything new, and reports whether it has everything.
func (f *File[T]) save(ctx context.Context) bool {
	now := f.Load()
	if f.same(now, f.saved) {
		return true
	}
	if err := durable.WriteJSON(f.path, f.write(now)); err != nil {
		f.log.WarnContext(ctx, "not remembered over a restart", slog.String("what", f.what), slog.Any("err", err))
		return false
	}
	f.saved = now
	return true
}
