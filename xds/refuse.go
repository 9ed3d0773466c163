package xds

import (
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbacfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"signet.example/proxy"
)

// An HTTP manager that normalises paths is not enough (SECURITY fact 5): Envoy
// sends /x/%2E%2E;/admin on as /x/..;/admin, which many servers read as /admin,
// and joins two Host headers into one authority. So the first filter states
// what a request may look like and refuses the rest, before anybody decides on
// it. It is a grammar of what passes, not a list of what does not: what nobody
// thought of is refused as well.
//
// The mechanism is the RBAC filter, since it is native, runs where we put it,
// and is part of every Envoy build; Lua would be a second language on the
// request path, and routes are looked at only after the authorization filter.

// ambiguous is the policy of the first filter, and the class of its denials, which are known by
// the policy's name in Envoy's details.
const ambiguous = string(proxy.ClassAmbiguous)

// The regular expressions are RE2, matched against the whole value, after the
// manager's own normalisation. Nothing in them comes from a mesh (A20).
const (
	// plainChar is visible ASCII except percent; semicolon, since servers differ
	// on whether ;x belongs to a path segment; backslash, which some take for a
	// slash; question mark, which ends the path; and the fragment's hash.
	plainChar = `[!"$&-:<->@-\[\]-~]`

	// escapedASCII is an escape that decodes to ASCII in one way whoever decodes
	// it. Not among them: controls, %25 (decoding twice), %2E, %2F, %3B and %5C
	// (decoding before or after splitting into segments), %7F.
	escapedASCII = `2[0-46-9A-Da-d]|3[0-9AC-Fac-f]|[46][0-9A-Fa-f]|5[0-9ABD-Fabd-f]|7[0-9A-Ea-e]`

	// continued is a UTF-8 continuation byte, escaped.
	continued = `%[89ABab][0-9A-Fa-f]`

	// escapedUTF8 is RFC 3629 section 4, escaped: no overlong forms (%C0%AE is a
	// dot to a careless decoder), no surrogates, nothing above U+10FFFF.
	escapedUTF8 = `(?:[Cc][2-9A-Fa-f]|[Dd][0-9A-Fa-f])` + continued +
		`|(?:[Ee]0%[ABab][0-9A-Fa-f]|[Ee][1-9A-CEFa-cef]` + continued + `|[Ee][Dd]%[89][0-9A-Fa-f])` + continued +
		`|(?:[Ff]0%[9ABab][0-9A-Fa-f]|[Ff][1-3]` + continued + `|[Ff]4%8[0-9A-Fa-f])` + continued + continued

	// pathGrammar is the path of a whole :path. The query follows.
	pathGrammar = `/(?:` + plainChar + `|%(?:` + escapedASCII + `|` + escapedUTF8 + `))*`

	// plainQuery has no semicolon: some servers end a parameter there, as HTML 4
	// advised, for others (and for policies) it is part of the value. ?a=1;b=2 has
	// a b for the ones only. Escaped, as %3B, it is part of the value for all.
	plainQuery = `(?:\?[^;]*)?`
	anyQuery   = `(?:\?.*)?`

	// dotSegments finds what normalisation should have removed.
	dotSegments = `[^?]*/\.\.?(?:/[^?]*)?(?:\?.*)?`

	// hostGrammar is one host: a name, an IPv4 address, or a bracketed IPv6 one
	// without a zone, and a port. Two Host headers, joined by a comma, are not.
	hostGrammar = `(?:[0-9A-Za-z_](?:[0-9A-Za-z._-]*[0-9A-Za-z_])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?`
)

// refuseAmbiguous is the first HTTP filter everywhere.
func refuseAmbiguous(queryGrammar string) *rbacfilterv3.RBAC {
	return &rbacfilterv3.RBAC{
		RulesStatPrefix: ambiguous + "_",
		Rules: &rbacv3.RBAC{
			Action: rbacv3.RBAC_DENY,
			Policies: map[string]*rbacv3.Policy{ambiguous: {
				Principals: []*rbacv3.Principal{{Identifier: &rbacv3.Principal_Any{Any: true}}},
				Permissions: []*rbacv3.Permission{
					unless(headerMatches(":path", pathGrammar+queryGrammar)),
					headerMatches(":path", dotSegments),
					unless(headerMatches(":authority", hostGrammar)),
				},
			}},
		},
	}
}

func headerMatches(name, regex string) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: &routev3.HeaderMatcher{
		Name:                 name,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: wholeRegex(regex)},
	}}}
}

func unless(p *rbacv3.Permission) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: p}}
}

// wholeRegex matches a whole value by RE2.
func wholeRegex(regex string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
		SafeRegex: &matcherv3.RegexMatcher{Regex: regex},
	}}
}
