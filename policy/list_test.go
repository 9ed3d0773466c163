package policy_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/policy"
)

func TestAHeaderHasOneElementForEachValueHoweverItWasWritten(t *testing.T) {
	for name, tc := range map[string]struct {
		header      string
		lines, want []string
	}{
		"one line":                      {"x-role", []string{"user,admin"}, []string{"user", "admin"}},
		"two lines":                     {"x-role", []string{"user", "admin"}, []string{"user", "admin"}},
		"both":                          {"x-role", []string{"user , admin", "root"}, []string{"user", "admin", "root"}},
		"nothing between":               {"x-role", []string{",user,, \t,admin,"}, []string{"user", "admin"}},
		"nothing at all":                {"x-role", []string{" , "}, []string{""}},
		"an empty line":                 {"x-role", []string{""}, []string{""}},
		"a quoted string":               {"x-role", []string{`"user,admin", b`}, []string{`"user,admin"`, "b"}},
		"a quoted parameter":            {"accept", []string{`a/b;x="1,2", c/d`}, []string{`a/b;x="1,2"`, "c/d"}},
		"an escaped quote":              {"x-role", []string{`"a\",b", admin`}, []string{`"a\",b"`, "admin"}},
		"a quote in the midst":          {"x-role", []string{`us"er,admin"`}, []string{`us"er`, `admin"`}},
		"a quote that does not end":     {"x-role", []string{`"user,admin`}, []string{`"user`, "admin"}},
		"an escape that does not end":   {"x-role", []string{`"user,admin\`}, []string{`"user`, `admin\`}},
		"a date":                        {"date", []string{"Sat, 28 Nov 2026 12:00:00 GMT"}, []string{"Sat, 28 Nov 2026 12:00:00 GMT"}},
		"a cookie":                      {"cookie", []string{"a=1,2"}, []string{"a=1,2"}},
		"a user agent":                  {"user-agent", []string{"x (KHTML, like Gecko)"}, []string{"x (KHTML, like Gecko)"}},
		"credentials":                   {"authorization", []string{`Digest a="b", c="d"`}, []string{`Digest a="b", c="d"`}},
		"what is known to be no list":   {"if-modified-since", []string{"Sat, 28 Nov 2026 12:00:00 GMT"}, []string{"Sat, 28 Nov 2026 12:00:00 GMT"}},
		"a list that has one value":     {"x-role", []string{"admin"}, []string{"admin"}},
		"X-Forwarded-For, as it should": {"x-forwarded-for", []string{"1.2.3.4, 5.6.7.8"}, []string{"1.2.3.4", "5.6.7.8"}},
	} {
		t.Run(name, func(t *testing.T) {
			in := call("GET", "/", web)
			in.Request.Headers = map[string][]string{tc.header: tc.lines, "x-other": {"a", "b"}}
			headers, lines := policy.HeadersOf(in)
			if diff := cmp.Diff(map[string][]string{tc.header: tc.want, "x-other": {"a", "b"}}, headers); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(in.Request.Headers, lines); diff != "" {
				t.Errorf("header_lines (-want +got):\n%s", diff)
			}
		})
	}
}

func TestADenyRuleSeesAValueInOneLineAsInTwo(t *testing.T) {
	c := compile(t, "package signet.authz\nallow contains \"all\"\ndeny contains \"admins\" if input.request.headers[\"x-role\"][_] == \"admin\"")
	for _, lines := range [][]string{{"user,admin"}, {"user", "admin"}, {"user, admin"}, {`"user,admin`}} {
		in := call("GET", "/", web)
		in.Request.Headers = map[string][]string{"x-role": lines}
		if d, err := c.Evaluate(t.Context(), in); err != nil || d.Allowed {
			t.Errorf("%q: %+v %v", lines, d, err)
		}
	}
}

func FuzzSplitList(f *testing.F) {
	f.Add(`user, "a,b";x="c,d", admin`)
	f.Add(`"user,admin`)
	f.Fuzz(func(t *testing.T, line string) {
		in := call("GET", "/", web)
		in.Request.Headers = map[string][]string{"x-role": {line, "last"}}
		headers, _ := policy.HeadersOf(in)
		got := headers["x-role"]
		if len(got) == 0 || got[len(got)-1] != "last" {
			t.Errorf("%q: %q", line, got)
		}
	})
}
