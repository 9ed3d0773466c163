package views

import (
	"cmp"
	"context"
	"log/slog"

	"signet.example/ads"
	"signet.example/server/refused"
)

// Remember reads what proxies refused of what the last run of the server made. It is called
// before anything is served; with an error nothing is remembered.
func (v *Views) Remember() error {
	all, last, err := refused.Read(v.cfg.Memory)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.refused = all
	for view, set := range last {
		v.last[Key(view)] = set
	}
	return nil
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
	if err := file.Write(v.cfg.Memory); err != nil {
		v.cfg.Log.WarnContext(ctx, "what proxies refused is not remembered over a restart", slog.Any("err", err))
	}
}

func (v *Views) toRemember() (file refused.File, ok bool) {
	if !v.unsaved {
		return file, false
	}
	have := map[refused.View]*ads.Set{}
	for key, set := range v.last { // of those that nobody has followed since
		if v.nodes[key] == nil {
			have[refused.View(key)] = set
		}
	}
	for key, k := range v.nodes {
		if len(k.withheld) > 0 {
			have[refused.View(key)] = cmp.Or(k.good, k.view.Set())
		}
	}
	return v.refused.FileOf(have), true
}
