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

func TestSelectorsThatNoWorkloadCanHaveAreRefused(t *testing.T) {
	hash := strings.Repeat("a", 64)
	for _, good := range []string{"unix:uid:0", "unix:uid:4294967295", "unix:gid:1", "unix:path:/usr/bin/web", "unix:path:/a b", "unix:sha256:" + hash, "signet:proxy:web-1"} {
		if err := parseSelector(t, good).CheckWorkload(); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"unix:uid:-1", "unix:uid:007", "unix:uid:+1", "unix:uid:root", "unix:uid:4294967296", "unix:uid:", "unix:uid",
		"unix:path:web", "unix:path:./web", "unix:path:/a/../b", "unix:path:/a/", "unix:path://a", "unix:path:/",
		"unix:sha256:" + hash[1:], "unix:sha256:" + strings.ToUpper(hash), "unix:sha256:" + hash[1:] + "g",
		"unix:user:web", "unix:pid:1", "docker:label:a:b", "signet:agent:a", "signet:proxy:a/b", "signet:proxy:..",
	} {
		if err := parseSelector(t, bad).CheckWorkload(); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func parseSelector(t *testing.T, s string) identity.Selector {
	t.Helper()
	sel, err := identity.ParseSelector(s)
	if err != nil {
		typ, value, _ := strings.Cut(s, ":")
		return identity.Selector{Type: typ, Value: value} // CheckWorkload stands alone
	}
	return sel
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
		_ = sel.CheckWorkload()
	})
}
