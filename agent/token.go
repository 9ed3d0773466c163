package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"signet.example/attestation"
)

// tokenEnv is the environment variable that may hold the join token.
const tokenEnv = "SIGNET_TOKEN"

// errNoToken says what to do about a host that nobody knows.
var errNoToken = errors.New("to join, a host needs a token: run `signet token create --group <group>` on the server " +
	"and pass it by token_file, standard input (token_file \"-\") or the environment's " + tokenEnv)

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

// read reads it; errNoToken means that there is none.
func (t tokens) read() (attestation.Token, error) {
	text, err := t.text()
	if err != nil {
		return attestation.Token{}, err
	}
	if text == "" {
		return attestation.Token{}, errNoToken
	}
	token, err := attestation.ParseToken(text)
	if err != nil {
		return attestation.Token{}, fmt.Errorf("join token: %w", err)
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
