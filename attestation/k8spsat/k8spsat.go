// Package k8spsat attests a pod of Kubernetes by a projected service account token: a file that
// the kubelet writes for this pod, signed by its cluster for an audience of ours. It owns both
// ends: Host reads the file, Verifier says what it shows of the pod. It must not know how
// signatures are verified and keys are fetched, where it is kept what was used
// (attestation/platform), nor which group a pod is in.
//
// Main types in reading order: Host, Config, Cluster, Verifier. Safe for concurrent use.
package k8spsat

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"signet.example/attestation/platform"
	"signet.example/identity"
)

// Name is the method's, and the type of its selectors.
const Name = "k8s_psat"

// Host is the host's end, as configured.
type Host struct {
	// TokenFile is where the kubelet writes the token: serviceAccountToken of a projected volume,
	// with the audience of the trust domain.
	TokenFile string `yaml:"token_file"`
}

// Try reports what is wrong with the configuration, beginning with the key.
func (h Host) Try() error {
	_, err := h.read()
	return err
}

// Current reports what is wrong with the configuration, or the token that is there now, beginning
// with the key. Where the trust domain is not known, "", the token may be for any.
func (h Host) Current(trustDomain string) error {
	_, err := h.Prove(trustDomain)
	return err
}

// Prove reads the token, which the kubelet writes anew from time to time. One for another
// audience is not shown: with the one that each pod has, its server could speak to the cluster as
// the pod.
func (h Host) Prove(trustDomain string) (string, error) {
	token, err := h.read()
	if err != nil {
		return "", err
	}
	if err := checkAudience(token, audience(trustDomain)); err != nil {
		return "", fmt.Errorf("token_file: %s: %w", h.TokenFile, err)
	}
	return token, nil
}

// Written is by what the token is known that is there now; nil where none can be read.
func (h Host) Written() []byte {
	token, err := h.read()
	if err != nil {
		return nil
	}
	return platform.Hash(Name, "written", token)
}

func (h Host) read() (string, error) {
	if h.TokenFile == "" {
		return "", errors.New("token_file: missing: the file of a projected service account token, such as /var/run/secrets/signet/token")
	}
	f, err := os.Open(h.TokenFile)
	if err != nil {
		return "", fmt.Errorf("token_file: %w", err)
	}
	defer func() { _ = f.Close() }() // read only
	text, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return "", fmt.Errorf("token_file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if err := platform.CheckToken(token); err != nil {
		return "", fmt.Errorf("token_file: %s: %w", h.TokenFile, err)
	}
	return token, nil
}

// checkAudience refuses a token that is for anybody else. Nothing of the token is in the error.
func checkAudience(token, want string) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return errors.New("it is no token: want three parts of base64url")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return errors.New("it is no token: its claims are not base64url")
	}
	var claims struct {
		Audience []string `json:"aud"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return errors.New("it is no token of a service account: its claims have no list of audiences (aud)")
	}
	if len(claims.Audience) == 1 && (claims.Audience[0] == want || want == audience("") && strings.HasPrefix(claims.Audience[0], want)) {
		return nil
	}
	if want == audience("") {
		want += "<trust domain>"
	}
	is := "nobody (no aud)"
	if len(claims.Audience) > 0 {
		is = identity.Abbreviate(strings.Join(claims.Audience, ", "))
	}
	return fmt.Errorf("it is for %s, and the server wants one for %s alone, so that it is not shown: mount that of a projected volume of the pod: projected: {sources: [{serviceAccountToken: {audience: %q, expirationSeconds: 600, path: token}}]}", is, want, want)
}

// audience is whom a token is for: the servers of one trust domain. With "" it is how each begins.
func audience(trustDomain string) string { return "signet:" + trustDomain }
