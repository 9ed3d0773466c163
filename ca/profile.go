package ca

import (
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Request asks for one certificate. The caller has authorized it; the issuer
// checks all that can be checked without knowing why it was.
type Request struct {
	ID spiffeid.ID
	// CSR in DER. Only the public key and the proof of its possession are taken from it.
	CSR []byte
	// Lifetime counts from issuance; zero means the profile's default.
	Lifetime time.Duration
	// Profile: "workload", "agent" or "server".
	Profile string
	// Requester: SPIFFE ID of the agent, or "server".
	Requester string
}

// Result answers one Request: Chain in DER, leaf first, or Err.
type Result struct {
	Chain [][]byte
	Err   error
}

// The names of the profiles.
const (
	ProfileWorkload = "workload"
	ProfileAgent    = "agent"
	ProfileServer   = "server"
)

// Profiles bounds what the issuer signs. The zero value works.
type Profiles struct {
	// Default lifetime of a request that names none; 60 minutes if zero.
	Default time.Duration
	// Min and Max bound a lifetime; 1 second and 24 hours if zero.
	Min, Max time.Duration
	// AllowRSA accepts RSA keys of at least 2048 bits.
	AllowRSA bool
}
