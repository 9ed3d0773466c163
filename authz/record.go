package authz

import (
	"time"

	"signet.example/policy"
)

// Cause distinguishes the three kinds of denial.
type Cause string

// The causes; an allowed request has none.
const (
	CauseNone Cause = ""
	// CausePolicy: a deny rule held, no allow rule did, or a token was refused.
	CausePolicy Cause = "policy"
	// CauseError: the policy could not be evaluated.
	CauseError Cause = "error"
	// CauseUnavailable: nobody was there to decide: unknown revision, overload.
	CauseUnavailable Cause = "unavailable"
)

// Record is the account of one decision. It never holds a token, a cookie, a
// query or a body: it is redacted while it is made, not when it is read.
// Everything that came from outside has its control characters escaped.
type Record struct {
	// ID: 128 random bits in hex; the caller gets it with a denial.
	ID      string
	Time    time.Time
	Allowed bool
	Cause   Cause
	// Observed: it was let through although it is denied here.
	Observed bool
	// Source is empty where Envoy verified no peer certificate, and no ingress of the listener
	// is at the caller's address: then it is [proxy.IngressCallers] of that.
	Source, Destination string
	// Peer is the address and port of a caller without a Source.
	Peer string
	// Status that the caller got; 0 of what was let through, and of connections.
	Status uint32
	// Path is without query.
	Method, Host, Path string
	// Headers by allow-list.
	Headers map[string]string
	Token   *TokenSummary
	// Rules that decided: the deny rules that held, or the allow rules.
	Rules []policy.RuleRef
	// Failed has, for each allow rule that did not hold, what stopped it.
	Failed         []policy.RuleRef
	PolicyRevision string
	PolicySource   string
	Commit         string
	// Message for the operator: one sentence.
	Message string
	// Proxy that asked.
	Proxy    string
	Duration time.Duration
}

// TokenSummary is what may be told of a token. Except for KeyedHash and Error it
// is filled in only when the signature was good.
type TokenSummary struct {
	Issuer, Subject string
	Audience        []string
	Expiry          time.Time
	KeyID           string
	// KeyedHash is an HMAC-SHA256 with Config.TokenHashKey, 16 hex digits: two
	// records of the same token can be told to be so, and nothing else.
	KeyedHash string
	// Error is why the token was refused, e.g. "expired".
	Error string
}
