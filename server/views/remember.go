package views

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

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/ads"
	"signet.example/internal/durable"
	"signet.example/proxy"
)

// mostRemembered is what the file of refusals may take. More is forgotten at a restart, and
// found again by one replica after the other.
const mostRemembered = 64 << 20

// remembered is the file of refusals: who refused what, and what the views of those virtual
// nodes had in its place. There is no secret in a view.
type remembered struct {
	Refused []Refused `json:"refused"`
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

// Remember reads what proxies refused of what the last run of the server made. It is called
// before anything is served; with an error nothing is remembered.
func (v *Views) Remember() error {
	b, err := os.ReadFile(v.cfg.Memory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var file remembered
	if err == nil {
		err = json.Unmarshal(b, &file)
	}
	if err != nil {
		return fmt.Errorf("what proxies refused: %w", err)
	}
	last := map[Key]*ads.Set{}
	for _, h := range file.Had {
		key, set, err := h.read()
		if err != nil {
			return fmt.Errorf("what proxies refused: %s: %w", v.cfg.Memory, err)
		}
		last[key] = set
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.last = last
	for _, r := range file.Refused {
		v.refuse(resource{r.Type, r.Name, r.Version}, refusal{r.Node, r.Agent, r.Envoy}, r.Message)
	}
	v.unsaved = false
	return nil
}

func (h had) read() (Key, *ads.Set, error) {
	ref, err := proxy.ParseRef(h.Node)
	if err != nil {
		return Key{}, nil, err
	}
	metadata := &structpb.Struct{}
	if err := protojson.Unmarshal(h.Shape, metadata); err != nil {
		return Key{}, nil, err
	}
	shape, err := proxy.ParseShape(metadata, func(s *proxy.Shape) { s.Suit(ref) })
	if err != nil {
		return Key{}, nil, err
	}
	shape.Proxy = ""
	var list []*ads.Resource
	for _, r := range h.Resources {
		list = append(list, &ads.Resource{Type: r.Type, Name: r.Name, Version: r.Version, Body: r.Body})
	}
	set, err := ads.NewSet(list...)
	return Key{ref, shape}, set, err
}

// save writes the file where something else is refused than it has. Only Run calls it.
func (v *Views) save(ctx context.Context) {
	v.mu.Lock()
	file, ok := v.toRemember()
	v.unsaved = false
	v.mu.Unlock()
	if !ok || v.cfg.Memory == "" {
		return
	}
	if err := durable.WriteJSON(v.cfg.Memory, file); err != nil {
		v.cfg.Log.WarnContext(ctx, "what proxies refused is not remembered over a restart", slog.Any("err", err))
	}
}

func (v *Views) toRemember() (file remembered, ok bool) {
	if !v.unsaved {
		return file, false
	}
	for _, by := range v.refused {
		file.Refused = slices.AppendSeq(file.Refused, maps.Values(by))
	}
	slices.SortFunc(file.Refused, Refused.compare)
	have := map[Key]*ads.Set{}
	for key, set := range v.last { // of those that nobody has followed since
		if v.nodes[key] == nil {
			have[key] = set
		}
	}
	for key, k := range v.nodes {
		if len(k.withheld) > 0 {
			have[key] = cmp.Or(k.good, k.view.Set())
		}
	}
	size := 0
	for key, set := range have {
		if size += set.Bytes(); size > mostRemembered {
			break
		}
		shape, err := protojson.Marshal(key.Shape.Metadata())
		if err != nil {
			continue
		}
		h := had{Node: key.Node.String(), Shape: shape}
		for _, t := range nodeTypes {
			for _, r := range set.Type(t) {
				h.Resources = append(h.Resources, &resourceHad{r.Type, r.Name, r.Version, r.Body})
			}
		}
		file.Had = append(file.Had, h)
	}
	return file, true
}
