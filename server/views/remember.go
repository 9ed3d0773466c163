package views

import (
	"context"
	"time"

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
	for view, had := range last {
		v.last[Key(view)] = had
	}
	return nil
}

// save writes the file if the refusals have changed since it was written, and returns when it is to
// be tried again, zero for never: there is a pause after each write. Only Run calls it.
func (v *Views) save(ctx context.Context) (again time.Duration) {
	v.mu.Lock()
	if again = v.keeper.Wait(); !v.unsaved || again > 0 {
		defer v.mu.Unlock()
		if !v.unsaved {
			return 0
		}
		return again
	}
	file := v.toRemember()
	v.unsaved = false
	v.mu.Unlock()
	if v.keeper.Write(ctx, file, v.cfg.Memory, v.cfg.Log) {
		return 0
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.unsaved = true
	return v.keeper.Wait()
}

func (v *Views) toRemember() refused.File {
	have := map[refused.View]refused.Had{}
	for key, had := range v.last { // of views that nobody has followed since the restart
		if v.nodes[key] == nil {
			have[refused.View(key)] = had
		}
	}
	for key, k := range v.nodes {
		if len(k.withheld) > 0 {
			have[refused.View(key)] = refused.Had{Agent: k.maker, Set: v.lastOf(key, k)}
		}
	}
	return v.refused.FileOf(have)
}
