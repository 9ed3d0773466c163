package ads_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/ads"
)

func mustSet(t testing.TB, rs ...*ads.Resource) *ads.Set {
	t.Helper()
	s, err := ads.NewSet(rs...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEqualContentHasEqualVersion(t *testing.T) {
	m := map[string]any{}
	for _, n := range names("k", 50) {
		m[n] = n
	}
	s, err := structpb.NewStruct(m)
	if err != nil {
		t.Fatal(err)
	}
	first, err := ads.NewResource(cds, "a", s)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // map order differs each time
		again, err := ads.NewResource(cds, "a", s)
		if err != nil {
			t.Fatal(err)
		}
		if again.Version != first.Version || len(first.Version) != 16 {
			t.Fatalf("versions %q and %q", again.Version, first.Version)
		}
	}
}

func TestSaltChangesTheVersionAlone(t *testing.T) {
	r := res(t, eds, "a", "1")
	x, y := r.Salted("x"), r.Salted("y")
	if x.Version == r.Version || x.Version == y.Version || x.Version != r.Salted("x").Version {
		t.Errorf("versions %q, %q, %q", r.Version, x.Version, y.Version)
	}
	if diff := cmp.Diff(r.Body, x.Body); diff != "" || x.Name != r.Name || x.Type != r.Type {
		t.Errorf("the salted resource differs: %s", diff)
	}
}

func TestSetRefusesANameTwice(t *testing.T) {
	if _, err := ads.NewSet(res(t, cds, "a", "1"), res(t, eds, "a", "1"), res(t, cds, "a", "2")); err == nil {
		t.Error("no error")
	}
	s := mustSet(t, res(t, cds, "a", "1"))
	if _, err := s.Merge(mustSet(t, res(t, cds, "a", "1"))); err == nil {
		t.Error("Merge: no error")
	}
}

func TestSetVersionsFollowTheContent(t *testing.T) {
	a, b, e := res(t, cds, "a", "1"), res(t, cds, "b", "1"), res(t, eds, "a", "1")
	s := mustSet(t, b, e, a)
	if s.Version() != mustSet(t, a, b, e).Version() {
		t.Error("order matters")
	}
	changed := mustSet(t, res(t, cds, "a", "2"), b, e)
	if s.Version() == changed.Version() || s.TypeVersion(cds) == changed.TypeVersion(cds) || s.TypeVersion(eds) != changed.TypeVersion(eds) {
		t.Error("versions do not follow the change")
	}
	less := s.Without(cds)
	if less.Len() != 1 || less.Get(cds, "a") != nil || less.TypeVersion(cds) != new(ads.Set).TypeVersion(cds) {
		t.Error("Without left something")
	}
	merged, err := less.Merge(mustSet(t, a, b))
	if err != nil {
		t.Fatal(err)
	}
	if merged.Version() != s.Version() || merged.Len() != 3 {
		t.Error("Without and Merge do not give the set again")
	}
	var got []string
	for _, r := range s.Type(cds) {
		got = append(got, r.Name)
	}
	if diff := cmp.Diff([]string{"a", "b"}, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{cds, eds}, s.Types()); diff != "" {
		t.Error(diff)
	}
}

func TestEmptySetsAreUsable(t *testing.T) {
	var none *ads.Set
	empty := mustSet(t)
	if none.Version() != new(ads.Set).Version() || none.Len() != 0 || none.Get(cds, "a") != nil || none.Types() != nil {
		t.Error("nil is not an empty set")
	}
	if empty.Len() != 0 || empty.Without(cds).Len() != 0 {
		t.Error("an empty set has something")
	}
}

func TestPublishSharesWhatDidNotChange(t *testing.T) {
	v := ads.NewView("v", ads.Proxy)
	v.Publish(mustSet(t, res(t, cds, "a", "1"), res(t, cds, "b", "1"), res(t, eds, "a", "1")))
	before := v.Set()
	v.Publish(mustSet(t, res(t, cds, "a", "2"), res(t, cds, "b", "1"), res(t, eds, "a", "1")))
	after := v.Set()
	if !ads.SharesBodies(before, after, cds, "b") || !ads.SharesBodies(before, after, eds, "a") || ads.SharesBodies(before, after, cds, "a") {
		t.Error("resources are not shared as they should be")
	}
}

func TestNewResourceRefusesWhatCannotTravel(t *testing.T) {
	for _, name := range []string{"", "\xff", string(make([]byte, 3000))} {
		if _, err := ads.NewResource(cds, name, structpb.NewBoolValue(true)); err == nil {
			t.Errorf("no error for a name of %d bytes", len(name))
		}
	}
}
