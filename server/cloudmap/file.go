package cloudmap

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"

	"signet.example/internal/durable"
	"signet.example/internal/watched"
	"signet.example/proxy"
)

// File is the last good answers where there is one server: in memory, and in a file for a
// restart while AWS is away. It is a shared.Value.
type File struct {
	watched.Value[*Answers]

	path string
	log  *slog.Logger

	saving sync.Mutex // guards saved, and is kept while the file is written
	saved  *Answers
}

// row is one answer in the file.
type row struct {
	Mesh      string     `json:"mesh"`
	Node      string     `json:"node"`
	Question  Question   `json:"question"`
	Instances []Instance `json:"instances"`
}

// OpenFile reads what the last run had. An error means that this could not be read: only
// a cache is lost, and what is returned is of use.
func OpenFile(path string, log *slog.Logger) (*File, error) {
	f := &File{path: path, log: log}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) { // there is nothing in a file that is not there
		return f, nil
	}
	var rows []row
	if err == nil {
		err = json.Unmarshal(b, &rows)
	}
	if err != nil {
		return f, fmt.Errorf("last known instances of AWS Cloud Map: %w", err)
	}
	var all *Answers
	for _, r := range rows {
		all = all.with(proxy.Node(r.Mesh, r.Node), &answer{r.Question, listed(r.Instances)})
	}
	f.Set(all)
	f.saved = all
	return f, nil
}

// Update implements shared.Value, and has the file follow.
func (f *File) Update(change func(*Answers) *Answers) {
	f.Value.Update(change)
	f.saving.Lock() // the newest is written last
	defer f.saving.Unlock()
	now := f.Load()
	if now == f.saved {
		return
	}
	rows := []row{}
	for node, x := range now.all().All() {
		rows = append(rows, row{node.Mesh, node.Name, x.of, x.instances})
	}
	if err := durable.WriteJSON(f.path, rows); err != nil {
		f.log.Warn("instances of AWS Cloud Map not remembered", slog.Any("err", err))
		return
	}
	f.saved = now
}
