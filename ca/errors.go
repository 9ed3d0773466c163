package ca

import "errors"

// ErrInvalid is returned when the request itself is at fault: the same request
// will be refused again, so a retry is useless.
var ErrInvalid = errors.New("invalid request")

// ErrConfig is returned when profiles and authority do not fit each other, for
// example an authority that lives less than six times as long as a leaf.
var ErrConfig = errors.New("refused configuration")

// ErrClock is returned when the clock stands before what has already been
// recorded, or outside the issuing authority's validity.
var ErrClock = errors.New("clock is not usable for issuance")

// ErrLog is returned when a record could not be made durable. Nothing is
// signed while that lasts; reading goes on.
var ErrLog = errors.New("issuance log cannot be written")

// ErrCorrupt is returned when the issuance log does not verify; the message
// names the first record that does not.
var ErrCorrupt = errors.New("issuance log is corrupt")

// ErrCut is returned when the issuance log lacks a record that it once had: its end
// was cut off, or it is another log.
var ErrCut = errors.New("records are missing from the issuance log")

// ErrExists is returned by Init when there is an authority already.
var ErrExists = errors.New("already initialized")
