package predict_test

import (
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"signet.example/xds/predict"
)

func routes(t *testing.T, json string) *routev3.RouteConfiguration {
	t.Helper()
	rc := &routev3.RouteConfiguration{}
	if err := protojson.Unmarshal([]byte(`{"virtualHosts": [{"name": "shop", "domains": ["shop.internal"], "routes": [`+json+`]}]}`), rc); err != nil {
		t.Fatal(err)
	}
	return rc
}

// A route is alone, so that whatever its match takes is taken.
func TestOfEachRouteARequestIsMadeThatItTakesAndOneForEachConditionThatItDoesNot(t *testing.T) {
	for match, misses := range map[string]int{
		`"prefix": "/"`:      0,
		`"prefix": "/users"`: 1,
		`"path": "/x"`:       1,
		`"safeRegex": {"regex": "/users/[0-9]+(?:/orders)?"}`:                                                                        1,
		`"safeRegex": {"regex": "/(?:a|b){2,5}/\\w+\\.html"}`:                                                                        1,
		`"prefix": "/", "headers": [{"name": ":method", "stringMatch": {"exact": "DELETE"}}]`:                                        1,
		`"prefix": "/", "headers": [{"name": ":method", "stringMatch": {"safeRegex": {"regex": "GET|PUT"}}}]`:                        1,
		`"prefix": "/", "headers": [{"name": "x-age", "rangeMatch": {"start": "-3", "end": "18"}}]`:                                  2,
		`"prefix": "/", "headers": [{"name": "x-v", "stringMatch": {"safeRegex": {"regex": "v[0-9]+"}}, "invertMatch": true}]`:       2,
		`"prefix": "/", "headers": [{"name": "x-v", "presentMatch": true, "invertMatch": true}]`:                                     1,
		`"prefix": "/", "headers": [{"name": "x-v", "presentMatch": true}]`:                                                          1,
		`"prefix": "/q", "queryParameters": [{"name": "v", "stringMatch": {"exact": "2"}}, {"name": "debug", "presentMatch": true}]`: 3,
		`"prefix": "/", "grpc": {}`: 1,
		`"prefix": "/v/", "headers": [{"name": ":path", "stringMatch": {"safeRegex": {"regex": "/v/[0-9]+(?:\\?.*)?"}}}]`:   1,
		`"prefix": "/", "headers": [{"name": ":authority", "stringMatch": {"suffix": ".example.com", "ignoreCase": true}}]`: 1,
	} {
		rc := routes(t, `{"name": "r", "match": {`+match+`}, "route": {"cluster": "c"}}`)
		took, missed := 0, 0
		requests := predict.RequestsOf(rc.GetVirtualHosts()[0])
		for _, r := range requests {
			if r.Authority != "shop.internal" {
				rc.VirtualHosts[0].Domains = []string{"*"}
			}
			out, err := predict.Of(rc, r)
			if err != nil {
				t.Fatal(err)
			}
			if out.Route != nil {
				took++
			} else {
				missed++
			}
		}
		if took == 0 || missed < misses {
			t.Errorf("%s: %d taken, %d not, of %v", match, took, missed, requests)
		}
	}
}

func TestNoRequestIsMadeUpThatIsWrittenAnewBeforeItIsRouted(t *testing.T) {
	for _, match := range []string{`"prefix": "/a//b"`, `"path": "/a%20b"`, `"safeRegex": {"regex": "no/slash"}`, `"path": "/a/../b"`, `"safeRegex": {"regex": "(?:x{200}){200}"}`, `"safeRegex": {"regex": "/\\C"}`} {
		rc := routes(t, `{"name": "r", "match": {`+match+`}, "route": {"cluster": "c"}}`)
		for _, r := range predict.RequestsOf(rc.GetVirtualHosts()[0]) {
			if strings.Contains(r.Path, "//") || strings.Contains(r.Path, "%") || strings.Contains(r.Path, "..") || !strings.HasPrefix(r.Path, "/") {
				t.Errorf("%s: %s", match, r)
			}
		}
	}
}

func TestWhatChangesOfARequestIsToldWithTheRouteThatIsTheReason(t *testing.T) {
	const all = `{"name": "all", "match": {"prefix": "/"}, "route": {"cluster": "c1"}}`
	const users = `{"name": "users", "match": {"prefix": "/users"}, "route": {"cluster": "c2"}}`
	for _, row := range []struct{ before, after, request, why string }{
		{all, users + "," + all, "/users", "route users is new"},
		{users + "," + all, all, "/users", "route users is gone"},
		{all, strings.Replace(all, "c1", "c3", 1), "/", "route all does another thing: where it leads"},
		{all, strings.Replace(all, `"c1"`, `"c1", "timeout": "3s"`, 1), "/", "route all does another thing: its time-outs"},
		{all, users, "/", "route all is gone"},
		{users + "," + all, strings.Replace(users, "/users", "/u", 1) + "," + all, "/u", "route users takes it, which did not: the path does not begin with /users"},
		{users + "," + all, all + "," + users, "/users", "route all stands before users"},
		{all, strings.Replace(all, "all", "other", 1), "/", ""}, // it ends as before
	} {
		d, differs, err := predict.Compare(routes(t, row.before), routes(t, row.after), predict.Request{Method: "GET", Scheme: "http", Authority: "shop.internal", Path: row.request})
		if err != nil {
			t.Fatal(err)
		}
		if differs != (row.why != "") || !strings.Contains(d.Why, row.why) {
			t.Errorf("%s: %t, %q, want %q", row.request, differs, d.Why, row.why)
		}
	}
	one, none := routes(t, all), (*routev3.RouteConfiguration)(nil)
	for _, d := range []struct {
		before, after *routev3.RouteConfiguration
		why           string
	}{{none, one, "its host is new"}, {one, none, "its host is gone"}} {
		pairs := predict.Changed(d.before, d.after)
		if len(pairs) != 1 || len(pairs[0].Requests()) == 0 {
			t.Fatalf("%v", pairs)
		}
		got, differs, err := predict.Compare(d.before, d.after, pairs[0].Requests()[0])
		if err != nil || !differs || got.Why != d.why {
			t.Errorf("%t %q, %v, want %q", differs, got.Why, err, d.why)
		}
	}
}

func TestHostsThatDidNotChangeAreNotLookedAt(t *testing.T) {
	const all = `{"name": "all", "match": {"prefix": "/"}, "route": {"cluster": "c1"}}`
	if pairs := predict.Changed(routes(t, all), routes(t, all)); len(pairs) != 0 {
		t.Errorf("%v", pairs)
	}
	pairs := predict.Changed(routes(t, all), routes(t, all+","+all))
	if len(pairs) != 1 || !slices.Equal([]string{pairs[0].Before.GetName(), pairs[0].After.GetName()}, []string{"shop", "shop"}) {
		t.Errorf("%v", pairs)
	}
}
