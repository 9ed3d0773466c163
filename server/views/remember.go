package views

import (
	"cmp"
	"context"

	"signet.example/ads"
	"signet.example/server/refused"
)

// Remember loads the refusals that the server's last run recorded. It must be called before
// anything is served; after an error it begins without any.
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

// save writes the file if the refusals have changed since it was written. Only Run calls it.
func (v *Views) save(ctx context.Context) {
	if !v.keeper.Due() {
		return
	}
	v.mu.Lock()
	file, ok := v.toRemember()
	v.unsaved = false
	v.mu.Unlock()
	if ok && !v.keeper.Write(ctx, file, v.cfg.Memory, v.cfg.Log) {
		v.mu.Lock()
		v.unsaved = true
		v.mu.Unlock()
	}
}

func (v *Views) toRemember() (file refused.File, ok bool) {
	if !v.unsaved {
		return file, false
	}
	have := map[refused.View]*ads.Set{}
	for key, set := range v.last { // of views that nobody has followed since the restart
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
