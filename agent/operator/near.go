package operator

import (
	"cmp"
	"slices"
	"strings"

	"signet.example/agent/local"
	"signet.example/agent/resources"
	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/proxy"
)

// noRef selects nothing among what a peer is bound to.
var noRef = proxy.Ref{}

// bindings' resources have it before their names, so that no Entry has the name of one.
const ofBinding = "binding/"

func bindingName(resource string) string { return strings.TrimPrefix(resource, ofBinding) }

func resourceName(name string, binding bool) string {
	if binding {
		return ofBinding + name
	}
	return name
}

// near are the entries and bindings that do not fit, those first of which the least is missing,
// and how many there are with those that fit.
func near(state *resources.Snapshot, has identity.Selectors) (list []local.Near, known int) {
	add := func(name string, binding bool, wanted identity.Selectors) {
		n := local.Near{Object: objectOf(state, name, binding)}
		for _, w := range wanted {
			if slices.Contains(has, w) {
				n.Fit++
			} else {
				n.Differs = append(n.Differs, local.Differs{Wants: w.String(), Has: sameForm(has, w)})
			}
		}
		if n.Differs != nil {
			list = append(list, n)
		}
	}
	for _, e := range state.Entries {
		add(e.Name, false, e.Selectors)
	}
	for _, b := range state.Bindings {
		add(b.Name, true, b.Selectors)
	}
	slices.SortFunc(list, func(a, b local.Near) int {
		return cmp.Or(len(a.Differs)-len(b.Differs), b.Fit-a.Fit, alike(b)-alike(a), strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name))
	})
	return list[:min(len(list), mostNear)], len(state.Entries) + len(state.Bindings)
}

// alike is how many of those that are missing the process has with another value.
func alike(n local.Near) int {
	count := 0
	for _, d := range n.Differs {
		if len(d.Has) > 0 {
			count++
		}
	}
	return count
}

// sameForm are the selectors that stand in the place of one: those of its form, and of one with
// a key, as a label, those of the same key where there are some.
func sameForm(has identity.Selectors, wanted identity.Selector) []string {
	form := attestation.FormOf(wanted)
	if form == "" {
		return nil
	}
	var list, keyed []string
	key := form + ":"
	if k, _, ok := strings.Cut(strings.TrimPrefix(wanted.String(), key), ":"); ok && form != "unix:path" {
		key += k + ":"
	}
	for _, s := range has {
		text := s.String()
		if strings.HasPrefix(text, form+":") {
			list = append(list, text)
		}
		if strings.HasPrefix(text, key) {
			keyed = append(keyed, text)
		}
	}
	if keyed != nil {
		list = keyed
	}
	return list[:min(len(list), mostHas)]
}
