package ca

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// newLogFile is the content of an empty log with a new origin.
func newLogFile(td spiffeid.TrustDomain, now time.Time) ([]byte, error) {
	origin := make([]byte, 16)
	if _, err := rand.Read(origin); err != nil {
		return nil, fmt.Errorf("name the issuance log: %w", err)
	}
	text, _, err := seal(nil, chainStart, header{
		Format: logFormat, Origin: hex.EncodeToString(origin), TrustDomain: td.Name(), Created: now.UTC(),
	})
	return text, err
}
