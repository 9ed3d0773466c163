package invariants

import (
	"slices"

	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"signet.example/ads"
)

// Expressions are the regular expressions of a set's resources, each once, in order: no
// name of a mesh may stand in one.
func Expressions(s *ads.Set) []string {
	var list []string
	see := func(v visited) {
		switch m := v.m.(type) {
		case *matcherv3.RegexMatcher:
			list = append(list, m.GetRegex())
		case *xdsmatcherv3.RegexMatcher:
			list = append(list, m.GetRegex())
		}
	}
	for _, t := range []string{ads.ListenerType, ads.RouteType, ads.ClusterType} {
		for _, r := range s.Type(t) {
			m, err := Decode(r)
			if err != nil {
				list = append(list, err.Error())
				continue
			}
			walk(m, see, func(path, typeURL string) { list = append(list, path+": "+typeURL) })
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
