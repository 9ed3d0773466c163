// Package resourcestest makes, for tests, the resources that a server tells an agent.
package resourcestest

import (
	"testing"

	"signet.example/ads"
	"signet.example/api"
)

// Set is a set of these entries and bindings.
func Set(t testing.TB, entries ...*api.Entry) *ads.Set {
	t.Helper()
	var rs []*ads.Resource
	for _, e := range entries {
		r, err := ads.NewResource(ads.EntryType, e.GetName(), e)
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, r)
	}
	set, err := ads.NewSet(rs...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}
