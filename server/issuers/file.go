package issuers

import (
	"log/slog"
	"maps"

	"signet.example/authz/jwt"
	"signet.example/server/shared"
)

// OpenFile is the last good sets where there is one server, in a file for a restart.
func OpenFile(path string, log *slog.Logger) (*shared.File[Sets], error) {
	return shared.OpenFile(path, shared.Form[Sets, Sets]{
		What: "issuer keys",
		Read: func(sets Sets) Sets {
			maps.DeleteFunc(sets, func(_ string, s Set) bool { return jwt.CheckKeys(s.JWKS) != nil })
			return sets
		},
		Write: func(sets Sets) Sets { return sets },
		// A restart fetches nothing before it is due, so that the time is kept as well.
		Same: func(a, b Sets) bool {
			return maps.EqualFunc(a, b, func(x, y Set) bool { return x.same(y) && x.Fetched.Equal(y.Fetched) })
		},
	}, log)
}
