package issuers

import (
	"net/http"
	"net/url"
)

// Inside is tested by itself.
var Inside = inside

// FollowsRedirect reports why an issuer's keys are not fetched where their URL redirects to.
func FollowsRedirect(from, to *url.URL) error {
	return clientOf(from, nil).CheckRedirect(&http.Request{URL: to}, nil)
}
