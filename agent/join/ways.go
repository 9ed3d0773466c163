package join

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

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

// Ways are by what this host may join: a token, or evidence of its own. They are read
// when they are needed: a host that joined before needs none.
type Ways struct {
	// TokenFile holds the join token, "-" is standard input; "" for none.
	TokenFile string
	// Own is evidence of the host's own.
	Own nodes.HostConfig
	// Trust is the file of the trust domain's root, "" for none; TrustPEM is it as text.
	Trust, TrustPEM string

	environment string
	stdin       io.Reader
}

// Take returns the ways with what the environment has, and takes that out of it: what
// this process starts later must not inherit a token. One is never taken from the command
// line, where every process could read it.
func (w Ways) Take(stdin io.Reader) (Ways, error) {
	w.environment, w.stdin = os.Getenv(tokenEnv), stdin
	return w, os.Unsetenv(tokenEnv)
}

// Check checks whether a host that has not joined has what it takes, as things are now, to join
// the trust domain of the configuration; where that is "" it is the one of the root.
func (w Ways) Check(trustDomain string, now time.Time) error {
	if w.TokenFile == "-" {
		return nil // it is there when it is read
	}
	w.environment = os.Getenv(tokenEnv)
	if _, err := w.read(); err != nil {
		return err
	}
	root, err := w.trusted()
	if err != nil {
		return err
	}
	of := domainOf(root)
	if td, err := spiffeid.TrustDomainFromString(trustDomain); err == nil {
		if of != "" && of != td.Name() {
			return fmt.Errorf("trust_domain: it is %s, and the root in %s is that of %s: correct one of them", td.Name(), cmp.Or(w.Trust, "trust_pem"), of)
		}
		of = td.Name()
	}
	return w.Own.Current(of, now)
}

// way is by what a host joins a trust domain, which it knows by the pin of its root.
type way struct {
	evidence nodes.Evidence
	pin      []byte
	refused  error // what to do where it is refused
	// elsewhere is what may be wrong where the server is not the one that is pinned.
	elsewhere error
}

// read finds the way; ErrNoToken means that there is none.
func (w Ways) read() (way, error) {
	root, err := w.trusted()
	if err != nil {
		return way{}, err
	}
	pin := pinOf(root)
	own, err := w.Own.Evidence()
	if err != nil {
		return way{}, err
	}
	token, err := w.token()
	switch {
	case own != nil && err == nil:
		return way{}, errors.New("there are a join token and, by the key join, evidence of this host's own: leave one of them out")
	case own != nil && errors.Is(err, ErrNoToken):
		return way{own, pin, ErrOwnEvidence, fmt.Errorf("is the root in trust another server's? The key trust names %s", cmp.Or(w.Trust, "it (trust_pem)"))}, nil
	case err != nil:
		return way{}, err
	case pin != nil && !bytes.Equal(pin, token.Pin[:]):
		return way{}, &TokenError{fmt.Errorf("the token is of another trust domain than the root in %s", cmp.Or(w.Trust, "trust_pem"))}
	}
	return way{nodes.Token(token), token.Pin[:], ErrNoToken, &TokenError{errors.New("is it another server's token?")}}, nil
}

// trusted is the root that the operator names, nil for none.
func (w Ways) trusted() (*x509.Certificate, error) {
	if w.TrustPEM != "" {
		root, err := rootIn([]byte(w.TrustPEM))
		if err != nil {
			return nil, fmt.Errorf("trust_pem: %w", err)
		}
		return root, nil
	}
	root, err := rootOf(w.Trust)
	if err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	return root, nil
}

// maxTrust is more than one root has.
const maxTrust = 64 << 10

// rootOf is the root in a file, nil for no file.
func rootOf(path string) (*x509.Certificate, error) {
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
	root, err := rootIn(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return root, nil
}

func rootIn(text []byte) (*x509.Certificate, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("want one certificate in PEM, the trust domain's root: ca/root.crt of the folder that `signet init` made")
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	if !root.IsCA {
		return nil, errors.New("it is the certificate of no authority, and must be the trust domain's root")
	}
	return root, nil
}

// pinOf is the pin of a root, nil for none. A token brings the pin with it; other evidence says
// who the host is, and not whom it may believe.
func pinOf(root *x509.Certificate) []byte {
	if root == nil {
		return nil
	}
	sum := sha256.Sum256(root.RawSubjectPublicKeyInfo)
	return sum[:]
}

// domainOf is the trust domain of which a root says that it is, "" where it does not.
func domainOf(root *x509.Certificate) string {
	if root == nil || len(root.URIs) != 1 {
		return ""
	}
	td, err := spiffeid.TrustDomainFromURI(root.URIs[0])
	if err != nil {
		return ""
	}
	return td.Name()
}

// given reports whether there may be a token.
func (w Ways) given() bool { return w.TokenFile != "" || w.environment != "" }

// token reads it; ErrNoToken means that there is none.
func (w Ways) token() (jointoken.Token, error) {
	text, err := w.text()
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

func (w Ways) text() (string, error) {
	switch w.TokenFile {
	case "":
		return strings.TrimSpace(w.environment), nil
	case "-":
		return firstLine(w.stdin)
	}
	f, err := os.Open(w.TokenFile)
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
