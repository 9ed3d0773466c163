package server

import (
	"fmt"
	"maps"
	"slices"

	"signet.example/identity"
	"signet.example/server/groups"
	"signet.example/server/kinds"
)

// modelWarning is about what is allowed and probably not meant.
type modelWarning struct {
	text string
	of   []kinds.Key // whose it is
}

// warningsOf are those of a change: what was so before is not news, unless the
// change names it again. Only what the change leads to is looked at.
func warningsOf(before, after *model, named ...kinds.Key) []string {
	changed := map[kinds.Key]bool{}
	for _, k := range named {
		changed[k] = true
	}
	for k := range after.objects.Differ(before.objects) {
		changed[k] = true
	}
	led := map[string]bool{}
	for k := range changed {
		for _, m := range []*model{before, after} {
			if name, ok := hangsOn(m.objects.Get(k)); ok {
				led[name] = true
			}
		}
	}
	keys := slices.SortedFunc(maps.Keys(changed), kinds.Key.Compare)
	known := map[string]bool{}
	for _, w := range before.warnings(before.groups.Granted.Named(led), keys) {
		known[w.text] = true
	}
	var list []string
	for _, w := range after.warnings(after.groups.Granted.Named(led), keys) {
		if !known[w.text] || slices.ContainsFunc(w.of, func(k kinds.Key) bool { return slices.Contains(named, k) }) {
			list = append(list, w.text)
		}
	}
	return list
}

// hangsOn is the group of an Entry or a Binding.
func hangsOn(o *kinds.Object) (group string, ok bool) {
	if o == nil {
		return "", false
	}
	switch v := o.Value.(type) {
	case identity.Entry:
		return v.Group, true
	case identity.Binding:
		return v.Group, true
	}
	return "", false
}

// warnings are those of some groups and objects, and of the whole.
func (m *model) warnings(in groups.Some, keys []kinds.Key) []modelWarning {
	var list []modelWarning
	binding := func(b identity.Binding) kinds.Key { return kinds.Key{Kind: kinds.Binding, Name: b.Name} }
	for _, o := range groups.Overlaps(in) {
		list = append(list, modelWarning{o.String(), []kinds.Key{binding(o.First), binding(o.Second)}})
	}
	for _, t := range groups.SameHints(in) {
		list = append(list, modelWarning{t.String(), []kinds.Key{{Kind: kinds.Entry, Name: t.First.Name}, {Kind: kinds.Entry, Name: t.Second.Name}}})
	}
	for _, name := range groups.Unlisted(in) {
		list = append(list, modelWarning{fmt.Sprintf("group %s has more bindings that overlap, or entries of one hint that one process can fit, than the %d pairs that are listed", name, groups.MostPairs), nil})
	}
	for _, k := range keys {
		o := m.objects.Get(k)
		if o == nil {
			continue
		}
		if b, ok := o.Value.(identity.Binding); ok && b.Applications.Anyone {
			list = append(list, modelWarning{
				fmt.Sprintf("binding %s lets every process of its proxy's host call out as %s (applications: anyone)", b.Name, b.VirtualNode),
				[]kinds.Key{binding(b)},
			})
		}
	}
	if meshes := m.graph.Meshes(); len(m.sources) == 0 && len(meshes) > 0 {
		var keys []kinds.Key
		for _, name := range meshes {
			keys = append(keys, kinds.Mesh(name))
		}
		list = append(list, modelWarning{"there is no PolicySource: every call between services is denied until one is applied", keys})
	}
	return list
}
