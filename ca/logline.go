package ca

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// The log is JSON Lines. Each line ends in the hash over the previous line's
// hash and the line's own bytes up to there:
//
//	{"seq":7,"time":"…","kind":"issued",…,"hash":"<64 hex>"}\n
//
// Text, not length-prefixed binary, for two reasons: an operator reads it with
// jq when nothing else works; and a flipped bit in a length prefix looks like a
// torn tail and would drop every record behind it, while a flipped newline
// merges two lines that then fail their hash.

const (
	logFormat = "signet-issuance-log-1"
	// maxLine bounds one line: a SPIFFE ID and a requester of 2 KiB each, every
	// byte escaped, are still below it.
	maxLine    = 64 << 10
	hashPrefix = `,"hash":"`
	hashSuffix = `"}`
	hashLen    = len(hashPrefix) + 2*sha256.Size + len(hashSuffix)
)

// chainStart is the hash before the first line.
var chainStart = sha256.Sum256([]byte(logFormat))

// header is the first line. Its sequence number, 0, is never read back.
type header struct {
	Format      string    `json:"log"`
	Origin      string    `json:"origin"`
	TrustDomain string    `json:"trust_domain"`
	Created     time.Time `json:"created"`
}

// line is a Record as it is written. Field order is the order in the file.
type line struct {
	Sequence    uint64    `json:"seq"`
	Time        time.Time `json:"time"`
	Kind        Kind      `json:"kind"`
	Serial      string    `json:"serial,omitempty"`
	ID          string    `json:"spiffe_id,omitempty"`
	Requester   string    `json:"requester,omitempty"`
	Profile     string    `json:"profile,omitempty"`
	NotBefore   time.Time `json:"not_before,omitzero"`
	NotAfter    time.Time `json:"not_after,omitzero"`
	SPKI        hexBytes  `json:"spki_sha256,omitempty"`
	TBS         hexBytes  `json:"tbs_sha256,omitempty"`
	Certificate hexBytes  `json:"certificate_sha256,omitempty"`
	Issuer      string    `json:"issuer,omitempty"`
	Reason      string    `json:"reason,omitempty"`
}

// hexBytes is written as hex, as openssl and sha256sum print hashes.
type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.AppendDecode(nil, text)
	return err
}

// seal appends the chained line of v to dst and returns its hash.
func seal(dst []byte, prev [sha256.Size]byte, v any) ([]byte, [sha256.Size]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return dst, prev, fmt.Errorf("encode record: %w", err)
	}
	if len(body)+hashLen > maxLine {
		return dst, prev, fmt.Errorf("record of %d bytes: at most %d", len(body), maxLine-hashLen)
	}
	hash := chain(prev, body)
	dst = append(dst, body[:len(body)-1]...)
	dst = append(dst, hashPrefix...)
	dst = hex.AppendEncode(dst, hash[:])
	dst = append(dst, hashSuffix...)
	return append(dst, '\n'), hash, nil
}

// unseal checks the chain and decodes a line without its newline into v.
func unseal(text []byte, prev [sha256.Size]byte, v any) ([sha256.Size]byte, error) {
	body, sum, err := split(text)
	if err != nil {
		return prev, err
	}
	hash := chain(prev, body)
	// The text of the hash is compared, not its value: of two spellings one is
	// not what was written.
	if !bytes.Equal(hex.AppendEncode(nil, hash[:]), sum) {
		return prev, errors.New("its hash does not fit its contents and the record before it")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return prev, fmt.Errorf("decode: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return prev, errors.New("decode: more than one value")
	}
	return hash, nil
}

// split returns a line's JSON without the hash, and the hash's text.
func split(text []byte) (body, sum []byte, err error) {
	if len(text) <= hashLen || !bytes.HasSuffix(text, []byte(hashSuffix)) ||
		!bytes.HasPrefix(text[len(text)-hashLen:], []byte(hashPrefix)) {
		return nil, nil, errors.New("it does not end in a hash")
	}
	cut := len(text) - hashLen
	sum = text[cut+len(hashPrefix) : len(text)-len(hashSuffix)]
	return append(bytes.Clone(text[:cut]), '}'), sum, nil
}

func chain(prev [sha256.Size]byte, body []byte) (hash [sha256.Size]byte) {
	h := sha256.New()
	h.Write(prev[:])
	h.Write(body)
	h.Sum(hash[:0])
	return hash
}

func encodeRecord(dst []byte, prev [sha256.Size]byte, r Record) ([]byte, [sha256.Size]byte, error) {
	return seal(dst, prev, line{
		Sequence: r.Sequence, Time: r.Time.UTC(), Kind: r.Kind, Serial: r.Serial, ID: r.ID,
		Requester: r.Requester, Profile: r.Profile, NotBefore: utc(r.NotBefore), NotAfter: utc(r.NotAfter),
		SPKI: r.SPKI, TBS: r.TBS, Certificate: r.Certificate, Issuer: r.Issuer, Reason: r.Reason,
	})
}

func decodeRecord(text []byte, prev [sha256.Size]byte) (Record, error) {
	var l line
	hash, err := unseal(text, prev, &l)
	if err != nil {
		return Record{}, err
	}
	return Record{
		Sequence: l.Sequence, Time: l.Time, Kind: l.Kind, Serial: l.Serial, ID: l.ID,
		Requester: l.Requester, Profile: l.Profile, NotBefore: l.NotBefore, NotAfter: l.NotAfter,
		SPKI: l.SPKI, TBS: l.TBS, Certificate: l.Certificate, Issuer: l.Issuer, Reason: l.Reason,
		Hash: hash[:],
	}, nil
}

// utc keeps a zero time zero, which UTC() of another location would not show.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}
