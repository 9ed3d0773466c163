package refused

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/ads"
	"signet.example/internal/durable"
	"signet.example/proxy"
)

// mostRemembered bounds what the file has of views, in bytes, and mostOfOne what it has of those that
// one agent asked for first. What does not fit is lost at a restart: one replica after the
// other then refuses it again.
const mostRemembered, mostOfOne = 64 << 20, 8 << 20

// remembered is the content of the file: the refusals, and the resources that the views of those
// virtual nodes had instead. A view has no secrets.
type remembered struct {
	Refused []Refusal `json:"refused"`
	Had     []had     `json:"had"`
}

type had struct {
	Agent     string          `json:"agent,omitempty"` // the release before has none
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

// Had is what proxies of a view have where something is withheld from it.
type Had struct {
	Agent string // that asked for the view first
	Set   *ads.Set
}

// Read reads the file that the server's last run wrote; a missing file counts as empty.
func Read(path string) (All, map[View]Had, error) {
	all, last := All{}, map[View]Had{}
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
		last[view] = Had{h.Agent, set}
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
type File struct {
	content remembered
	bytes   int // of the views in it
}

// FileOf returns a snapshot of the refusals, and of the sets of the views from which something is
// withheld, as far as the file has room. It shares no mutable state with them.
func (a All) FileOf(have map[View]Had) File {
	f := File{content: remembered{Refused: a.standing()}}
	of := map[string]int{} // bytes, by agent
	for _, view := range inOrder(have) {
		h := have[view]
		size := h.Set.Bytes()
		if of[h.Agent]+size > mostOfOne || f.bytes+size > mostRemembered {
			continue
		}
		shape, err := protojson.Marshal(view.Shape.Metadata())
		if err != nil {
			continue
		}
		of[h.Agent] += size
		f.bytes += size
		f.content.Had = append(f.content.Had, h.written(view, shape))
	}
	return f
}

func (h Had) written(view View, shape []byte) had {
	out := had{Agent: h.Agent, Node: view.Node.String(), Shape: shape}
	for _, t := range h.Set.Types() {
		if t == ads.ViewType {
			continue
		}
		for _, r := range h.Set.Type(t) {
			out.Resources = append(out.Resources, &resourceHad{r.Type, r.Name, r.Version, r.Body})
		}
	}
	return out
}

// inOrder lists views by how much each is to be in the file: agents take turns, so that none has
// what others need, and so do the nodes of one agent, so that shapes that it makes up come last.
func inOrder(have map[View]Had) []View {
	names := map[View]string{}
	for view := range have {
		names[view] = fmt.Sprint(view)
	}
	list := slices.SortedFunc(maps.Keys(have), func(a, b View) int { return strings.Compare(names[a], names[b]) })
	list = inTurns(list, func(view View) string { return have[view].Agent + " " + view.Node.String() })
	return inTurns(list, func(view View) string { return have[view].Agent })
}

// inTurns sorts a list into the first one of each to whom they belong, then the second, and so on.
func inTurns(list []View, whose func(View) string) []View {
	turn, of := map[View]int{}, map[string]int{}
	for _, view := range list {
		turn[view] = of[whose(view)]
		of[whose(view)]++
	}
	return slices.SortedStableFunc(slices.Values(list), func(a, b View) int { return cmp.Compare(turn[a], turn[b]) })
}

// Write replaces the file at path.
func (f File) Write(path string) error { return durable.WriteJSON(path, f.content) }

// SaveAgain is the pause after a failed write. After one that was made there is a pause of
// savePause, and as long as its bytes take at saveRate: what agents say may change all the time.
const (
	SaveAgain = 30 * time.Second
	savePause = time.Second
	saveRate  = 1 << 20 // bytes in a second
)

// Keeper writes snapshots, with a pause after each. It belongs to one goroutine.
type Keeper struct{ next time.Time }

// Wait returns how long the pause still is, zero or less if there is none.
func (k *Keeper) Wait() time.Duration { return time.Until(k.next) }

// Write writes a snapshot, unless path is "". On failure it logs the error and returns false.
func (k *Keeper) Write(ctx context.Context, f File, path string, log *slog.Logger) bool {
	if path == "" {
		return true
	}
	err := f.Write(path)
	k.next = time.Now().Add(savePause + time.Duration(f.bytes)*time.Second/saveRate)
	if err != nil {
		log.WarnContext(ctx, "what proxies refused is not remembered over a restart", slog.Any("err", err))
		k.next = time.Now().Add(SaveAgain)
	}
	return err == nil
}
