package issuers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"sync"

	"signet.example/authz/jwt"
	"signet.example/internal/durable"
	"signet.example/internal/watched"
)

// File is the last good sets where there is one server: in memory, and in a file for a
// restart. It is a shared.Value.
type File struct {
	watched.Value[Sets]

	path string
	log  *slog.Logger

	saving sync.Mutex // guards saved, and is held while the file is written
	saved  Sets
}

// OpenFile reads what the last run had. An error means that this could not be read: only
// a cache is lost, and what is returned is of use.
func OpenFile(path string, log *slog.Logger) (*File, error) {
	f := &File{path: path, log: log}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) { // there is nothing in a file that is not there
		return f, nil
	}
	var sets Sets
	if err == nil {
		err = json.Unmarshal(b, &sets)
	}
	if err != nil {
		return f, fmt.Errorf("last known issuer keys: %w", err)
	}
	maps.DeleteFunc(sets, func(_ string, s Set) bool { return jwt.CheckKeys(s.JWKS) != nil })
	f.Set(sets)
	f.saved = sets
	return f, nil
}

// Update implements shared.Value, and has the file follow where keys are others.
func (f *File) Update(change func(Sets) Sets) {
	f.Value.Update(change)
	f.saving.Lock() // the newest is written last
	defer f.saving.Unlock()
	now := f.Load()
	if maps.EqualFunc(now, f.saved, Set.same) {
		return
	}
	if err := durable.WriteJSON(f.path, now); err != nil {
		f.log.Warn("issuer keys not remembered", slog.Any("err", err))
		return
	}
	f.saved = now
}
