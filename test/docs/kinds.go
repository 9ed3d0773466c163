package docs

import (
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/internal/manifest"
	"signet.example/server/kinds"
)

// build understands a document and refuses it, as apply does.
func build(d *manifest.Document, td spiffeid.TrustDomain) error {
	o, err := kinds.Parse(d, td)
	if err != nil {
		return err
	}
	return o.Refused().OrNil()
}
