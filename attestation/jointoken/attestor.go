package jointoken

import (
	"context"
	"fmt"
	"time"
)

// Tokens is where the server keeps tokens, by the hash of their secret. A token that
// is unknown, ended or used is an error of the store's own, the same for all three.
type Tokens interface {
	// HasToken reports whether a token can be used now; it writes nothing.
	HasToken(ctx context.Context, hash []byte, now time.Time) (bool, error)
	// UseToken uses a token up, once whatever runs beside it, and returns its group.
	UseToken(ctx context.Context, hash []byte, now time.Time) (group string, err error)
}

// Attestor is the server's end.
type Attestor struct{ Tokens Tokens }

// Good returns the hash of a secret that can be used now, nil for any other. Who has
// a good one was given it: nobody guesses 256 bits.
func (a Attestor) Good(ctx context.Context, secretText string, now time.Time) ([]byte, error) {
	hash := HashSecret(secretText)
	good, err := a.Tokens.HasToken(ctx, hash, now)
	if err != nil {
		return nil, fmt.Errorf("look up a join token: %w", err)
	}
	if !good {
		return nil, nil
	}
	return hash, nil
}

// Use uses the token up and returns the group that it names.
func (a Attestor) Use(ctx context.Context, secretText string, now time.Time) (group string, err error) {
	return a.Tokens.UseToken(ctx, HashSecret(secretText), now)
}
