package issuers

import (
	"net/http"
	"net/url"
	"time"
)

// Inside is tested by itself.
var Inside = inside

// ErrNoKey is what a place answers that has no key of an id.
var ErrNoKey = errNoKey

// Lookups are tested by themselves.
type Lookups struct{ *lookups }

// NewLookups knows nothing.
func NewLookups() Lookups { return Lookups{newLookups()} }

// Looked takes what came of looking for a key.
func (l Lookups) Looked(kid string, here bool, err error, now time.Time) bool {
	return l.looked(lookup{kid: kid}, here, err, now)
}

// FollowsRedirect reports why an issuer's keys are not fetched where their URL redirects to.
func FollowsRedirect(from, to *url.URL) error {
	return clientOf(from, nil).CheckRedirect(&http.Request{URL: to}, nil)
}
