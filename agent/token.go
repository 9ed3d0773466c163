package agent

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"signet.example/attestation/jointoken"
	"signet.example/attestation/nodes"
	"signet.example/internal/private"
)

// tokenEnv is the environment variable that may hold the join token.
const tokenEnv = "SIGNET_TOKEN"

// ErrNoToken is returned for a host that nobody knows, and says what to do about it.
var ErrNoToken = errors.New("to join, a host needs a token: run `signet token create --group <group>` on the server " +
	"and pass it by token_file, standard input (token_file \"-\") or the environment's " + tokenEnv)

// ErrOwnEvidence is returned for a host whose own evidence is refused, and says what to do about it.
var ErrOwnEvidence = errors.New("this host joins by the evidence that its key join names; the server's log has this refusal too")

// TokenError is returned for a token that cannot be read, is none, or is another
// server's: a new one mends it.
type TokenError struct{ err error }

func (e *TokenError) Error() string { return e.err.Error() }
func (e *TokenError) Unwrap() error { return e.err }

// ways are by what this host may join: a token, or evidence of its own. They are read
// when they are needed: a host that joined before needs none.
type ways struct {
	tokens tokens
	own    nodes.HostConfig
	trust  string // file of the root, "" for none
}

// way is by what a host joins a trust domain, which it knows by the pin of its root.
type way struct {
	evidence nodes.Evidence
	pin      []byte
	refused  error // what to do where it is refused
	// elsewhere is what may be wrong where the server is not the one that is pinned.
	elsewhere error
}

// ways takes the token's environment, as tokens does.
func (c Config) ways(stdin io.Reader) (ways, error) {
	t, err := c.tokens(stdin)
	return ways{tokens: t, own: c.Join, trust: c.Trust}, err
}

// read finds the way; ErrNoToken means that there is none.
func (w ways) read() (way, error) {
	pin, err := pinOf(w.trust)
	if err != nil {
		return way{}, fmt.Errorf("trust: %w", err)
	}
	own, err := w.own.Evidence()
	if err != nil {
		return way{}, err
	}
	token, err := w.tokens.read()
	switch {
	case own != nil && err == nil:
		return way{}, errors.New("there are a join token and, by the key join, evidence of this host's own: leave one of them out")
	case own != nil && errors.Is(err, ErrNoToken):
		return way{own, pin, ErrOwnEvidence, fmt.Errorf("is the root in trust another server's? The key trust names %s", w.trust)}, nil
	case err != nil:
		return way{}, err
	case pin != nil && !bytes.Equal(pin, token.Pin[:]):
		return way{}, &TokenError{fmt.Errorf("the token is of another trust domain than the root in %s", w.trust)}
	}
	return way{nodes.Token(token), token.Pin[:], ErrNoToken, &TokenError{errors.New("is it another server's token?")}}, nil
}

// maxTrust is more than one root has.
const maxTrust = 64 << 10

// pinOf is the pin of the root in a file, nil for no file. A token brings the pin
// with it; other evidence says who the host is, and not whom it may believe.
func pinOf(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	// Whoever can change it chooses the authority of everything on this host.
	if err := private.Guarded(path, private.Self()); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	text, err := io.ReadAll(io.LimitReader(f, maxTrust))
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%s: want one certificate in PEM, the trust domain's root: ca/root.crt of the folder that `signet init` made", path)
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !root.IsCA {
		return nil, fmt.Errorf("%s: it is the certificate of no authority, and must be the trust domain's root", path)
	}
	sum := sha256.Sum256(root.RawSubjectPublicKeyInfo)
	return sum[:], nil
}

// tokens is where the join token is, if there is one. It is read when it is
// needed: a host that joined before needs none.
type tokens struct {
	file        string // "-" is stdin
	environment string
	stdin       io.Reader
}

// tokens takes what the environment has out of it: what this process starts later
// must not inherit it. A token is never taken from the command line, where every
// process could read it.
func (c Config) tokens(stdin io.Reader) (tokens, error) {
	t := tokens{file: c.TokenFile, environment: os.Getenv(tokenEnv), stdin: stdin}
	return t, os.Unsetenv(tokenEnv)
}

// given reports whether there may be a token.
func (t tokens) given() bool { return t.file != "" || t.environment != "" }

// read reads it; ErrNoToken means that there is none.
func (t tokens) read() (jointoken.Token, error) {
	text, err := t.text()
	if err != nil {
		return jointoken.Token{}, &TokenError{err}
	}
	if text == "" {
		return jointoken.Token{}, ErrNoToken
	}
	token, err := jointoken.Parse(text)
	if err != nil {
		return jointoken.Token{}, &TokenError{fmt.Errorf("join token: %w", err)}
	}
	return token, nil
}

func (t tokens) text() (string, error) {
	switch t.file {
	case "":
		return strings.TrimSpace(t.environment), nil
	case "-":
		return firstLine(t.stdin)
	}
	f, err := os.Open(t.file)
	if err != nil {
		return "", fmt.Errorf("token_file: %w", err)
	}
	defer func() { _ = f.Close() }() // read only
	return firstLine(f)
}

// maxToken is more than any token has.
const maxToken = 4096

func firstLine(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxToken))
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return strings.TrimSpace(line), nil
}
