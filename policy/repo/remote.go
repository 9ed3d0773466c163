package repo

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// remote is a checked URL of a repository.
type remote struct {
	url string
	// local is the path of a file URL; empty otherwise.
	local string
	// display has no credentials.
	display string
	secrets []string
	// auth is nil for what everybody may read.
	auth transport.AuthMethod
}

// parseRemote accepts https, ssh (also as user@host:path), file and absolute
// paths. Plain http and git are refused: who sits on the wire would write the
// policy. What a transport could take for an option is refused too
// (CVE-2025-21613), though none of ours starts a local program.
func parseRemote(s string) (remote, error) {
	if s == "" || len(s) > 2048 || !utf8.ValidString(s) || strings.ContainsFunc(s, unprintable) || strings.ContainsAny(s, " \\'") {
		return remote{}, errors.New("URL: empty, too long, or with spaces, quotes, backslashes or control characters")
	}
	if s[0] == '-' {
		return remote{}, errors.New("URL: must not begin with '-'")
	}
	if path.IsAbs(s) {
		return remote{url: s, local: path.Clean(s), display: s}, nil
	}
	if !strings.Contains(s, "://") {
		return parseSCP(s)
	}
	u, err := url.Parse(s)
	if err != nil {
		return remote{}, errors.New("URL: cannot be parsed") // the error would repeat it with its credentials
	}
	if strings.HasPrefix(strings.TrimLeft(u.Path, "/"), "-") || u.RawQuery != "" || u.Fragment != "" {
		return remote{}, fmt.Errorf("URL on %q: path begins with '-', or has query or fragment", u.Host)
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" || u.User != nil || !path.IsAbs(u.Path) {
			return remote{}, errors.New("URL: want file:///absolute/path")
		}
		return remote{url: s, local: path.Clean(u.Path), display: s}, nil
	case "https", "ssh":
		return networkRemote(u)
	}
	return remote{}, fmt.Errorf("URL with scheme %q: want https, ssh or file", u.Scheme)
}

func networkRemote(u *url.URL) (remote, error) {
	if u.Hostname() == "" || u.Host[0] == '-' || u.Opaque != "" || u.User != nil && strings.HasPrefix(u.User.Username(), "-") {
		return remote{}, errors.New("URL: no proper host or user")
	}
	r := remote{url: u.String()}
	shown := *u
	if u.User != nil {
		password, has := u.User.Password()
		switch u.Scheme {
		case "ssh":
			shown.User = url.User(u.User.Username()) // the login name is no secret
		default:
			shown.User = nil // a token is often given as the user
			r.addSecret(u.User.Username())
		}
		if has {
			r.addSecret(password)
		}
		r.addSecret(u.User.String())
	}
	r.display = shown.String()
	return r, nil
}

// parseSCP reads ssh's short form user@host:path.
func parseSCP(s string) (remote, error) {
	user, rest, ok := strings.Cut(s, "@")
	host, dir, ok2 := strings.Cut(rest, ":")
	const name = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	if !ok || !ok2 || user == "" || host == "" || dir == "" || strings.Trim(user+host, name) != "" ||
		host[0] == '-' || dir[0] == '-' || dir[0] == ':' {
		return remote{}, errors.New("URL: want https://…, ssh://…, file:///… or user@host:path")
	}
	return remote{url: s, display: s}, nil
}

func (r *remote) addSecret(s string) {
	if s != "" {
		r.secrets = append(r.secrets, s, url.QueryEscape(s), url.PathEscape(s))
	}
}

// scrub takes the credentials out of an error, and with them the error's
// chain except for what callers decide by, and adds what mends a refusal.
func (r *remote) scrub(err error) error {
	err = r.explain(err)
	msg := err.Error()
	clean := msg
	for _, s := range r.secrets {
		clean = strings.ReplaceAll(clean, s, "xxxxx")
	}
	if len(r.secrets) == 0 {
		return err
	}
	for _, keep := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, keep) {
			return fmt.Errorf("%s: %w", clean, keep)
		}
	}
	return errors.New(clean)
}

// wanted is a reference, or the hash of a commit.
type wanted struct {
	name plumbing.ReferenceName
	hash plumbing.Hash
}

// parseWanted holds the source to one reference; none is the remote's HEAD.
func parseWanted(src Source) (wanted, error) {
	given := 0
	for _, s := range []string{src.Branch, src.Tag, src.Commit} {
		if s != "" {
			given++
		}
	}
	var w wanted
	switch {
	case given > 1:
		return w, errors.New("give one of branch, tag and commit")
	case src.Commit != "":
		if len(src.Commit) != 40 || strings.Trim(src.Commit, "0123456789abcdef") != "" {
			return w, errors.New("commit: want all 40 hexadecimal digits")
		}
		return wanted{hash: plumbing.NewHash(src.Commit)}, nil
	case src.Branch != "":
		w.name = plumbing.NewBranchReferenceName(src.Branch)
	case src.Tag != "":
		w.name = plumbing.NewTagReferenceName(src.Tag)
	default:
		return wanted{name: plumbing.HEAD}, nil
	}
	// CVE-2026-71557: a reference's name is a path in the store.
	if err := w.name.Validate(); err != nil || len(w.name) > 255 || !utf8.ValidString(string(w.name)) || strings.ContainsFunc(string(w.name), unprintable) {
		return w, errors.New("branch or tag: not a name that git allows")
	}
	return w, nil
}

// cleanRoot returns the folder of the policies; "" is the root.
func cleanRoot(p string) (string, error) {
	if p == "" {
		return "", nil
	}
	if len(p) > 2048 || !utf8.ValidString(p) || strings.ContainsFunc(p, unprintable) || strings.ContainsAny(p, "\\:") ||
		path.IsAbs(p) || path.Clean(p) != p || p == "." || p == ".." || strings.HasPrefix(p, "../") || p[0] == '-' {
		return "", fmt.Errorf("path %.100q: want a clean relative path inside the repository", p)
	}
	for part := range strings.SplitSeq(p, "/") {
		if strings.EqualFold(part, ".git") {
			return "", fmt.Errorf("path %.100q: leads into git's own folder", p)
		}
	}
	return p, nil
}
