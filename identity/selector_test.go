package identity_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/identity"
)

func TestSelectorIsReadBackFromItsText(t *testing.T) {
	for text, want := range map[string]identity.Selector{
		"unix:uid:1000":           {Type: "unix", Value: "uid:1000"},
		"unix:path:/usr/bin/a b":  {Type: "unix", Value: "path:/usr/bin/a b"},
		"k8s:pod-label:app:x:y":   {Type: "k8s", Value: "pod-label:app:x:y"},
		"signet:proxy:web-1":      {Type: "signet", Value: "proxy:web-1"},
		"aws_iid:tag:env:Prod*.?": {Type: "aws_iid", Value: "tag:env:Prod*.?"},
	} {
		got, err := identity.ParseSelector(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

func TestTextThatIsNoSelectorIsRefused(t *testing.T) {
	for _, bad := range []string{"", "unix", "unix:", ":uid:1", "Unix:uid:1", "un ix:uid:1", "unix:uid:1\n", "unix:path:/a\x00", "unix:path:/a\u2028b", "unix:path:/\u202e", "unix:path:/\xff", "unix:path:/" + strings.Repeat("a", 5000)} {
		if got, err := identity.ParseSelector(bad); err == nil {
			t.Errorf("%q gave %v", bad, got)
		}
	}
}

func selectors(t *testing.T, s ...string) identity.Selectors {
	t.Helper()
	out, err := identity.ParseSelectors(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestContainsIsEqualityAndNeverAPattern(t *testing.T) {
	has := selectors(t, "unix:uid:1000", "unix:path:/usr/bin/a.b")
	for want, sels := range map[bool][][]string{
		true:  {{}, {"unix:uid:1000"}, {"unix:path:/usr/bin/a.b", "unix:uid:1000"}},
		false: {{"unix:uid:100"}, {"unix:uid:1000", "unix:gid:1"}, {"unix:path:/usr/bin/aXb"}, {"unix:path:/usr/bin/*"}, {"unix:path:/usr/bin/A.b"}},
	} {
		for _, s := range sels {
			if got := has.Contains(selectors(t, s...)); got != want {
				t.Errorf("%v: %v", s, got)
			}
		}
	}
	if diff := cmp.Diff([]string{"unix:uid:1000", "unix:path:/usr/bin/a.b"}, has.Strings()); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseSelector(f *testing.F) {
	f.Add("unix:path:/usr/bin/web")
	f.Add("unix:uid:1:2")
	f.Fuzz(func(t *testing.T, s string) {
		sel, err := identity.ParseSelector(s)
		if err != nil {
			return
		}
		if sel.String() != s || strings.ContainsAny(s, "\n\r\x00\x1b") {
			t.Errorf("%q was taken as %q", s, sel)
		}
	})
}
