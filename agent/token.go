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

// errNoToken says what to do: the host key is in memory only in this version.
var errNoToken = errors.New("a restarted agent needs a new token: run `signet token create --group <group>` on the server " +
	"and pass it by token_file, standard input (token_file \"-\") or the environment's " + tokenEnv)

// readToken reads the join token from where the configuration says. It is never
// taken from the command line, where every process could read it.
func (c Config) readToken(stdin io.Reader) (attestation.Token, error) {
	text, err := c.tokenText(stdin)
	if err != nil {
		return attestation.Token{}, err
	}
	if text == "" {
		return attestation.Token{}, errNoToken
	}
	t, err := attestation.ParseToken(text)
	if err != nil {
		return attestation.Token{}, fmt.Errorf("join token: %w", err)
	}
	return t, nil
}

func (c Config) tokenText(stdin io.Reader) (string, error) {
	switch c.TokenFile {
	case "":
		text := os.Getenv(tokenEnv)
		// What this process starts later must not inherit it.
		if err := os.Unsetenv(tokenEnv); err != nil {
			return "", err
		}
		return strings.TrimSpace(text), nil
	case "-":
		return firstLine(stdin)
	}
	f, err := os.Open(c.TokenFile)
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
