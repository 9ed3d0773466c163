package identity

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const (
	defaultBranch = "main"
	defaultPoll   = time.Minute
	minPoll       = time.Second
	maxPoll       = 24 * time.Hour
	maxRefBytes   = 255
)

// PolicySource is a git repository of Rego. Exactly one of Branch, Tag and
// Commit is set.
type PolicySource struct {
	Name, URL           string
	Branch, Tag, Commit string
	// Path of the folder with the policies, relative to the root; "" is the root.
	Path string
	Poll time.Duration
}

// PolicySourceSpec is the spec of kind PolicySource.
type PolicySourceSpec struct {
	URL    string `yaml:"url" json:"url"`
	Branch string `yaml:"branch,omitempty" json:"branch,omitempty"`
	Tag    string `yaml:"tag,omitempty" json:"tag,omitempty"`
	Commit string `yaml:"commit,omitempty" json:"commit,omitempty"`
	Path   string `yaml:"path,omitempty" json:"path,omitempty"`
	Poll   string `yaml:"poll,omitempty" json:"poll,omitempty"`
}

// Build checks the spec; without branch, tag and commit the branch is main.
func (s PolicySourceSpec) Build(name string, _ spiffeid.TrustDomain) (PolicySource, error) {
	errs := []error{checkObjectName(name), s.checkRef()}
	if err := checkGitURL(s.URL); err != nil {
		errs = append(errs, &FieldError{Path: "spec.url", Msg: err.Error()})
	}
	if err := checkTreePath(s.Path); err != nil {
		errs = append(errs, &FieldError{Path: "spec.path", Msg: err.Error()})
	}
	poll, err := buildDuration("spec.poll", s.Poll, defaultPoll, minPoll, maxPoll)
	if err := errors.Join(append(errs, err)...); err != nil {
		return PolicySource{}, err
	}
	out := PolicySource{Name: name, URL: s.URL, Branch: s.Branch, Tag: s.Tag, Commit: s.Commit, Path: s.Path, Poll: poll}
	if s.Branch == "" && s.Tag == "" && s.Commit == "" {
		out.Branch = defaultBranch
	}
	return out, nil
}

func (s PolicySourceSpec) checkRef() error {
	given := ""
	for _, f := range []struct {
		field, value string
		check        func(string) error
	}{
		{"branch", s.Branch, checkRefName},
		{"tag", s.Tag, checkRefName},
		{"commit", s.Commit, checkCommit},
	} {
		if f.value == "" {
			continue
		}
		if given != "" {
			return fieldError("spec."+f.field, "not together with %s: one of branch, tag and commit", given)
		}
		given = f.field
		if err := f.check(f.value); err != nil {
			return &FieldError{Path: "spec." + f.field, Msg: err.Error()}
		}
	}
	return nil
}

// checkGitURL accepts http(s), ssh and git URLs, file URLs, absolute paths and
// the scp form user@host:path. It refuses what a git transport could take for
// an option or a helper command ("-...", "ext::..."), and passwords, since
// manifests are stored and shown.
func checkGitURL(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("is needed")
	case s[0] == '-':
		return fmt.Errorf("URL %s: must not begin with -", abbreviate(s))
	case len(s) > maxTextBytes || !printable(s) || strings.ContainsAny(s, " \\"):
		return fmt.Errorf("URL %s: too long, or with spaces, backslashes or control characters", abbreviate(s))
	case path.IsAbs(s):
		return nil
	case !strings.Contains(s, "://"):
		return checkSCP(s)
	}
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("URL %s: cannot be parsed", abbreviate(s))
	}
	if u.User != nil {
		if _, ok := u.User.Password(); ok || u.Scheme == "http" || u.Scheme == "https" {
			return fmt.Errorf("URL on host %s: credentials do not belong in a manifest", abbreviate(u.Host))
		}
	}
	switch u.Scheme {
	case "http", "https", "ssh", "git":
		if u.Hostname() == "" || u.Host[0] == '-' || (u.User != nil && strings.HasPrefix(u.User.Username(), "-")) {
			return fmt.Errorf("URL %s: no proper host", abbreviate(s))
		}
	case "file":
		if u.Host != "" || !path.IsAbs(u.Path) {
			return fmt.Errorf("URL %s: want file:///absolute/path", abbreviate(s))
		}
	default:
		return fmt.Errorf("URL %s: want https, http, ssh, git or file", abbreviate(s))
	}
	return nil
}

func checkSCP(s string) error {
	user, rest, ok := strings.Cut(s, "@")
	host, dir, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 || CheckName(user) != nil || CheckName(host) != nil || dir == "" || dir[0] == '-' || dir[0] == ':' {
		return fmt.Errorf("URL %s: want a URL, an absolute path or user@host:path", abbreviate(s))
	}
	return nil
}

// checkRefName holds a branch or tag to git's own rules (git-check-ref-format)
// and to those that keep it out of option and path position.
func checkRefName(s string) error {
	bad := len(s) > maxRefBytes || !printable(s) ||
		strings.ContainsAny(s, " ~^:?*[\\") || strings.Contains(s, "..") || strings.Contains(s, "//") || strings.Contains(s, "@{") ||
		s[0] == '-' || s[0] == '/' || s == "@" || strings.HasSuffix(s, "/") || strings.HasSuffix(s, ".")
	for part := range strings.SplitSeq(s, "/") {
		bad = bad || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock")
	}
	if bad {
		return fmt.Errorf("%s is not the name of a branch or tag", abbreviate(s))
	}
	return nil
}

// checkCommit wants the whole hash: a shortened one can become another commit.
func checkCommit(s string) error {
	if (len(s) != 40 && len(s) != 64) || strings.Trim(s, "0123456789abcdef") != "" {
		return fmt.Errorf("%s is not a whole commit hash in lower case", abbreviate(s))
	}
	return nil
}

func checkTreePath(s string) error {
	if s == "" {
		return nil
	}
	if len(s) > maxTextBytes || !printable(s) || path.IsAbs(s) || path.Clean(s) != s || s == "." || s == ".." || strings.HasPrefix(s, "../") || s[0] == '-' || strings.ContainsAny(s, "\\:") {
		return fmt.Errorf("path %s: want a clean relative path inside the repository", abbreviate(s))
	}
	for part := range strings.SplitSeq(s, "/") {
		if strings.EqualFold(part, ".git") {
			return fmt.Errorf("path %s: leads into git's own folder", abbreviate(s))
		}
	}
	return nil
}
