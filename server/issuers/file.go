package issuers

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"

	"signet.example/internal/durable"
)

// File is a Store in one file.
type File string

// Load implements Store; there is nothing in a file that is not there.
func (f File) Load() (map[string]Set, error) {
	b, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var sets map[string]Set
	if err == nil {
		err = json.Unmarshal(b, &sets)
	}
	return sets, err
}

// Save implements Store.
func (f File) Save(sets map[string]Set) error { return durable.WriteJSON(string(f), sets) }
