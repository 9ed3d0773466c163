package ca

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// newLogFile is the content of an empty log with a new origin, and that of its mark:
// so a mark is missing only where somebody took it away, or an older version made the log.
func newLogFile(td spiffeid.TrustDomain, now time.Time) (log, mark []byte, err error) {
	origin := make([]byte, 16)
	if _, err := rand.Read(origin); err != nil {
		return nil, nil, fmt.Errorf("name the issuance log: %w", err)
	}
	log, hash, err := seal(nil, chainStart, header{
		Format: logFormat, Origin: hex.EncodeToString(origin), TrustDomain: td.Name(), Created: now.UTC(),
	})
	if err != nil {
		return nil, nil, err
	}
	at := encodeMark(Position{Hash: hash})
	return log, append(at, at...), nil
}
