package model

import (
	"slices"

	"signet.example/ads"
	"signet.example/server/groups"
)

// New is a model of objects without their rows.
var New = newModel

// Patched is the model at the price of what changes, nil if anything is wrong.
var Patched = (*Model).patched

type settled struct {
	Model
	granted map[string][]*ads.Resource
}

// Settled is a model to be compared with another one, with what is granted to each group
// beside it. What does not go together, which was compared already, is left out: its order
// in a group is that in which it came about.
func Settled(m *Model) any {
	s := settled{Model: *m, granted: map[string][]*ads.Resource{}}
	for name := range m.groups.Granted.All() {
		_, resources := m.groups.Granted.Of(name)
		s.granted[name] = slices.Collect(resources)
	}
	s.groups.Granted = groups.Granted{}
	return s
}
