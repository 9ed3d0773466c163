package repo

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
)

// Login is what a repository asks of who reads it. The zero value reads what
// everybody may. It comes from files of the server's operator, never from a manifest.
type Login struct {
	// User and Password are for https.
	User, Password string
	// SSHKey is a private key without a passphrase, for ssh.
	SSHKey []byte
	// KnownHosts is the file that ssh hosts are known by; empty is the user's own.
	KnownHosts string
}

// String hides everything.
func (Login) String() string { return "redacted" }

// LogValue hides everything.
func (Login) LogValue() slog.Value { return slog.StringValue("redacted") }

// CheckURL returns why a source with this URL would not be fetched, whatever answers there.
func CheckURL(url string) error {
	_, err := parseRemote(url)
	return err
}

// prepare returns the checked remote and how to log in there.
func (l Login) prepare(src Source) (remote, error) {
	rem, err := parseRemote(src.URL)
	if err != nil {
		return remote{}, err
	}
	switch {
	case rem.local != "":
	case strings.HasPrefix(rem.url, "https:"):
		if l.Password == "" {
			break
		}
		rem.auth = &githttp.BasicAuth{Username: l.User, Password: l.Password}
		rem.addSecret(l.Password)
	case len(l.SSHKey) > 0:
		ep, err := transport.NewEndpoint(rem.url)
		if err != nil {
			return remote{}, errors.New("URL: cannot be parsed")
		}
		user := ep.User
		if user == "" {
			user = gitssh.DefaultUsername
		}
		keys, err := gitssh.NewPublicKeys(user, l.SSHKey, "")
		if err != nil {
			return remote{}, errors.New("the file of ssh_key_file is not a private key without a passphrase")
		}
		if l.KnownHosts != "" {
			hosts, err := gitssh.NewKnownHostsDb(l.KnownHosts)
			if err != nil {
				return remote{}, fmt.Errorf("known_hosts_file: %w", err)
			}
			keys.HostKeyCallback = hosts.HostKeyCallback()
			// Else a host that has several keys shows one that is not in the file.
			keys.HostKeyAlgorithms = hosts.HostKeyAlgorithms(net.JoinHostPort(ep.Host, strconv.Itoa(cmp.Or(ep.Port, 22))))
		}
		rem.auth = keys
	}
	return rem, nil
}

// explain adds to a refusal what mends it.
func (r *remote) explain(err error) error {
	const keys = "under policy_git in the server's configuration"
	ssh := r.local == "" && !strings.HasPrefix(r.url, "https:")
	text := err.Error()
	switch {
	case errors.Is(err, transport.ErrAuthenticationRequired) && r.auth == nil:
		return fmt.Errorf("%w: name a credentials_file for this URL %s", err, keys)
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed):
		return fmt.Errorf("%w: the repository refuses the user and password of the credentials_file that this URL has %s", err, keys)
	case ssh && (strings.Contains(text, "knownhosts:") || strings.Contains(text, "known_hosts")):
		return fmt.Errorf("%w: name a known_hosts_file that has this host's key, beside the ssh_key_file for this URL %s", err, keys)
	case ssh && r.auth == nil && (strings.Contains(text, "SSH agent") || strings.Contains(text, "SSH_AUTH_SOCK") || strings.Contains(text, "unable to authenticate")):
		return fmt.Errorf("%w: name an ssh_key_file for this URL %s", err, keys)
	case ssh && strings.Contains(text, "unable to authenticate"):
		return fmt.Errorf("%w: the host refuses the ssh_key_file that this URL has %s", err, keys)
	}
	return err
}
