package xds

import (
	"regexp"
	"testing"

	"signet.example/mesh"
)

func TestAnExpressionBehindAPrefixIsFoundOrRefused(t *testing.T) {
	paths := []string{"/", "/v1/", "/v1/7", "/v1/x", "/v2/7", "/v1", "/users", "/users/7", "/a", "/b", "/v1/7/", "//", "/V1/7", "/.png"}
	for expression, found := range map[string]map[string]bool{
		"/v1/[0-9]+":              {"/": true, "/v1/": true, "/v1/7": false, "/v2/": false},
		"/v1/(?:7|x)/?":           {"/": true, "/v1/": true},
		"/(?:v1|v2)/[0-9]+":       {"/": true, "/v1/": false},
		"/users|/users/[0-9]+":    {"/": true, "/users": true},
		"(?:/a|/b)":               {"/": true},
		"(/v1)/.*":                {"/": true, "/v1/": false},
		"/.*":                     {"/": true, "/v1/": false},
		".*":                      {"/": false},
		"[/]v1":                   {"/": true},
		"/?v1":                    {"/": false},
		"(?i)/v1/.*":              {"/v1/": false},
		"/v1/7|/v2/7":             {"/": true},
		"^/v1/[0-9]+$":            {"/": false},
		"/+a":                     {"/": false},
		`/\.png`:                  {"/": true},
		"/v1/[0-9]{1,3}(?:/[a]?)": {"/v1/": true},
	} {
		whole := regexp.MustCompile("^(?:" + expression + ")$")
		for text, want := range found {
			rest, ok := behind(expression, text)
			if ok != want {
				t.Errorf("%s behind %s: %t", expression, text, ok)
			}
			if !ok {
				continue
			}
			again := regexp.MustCompile("^" + regexp.QuoteMeta(text) + rest + "$")
			for _, p := range paths {
				if whole.MatchString(p) != again.MatchString(p) {
					t.Errorf("%s behind %s is %s: they differ on %s", expression, text, rest, p)
				}
			}
		}
	}
}

func TestAnExpressionOfAPathTakesNothingOfAQuery(t *testing.T) {
	paths := []string{"/", "/img/x.png", "/img/secret", "/img", "/IMG/a.png", "/a.b", "/users/7", "/users/7/", "//"}
	queries := []string{"?", "?x=.png", "?/img/x.png", "?7", "?=?.png", "??"}
	for _, expression := range []string{
		`/img/.*\.png`, `.*`, `/[a-z]+`, `/[^x]*`, `/\S+`, `/img/x[.?]png`, `/img\?x`, `/img(?:\?.*)?`, `/img/.*\.png$`, `^/users/\d+$`,
		`(?i)/img/.*`, `(?s)/.+`, `/(?:img|users)/.{1,9}`, `/\W?.*\bsecret`, `/[[:print:]]+7`, `/a$b`, `(?m)/img$`, `/users/(.)/?`, `[?]`,
	} {
		whole, again := regexp.MustCompile("^(?:"+expression+")$"), regexp.MustCompile("^(?:"+beforeQuery(expression)+")$")
		for _, p := range paths {
			for _, q := range append(queries, "") {
				if want, got := whole.MatchString(p), again.MatchString(p+q); want != got {
					t.Errorf("%s takes %s: %t; as %s it takes %s: %t", expression, p, want, beforeQuery(expression), p+q, got)
				}
			}
		}
		if why := mesh.RegexProblem(beforeQuery(expression)); why != "" && mesh.RegexProblem(expression) == "" {
			t.Errorf("%s becomes %s, which %s", expression, beforeQuery(expression), why)
		}
	}
}
