package xds

import "regexp"

var (
	thePath = regexp.MustCompile(`^(?s:` + pathGrammar + plainQuery + `)$`)
	theDots = regexp.MustCompile(`^(?s:` + dotSegments + `)$`)
)

// Unambiguous is what the first filter lets pass as a :path, by Go's RE2. Envoy
// normalises before.
func Unambiguous(path string) bool { return thePath.MatchString(path) && !theDots.MatchString(path) }

// IsHost is what the first filter lets pass as an :authority.
func IsHost(s string) bool { return aHost.MatchString(s) }

// ShareOf is how many connections each of some listeners has of those of the ways in.
var ShareOf = shareOf
