package ca

import "time"

// Kind is what a record of the issuance log states.
type Kind string

// The kinds of record.
const (
	// KindAuthority: a signing certificate is about to be used for the first time.
	KindAuthority Kind = "authority"
	// KindReserved: a certificate with this serial is about to be signed.
	KindReserved Kind = "reserved"
	// KindIssued: the certificate is signed and verified, and may be answered.
	KindIssued Kind = "issued"
	// KindAbandoned: the reservation was never answered with a certificate.
	KindAbandoned Kind = "abandoned"
)

// Record is one entry of the issuance log. Sequence and Hash are given by the
// Log; a caller of Append leaves them empty.
type Record struct {
	Sequence  uint64
	Time      time.Time
	Kind      Kind
	Serial    string // lower-case hex
	ID        string // SPIFFE ID
	Requester string // SPIFFE ID of the agent, or "server"
	Profile   string
	NotBefore time.Time
	NotAfter  time.Time
	// SPKI is the SHA-256 of the subject's public key (PKIX DER).
	SPKI []byte
	// TBS is the SHA-256 of what is to be signed (reserved).
	TBS []byte
	// Certificate is the SHA-256 of the certificate (issued, authority).
	Certificate []byte
	// Issuer is the serial of the issuing certificate.
	Issuer string
	// Reason is why a reservation was abandoned.
	Reason string
	// Hash chains the records: SHA-256 over the previous hash and this line.
	Hash []byte
}
