// Package jointoken is the join token: by it a host shows that its operator gave it a
// secret, which is good once and names the host's group. It owns the token's text and
// both ends of its use: Token on the host, Attestor at the server. Where tokens are kept
// is the server's matter (Tokens).
package jointoken

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// ErrForm is returned for a text that is no join token. The text itself never
// stands in an error.
var ErrForm = errors.New("not a join token: want sgt1.<secret>.<pin>")

const (
	tokenPrefix = "sgt1"
	redacted    = "redacted"
)

// tokenEncoding refuses stray bits; line breaks, which it would skip, show by
// the length. One token has one text.
var tokenEncoding = base64.RawURLEncoding.Strict()

// Token lets one host join. Secret is known to the server only by its hash; Pin
// is the SHA-256 of the key that signs the root set, so that the host knows
// whom it joins. Whatever prints a Token prints "redacted"; Reveal gives its text.
type Token struct {
	Secret [32]byte
	Pin    [sha256.Size]byte
}

// New returns a fresh token with the root set's pin.
func New(pin []byte) (Token, error) {
	var t Token
	if len(pin) != len(t.Pin) {
		return Token{}, fmt.Errorf("new join token: pin of %d bytes: want %d", len(pin), len(t.Pin))
	}
	copy(t.Pin[:], pin)
	if _, err := rand.Read(t.Secret[:]); err != nil {
		return Token{}, fmt.Errorf("new join token: %w", err)
	}
	return t, nil
}

// Parse parses what Reveal gave. White space around it, such as the line
// break of a file, is not part of it. The error never holds the text.
func Parse(s string) (Token, error) {
	var t Token
	parts := strings.Split(strings.TrimSpace(s), ".")
	if len(parts) != 3 || parts[0] != tokenPrefix {
		return Token{}, ErrForm
	}
	for i, into := range [][]byte{t.Secret[:], t.Pin[:]} {
		if len(parts[i+1]) != tokenEncoding.EncodedLen(len(into)) {
			return Token{}, ErrForm
		}
		if n, err := tokenEncoding.Decode(into, []byte(parts[i+1])); err != nil || n != len(into) {
			return Token{}, ErrForm
		}
	}
	return t, nil
}

// Reveal returns the token's text, "sgt1.<secret>.<pin>". It is for the one
// answer that hands it to the operator.
func (t Token) Reveal() string {
	return tokenPrefix + "." + t.SecretText() + "." + tokenEncoding.EncodeToString(t.Pin[:])
}

// SecretText is the secret half, which the joining host sends.
func (t Token) SecretText() string { return tokenEncoding.EncodeToString(t.Secret[:]) }

// Hash is what the server keeps: HashSecret of SecretText.
func (t Token) Hash() []byte { return HashSecret(t.SecretText()) }

// HashSecret returns the SHA-256 of the secret as it was sent. No salt or
// stretching: it has 256 random bits, which nobody guesses.
func HashSecret(secretText string) []byte {
	sum := sha256.Sum256([]byte(secretText))
	return sum[:]
}

// String returns "redacted".
func (Token) String() string { return redacted }

// Format prints "redacted" for each verb of fmt, %x and %#v included.
func (Token) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) } // fmt takes no error

// LogValue is "redacted".
func (Token) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "redacted", so that no encoder writes the fields.
func (Token) MarshalText() ([]byte, error) { return []byte(redacted), nil }
