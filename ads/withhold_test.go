package ads_test

import (
	"slices"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"signet.example/ads"
)

// routesTo are routes of a name that name clusters.
func routesTo(t *testing.T, name string, clusters ...string) *ads.Resource {
	t.Helper()
	rc := &routev3.RouteConfiguration{Name: name}
	for _, c := range clusters {
		rc.VirtualHosts = append(rc.VirtualHosts, &routev3.VirtualHost{Name: c, Routes: []*routev3.Route{{
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: c}}},
		}}})
	}
	r, err := ads.NewResource(rds, name, rc)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func setOf(t *testing.T, rs ...*ads.Resource) *ads.Set {
	t.Helper()
	s, err := ads.NewSet(rs...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhatIsWithheldIsAsItWasWithWhatThatNeeds(t *testing.T) {
	old, oldEDS := edsCluster(t, "old", "1"), res(t, eds, "old", "1")
	next, nextEDS := edsCluster(t, "next", "1"), res(t, eds, "next", "1")
	other := res(t, cds, "other", "2")
	last := setOf(t, old, oldEDS, res(t, cds, "other", "1"), res(t, cds, "gone", "1"), routesTo(t, "r", "old"), routesTo(t, "s", "other"))
	made := setOf(t, next, nextEDS, other, routesTo(t, "r", "next"), routesTo(t, "s", "other", "next"), routesTo(t, "new", "next"))
	only := func(typeURL, name string) func(*ads.Resource) bool {
		bad := made.Get(typeURL, name)
		return func(r *ads.Resource) bool { return r.Type == typeURL && r.Name == name && r.Version == bad.Version }
	}
	check := func(what string, got *ads.Set, want ...*ads.Resource) {
		t.Helper()
		if w := setOf(t, want...); w.Version() != got.Version() {
			for _, typeURL := range got.Types() {
				for _, r := range got.Type(typeURL) {
					if i := slices.IndexFunc(want, func(w *ads.Resource) bool { return w.Type == r.Type && w.Name == r.Name && w.Version == r.Version }); i < 0 {
						t.Errorf("%s: it has %s %s", what, typeURL, r.Name)
					}
				}
			}
			t.Errorf("%s: %d resources, want %d", what, got.Len(), w.Len())
		}
	}
	none := func(*ads.Resource) bool { return false }
	check("nothing", made.Withhold(none, last), made.Get(cds, "next"), nextEDS, other, made.Get(rds, "r"), made.Get(rds, "s"), made.Get(rds, "new"))
	check("routes", made.Withhold(only(rds, "r"), last),
		next, nextEDS, other, old, oldEDS, last.Get(rds, "r"), made.Get(rds, "s"), made.Get(rds, "new"))
	check("a cluster that was", made.Withhold(only(cds, "other"), last),
		next, nextEDS, last.Get(cds, "other"), made.Get(rds, "r"), made.Get(rds, "s"), made.Get(rds, "new"))
	check("a new cluster", made.Withhold(only(cds, "next"), last), // and the routes that need it
		nextEDS, other, old, oldEDS, last.Get(rds, "r"), last.Get(rds, "s"), made.Get(rds, "new"))
	check("without a better one", made.Withhold(only(rds, "r"), nil),
		next, nextEDS, other, made.Get(rds, "s"), made.Get(rds, "new"))
}
