package server

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"signet.example/internal/private"
	"signet.example/policy/repo"
)

// mostLogin bounds a credentials file or an ssh key.
const mostLogin = 16 << 10

// PolicyGit is how to log in at the policy repositories below one URL. The
// files are read at each fetch, so that a new password needs no restart.
type PolicyGit struct {
	// URL is an https or ssh URL (or user@host:path). It is for the repository
	// there, and for those below it; where several fit, the longest is taken.
	URL string `yaml:"url" json:"url"`
	// CredentialsFile has one line, user:password, for https.
	CredentialsFile string `yaml:"credentials_file" json:"credentials_file"`
	// SSHKeyFile is a private key without a passphrase, for ssh.
	SSHKeyFile string `yaml:"ssh_key_file" json:"ssh_key_file"`
	// KnownHostsFile has the hosts' keys; ssh's own files by default.
	KnownHostsFile string `yaml:"known_hosts_file" json:"known_hosts_file"`
}

// gitPlace is where a repository is, as far as logins go.
type gitPlace struct{ scheme, host, user, path string }

// placeOf reads an https or ssh URL that is fit for fetching.
func placeOf(raw string) (gitPlace, error) {
	if err := repo.CheckURL(raw); err != nil {
		return gitPlace{}, err
	}
	if !strings.Contains(raw, "://") && !path.IsAbs(raw) { // ssh's short form
		user, rest, _ := strings.Cut(raw, "@")
		host, dir, _ := strings.Cut(rest, ":")
		return gitPlace{"ssh", strings.ToLower(host) + ":22", user, path.Clean("/" + dir)}, nil
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" && u.Scheme != "ssh" {
		return gitPlace{}, errors.New("url: want https or ssh")
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "ssh": "22"}[u.Scheme]
	}
	return gitPlace{u.Scheme, net.JoinHostPort(strings.ToLower(u.Hostname()), port), u.User.Username(), path.Clean("/" + u.Path)}, nil
}

// includes reports whether what is asked for is p or below it.
func (p gitPlace) includes(asked gitPlace) bool {
	return p.scheme == asked.scheme && p.host == asked.host && (p.user == "" || p.user == asked.user) &&
		(p.path == "/" || asked.path == p.path || strings.HasPrefix(asked.path, p.path+"/"))
}

func (g PolicyGit) validate() error {
	p, err := placeOf(g.URL)
	if err != nil {
		return err
	}
	for _, f := range []struct{ key, path string }{
		{"credentials_file", g.CredentialsFile}, {"ssh_key_file", g.SSHKeyFile}, {"known_hosts_file", g.KnownHostsFile},
	} {
		if f.path != "" && !filepath.IsAbs(f.path) {
			return fmt.Errorf("%s: %q is not an absolute path", f.key, f.path)
		}
	}
	switch {
	case p.scheme == "https" && p.user != "":
		return errors.New("url: the user stands in the credentials_file")
	case p.scheme == "https" && (g.CredentialsFile == "" || g.SSHKeyFile+g.KnownHostsFile != ""):
		return errors.New("an https URL has a credentials_file, and no ssh_key_file or known_hosts_file")
	case p.scheme == "ssh" && (g.SSHKeyFile == "" || g.CredentialsFile != ""):
		return errors.New("an ssh URL has an ssh_key_file, perhaps a known_hosts_file, and no credentials_file")
	}
	return nil
}

// guarded returns why anybody but own and root could read or change the files.
func (g PolicyGit) guarded(own uint32) error {
	var errs []error
	for _, secret := range []string{g.CredentialsFile, g.SSHKeyFile} {
		if secret != "" {
			errs = append(errs, private.Secret(secret, own))
		}
	}
	if g.KnownHostsFile != "" {
		errs = append(errs, private.Guarded(g.KnownHostsFile, own))
	}
	return errors.Join(errs...)
}

// policyLogin reads the login that the configuration has for a source's URL.
func (c Config) policyLogin(raw string) (repo.Login, error) {
	asked, err := placeOf(raw)
	if err != nil { // a local one, or refused by who fetches it
		return repo.Login{}, nil //nolint:nilerr // as above
	}
	var best PolicyGit
	long := -1
	for _, g := range c.PolicyGit {
		if p, err := placeOf(g.URL); err == nil && p.includes(asked) && len(p.path)+len(p.user) > long {
			best, long = g, len(p.path)+len(p.user)
		}
	}
	if err := best.guarded(private.Self()); err != nil {
		return repo.Login{}, fmt.Errorf("policy_git: %w", err)
	}
	l := repo.Login{KnownHosts: best.KnownHostsFile}
	if best.CredentialsFile != "" {
		text, err := readLogin(best.CredentialsFile)
		if err != nil {
			return repo.Login{}, err
		}
		var ok bool
		if l.User, l.Password, ok = strings.Cut(strings.TrimRight(string(text), "\r\n"), ":"); !ok || l.Password == "" || strings.ContainsAny(l.User+l.Password, "\r\n") {
			return repo.Login{}, fmt.Errorf("policy_git: credentials_file %s: want one line, user:password (a token is the password)", best.CredentialsFile)
		}
	}
	if best.SSHKeyFile != "" {
		if l.SSHKey, err = readLogin(best.SSHKeyFile); err != nil {
			return repo.Login{}, err
		}
	}
	return l, nil
}

func readLogin(file string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("policy_git: %w", err)
	}
	if len(b) > mostLogin {
		return nil, fmt.Errorf("policy_git: %s has more than %d bytes", file, mostLogin)
	}
	return b, nil
}
