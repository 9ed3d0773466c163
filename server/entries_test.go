package server_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/api"
)

const hinted = `
apiVersion: signet.example/v1alpha1
kind: Entry
metadata: {name: NAME}
spec: {group: front, spiffeID: "spiffe://test.example/NAME", selectors: ["unix:uid:1000"], hint: HINT}
`

func hintedEntry(name, hint string) string {
	return strings.NewReplacer("NAME", name, "HINT", hint).Replace(hinted)
}

// TestAnEntryKeepsItsPlaceAndAHintIsOneEntrysOfAProcess: the place is what its agents
// are told, by which the oldest stays the default.
func TestAnEntryKeepsItsPlaceAndAHintIsOneEntrysOfAProcess(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	r.apply(hintedEntry("web", "internal"))
	resp := r.apply(hintedEntry("a-new-one", "internal"))
	if text := strings.Join(resp.GetWarnings(), "\n"); !strings.Contains(text, `entries a-new-one and web of group front have the hint "internal"`) {
		t.Errorf("warnings: %s", text)
	}
	resp = r.apply(hintedEntry("web", "external")) // it is the older one still
	if text := strings.Join(resp.GetWarnings(), "\n"); strings.Contains(text, "have the hint") {
		t.Errorf("warnings: %s", text)
	}
	told := func(f *follower) (web, other *api.Entry) {
		web, other = &api.Entry{}, &api.Entry{}
		f.await("both entries", func(s *ads.Set, _ *api.View) bool {
			w, o := s.Get(ads.EntryType, "web"), s.Get(ads.EntryType, "a-new-one")
			return w != nil && o != nil && proto.Unmarshal(w.Body, web) == nil && proto.Unmarshal(o.Body, other) == nil
		})
		return web, other
	}
	check := func(when string) {
		t.Helper()
		f := r.join("front").followOwn()
		web, other := told(f)
		if web.GetSince() == 0 || web.GetSince() >= other.GetSince() || web.GetHint() != "external" || other.GetHint() != "internal" {
			t.Errorf("%s: web %v, the new one %v", when, web, other)
		}
	}
	check("served as it was applied")
	r.halt()
	r.start()
	check("read from the store")
}
