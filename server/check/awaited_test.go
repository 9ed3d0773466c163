package check

import (
	"strings"
	"testing"

	"signet.example/api"
	"signet.example/proxy"
)

// TestABindingIsSaidNotToCountUntilAnApplicationPassesItsCheck is what a name may be changed by: a proxy that
// is READY does not end the wait, for its application may have started after it.
func TestABindingIsSaidNotToCountUntilAnApplicationPassesItsCheck(t *testing.T) {
	for name, c := range map[string]struct {
		proxies []*api.ProxyStatus
		want    []string // of each finding, in order
	}{
		"no proxy":                           {nil, []string{"SIG045 none of its proxies has been ready"}},
		"a proxy whose application fails":    {[]*api.ProxyStatus{ill()}, []string{"SIG043 callers go on by its service discovery", "SIG045 no application behind a proxy of it has passed"}},
		"another whose application does not": {[]*api.ProxyStatus{ill(), well()}, []string{"SIG043 callers go elsewhere"}},
		"one whose application does not":     {[]*api.ProxyStatus{well()}, nil},
	} {
		l := sound(t)
		l.Agents[0].Report.Proxies = c.proxies
		l.Endpoints, l.Awaited = registered(t, c.proxies...), l.Awaited.With(proxy.Node("shop", "web"))
		list := Findings(l)
		if len(list) != len(c.want) {
			t.Errorf("%s: it finds %v, want %v", name, list, c.want)
			continue
		}
		for i, want := range c.want {
			id, text, _ := strings.Cut(want, " ")
			if f := list[i]; f.GetId() != id || f.GetSeverity() != sevWarning || !strings.Contains(f.GetCause(), text) {
				t.Errorf("%s: it finds %v, want a warning %s", name, f, want)
			}
		}
	}
}
