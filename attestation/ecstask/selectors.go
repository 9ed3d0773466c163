package ecstask

import (
	"maps"
	"slices"

	"signet.example/identity"
)

// Selectors are those of the task; container and labels are those of the container in which this
// process runs, whoever asks.
func (t Task) Selectors() identity.Selectors {
	if !t.Known() {
		return nil
	}
	var sels identity.Selectors
	add := func(key, value string) { sels = append(sels, selector(key, value)) }
	add("cluster", t.Cluster)
	add("family", t.Family)
	add("revision", t.Revision)
	add("container", t.Container)
	for _, key := range slices.Sorted(maps.Keys(t.Labels)) {
		add("label", key+":"+t.Labels[key])
	}
	return sels
}

func selector(key, value string) identity.Selector {
	return identity.Selector{Type: "ecs", Value: key + ":" + value}
}
