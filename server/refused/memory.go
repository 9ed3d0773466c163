package refused

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/ads"
	"signet.example/internal/durable"
	"signet.example/proxy"
)

// mostRemembered bounds the file, in bytes. What does not fit is lost at a restart: one replica
// after the other then refuses it again.
const mostRemembered = 64 << 20

// remembered is the content of the file: the refusals, and the resources that the views of those
// virtual nodes had instead. A view has no secrets.
type remembered struct {
	Refused []Refusal `json:"refused"`
	Had     []had     `json:"had"`
}

type had struct {
	Node      string          `json:"node"`
	Shape     json.RawMessage `json:"shape"`
	Resources []*resourceHad  `json:"resources"`
}

type resourceHad struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Body    []byte `json:"body"`
}

// View names a view of proxies.
type View struct {
	Node  proxy.Ref
	Shape proxy.Shape
}

// Read reads the file that the server's last run wrote; a missing file counts as empty.
func Read(path string) (All, map[View]*ads.Set, error) {
	all, last := All{}, map[View]*ads.Set{}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return all, last, nil
	}
	var file remembered
	if err == nil {
		err = json.Unmarshal(b, &file)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("what proxies refused: %w", err)
	}
	for _, h := range file.Had {
		view, set, err := h.read()
		if err != nil {
			return nil, nil, fmt.Errorf("what proxies refused: %s: %w", path, err)
		}
		last[view] = set
	}
	for _, r := range file.Refused {
		all.Add(r)
	}
	return all, last, nil
}

func (h had) read() (View, *ads.Set, error) {
	ref, err := proxy.ParseRef(h.Node)
	if err != nil {
		return View{}, nil, err
	}
	metadata := &structpb.Struct{}
	if err := protojson.Unmarshal(h.Shape, metadata); err != nil {
		return View{}, nil, err
	}
	shape, err := proxy.ParseShape(metadata, func(s *proxy.Shape) { s.Suit(ref) })
	if err != nil {
		return View{}, nil, err
	}
	shape.Proxy = ""
	var list []*ads.Resource
	for _, r := range h.Resources {
		list = append(list, &ads.Resource{Type: r.Type, Name: r.Name, Version: r.Version, Body: r.Body})
	}
	set, err := ads.NewSet(list...)
	return View{ref, shape}, set, err
}

// File is a snapshot that can be written.
type File struct{ content remembered }

// FileOf returns a snapshot of the refusals, and of the sets of the views from which something is
// withheld, as far as the file has room. It shares no mutable state with them.
func (a All) FileOf(have map[View]*ads.Set) File {
	file := remembered{Refused: a.standing()}
	size := 0
	for view, set := range have {
		if size += set.Bytes(); size > mostRemembered {
			break
		}
		shape, err := protojson.Marshal(view.Shape.Metadata())
		if err != nil {
			continue
		}
		h := had{Node: view.Node.String(), Shape: shape}
		for _, t := range set.Types() {
			if t == ads.ViewType {
				continue
			}
			for _, r := range set.Type(t) {
				h.Resources = append(h.Resources, &resourceHad{r.Type, r.Name, r.Version, r.Body})
			}
		}
		file.Had = append(file.Had, h)
	}
	return File{file}
}

// Write replaces the file at path.
func (f File) Write(path string) error { return durable.WriteJSON(path, f.content) }

// SaveAgain is the pause after a failed write.
const SaveAgain = 30 * time.Second

// Keeper writes snapshots, and pauses after a write that failed. It belongs to one goroutine.
type Keeper struct{ next time.Time }

// Due reports whether the pause is over.
func (k *Keeper) Due() bool { return !time.Now().Before(k.next) }

// Write writes a snapshot, unless path is "". On failure it logs the error and returns false.
func (k *Keeper) Write(ctx context.Context, f File, path string, log *slog.Logger) bool {
	if path == "" {
		return true
	}
	err := f.Write(path)
	if err != nil {
		log.WarnContext(ctx, "what proxies refused is not remembered over a restart", slog.Any("err", err))
		k.next = time.Now().Add(SaveAgain)
	}
	return err == nil
}
