package views

import (
	"fmt"
	"slices"

	"signet.example/ads"
	"signet.example/proxy"
	"signet.example/xds/effect"
)

// Effects are what a change from now to next does. What is not foretold of requests, since
// it would take too long or has what cannot be predicted, is counted by the virtual hosts
// that were left out. Without requests none is looked at.
func (v *Views) Effects(now, next Model, requests bool) (list []effect.Effect, leftOut int, err error) {
	before := v.source.Look().nodeInputs()
	after := before.with(now, next)
	before.model = now
	changed := after.affected(before)
	refs := changed.in(next.Graph())
	for _, at := range changed.in(now.Graph()) {
		if next.Graph().Node(at) == nil {
			refs = append(refs, at)
		}
	}
	slices.SortFunc(refs, proxy.Ref.Compare)
	c := effect.New(anyShape.Bind, requests)
	was, is := v.translate(before), v.translate(after)
	for _, at := range refs {
		key := Key{at, anyShapeOf(at)}
		var old, made *ads.Set
		if now.Graph().Node(at) != nil {
			old, _ = was.set(key) // what cannot be translated is served to nobody: nothing
		}
		if next.Graph().Node(at) != nil {
			if made, err = is.set(key); err != nil {
				return nil, 0, fmt.Errorf("translate %s: %w", at, err)
			}
		}
		of, err := c.Of(at, old, made)
		if err != nil {
			return nil, 0, err
		}
		if was, is := now.Graph().Node(at), next.Graph().Node(at); was != nil && is != nil && was.Observed != is.Observed {
			of.Authorization = is.Authorization()
		}
		if of.Some() {
			list = append(list, of)
		}
		delete(was.nodes, at) // a translation is asked for each once
		delete(is.nodes, at)
	}
	return list, c.LeftOut(), nil
}
