package repo

import (
	"errors"
	"net/url"
	"time"

	"signet.example/identity"
)

const (
	defaultBranch = "main"
	defaultPoll   = time.Minute
	minPoll       = time.Second
	maxPoll       = 24 * time.Hour
)

// Source is a git repository of Rego, at one of Branch, Tag and Commit.
type Source struct {
	Name, URL           string
	Branch, Tag, Commit string
	// Path of the folder with the policies, relative to the root; "" is the root.
	Path string
	Poll time.Duration
}

// SourceSpec is the spec of kind PolicySource.
type SourceSpec struct {
	URL    string `yaml:"url" json:"url"`
	Branch string `yaml:"branch,omitempty" json:"branch,omitempty"`
	Tag    string `yaml:"tag,omitempty" json:"tag,omitempty"`
	Commit string `yaml:"commit,omitempty" json:"commit,omitempty"`
	Path   string `yaml:"path,omitempty" json:"path,omitempty"`
	Poll   string `yaml:"poll,omitempty" json:"poll,omitempty"`
}

// Build understands the spec; without branch, tag and commit the branch is main.
// Whether it would be fetched is Check's to say: a server starts with what it has stored.
func (s SourceSpec) Build(name string) (Source, error) {
	out := Source{Name: name, URL: s.URL, Branch: s.Branch, Tag: s.Tag, Commit: s.Commit, Path: s.Path}
	if s.Branch == "" && s.Tag == "" && s.Commit == "" {
		out.Branch = defaultBranch
	}
	var badPoll error
	out.Poll, badPoll = identity.ParseDuration("spec.poll", s.Poll, defaultPoll, minPoll, maxPoll)
	if err := errors.Join(identity.CheckObjectName(name), s.oneRef(), badPoll); err != nil {
		return Source{}, err
	}
	return out, nil
}

func (s SourceSpec) oneRef() error {
	given := ""
	for _, f := range []struct{ field, value string }{{"branch", s.Branch}, {"tag", s.Tag}, {"commit", s.Commit}} {
		switch {
		case f.value == "":
		case given != "":
			return identity.NewFieldError("spec."+f.field, "not together with %s: one of branch, tag and commit", given)
		default:
			given = f.field
		}
	}
	return nil
}

// Check returns, by field, why the source would not be fetched, whatever answers
// there, as Fetch would; and refuses credentials, since manifests are stored and shown.
func (s SourceSpec) Check() error {
	var errs []error
	bad := func(field string, err error) {
		if err != nil {
			errs = append(errs, &identity.FieldError{Path: "spec." + field, Msg: err.Error()})
		}
	}
	if _, err := parseRemote(s.URL); err != nil {
		bad("url", err)
	} else if hasCredentials(s.URL) {
		bad("url", errors.New("credentials do not belong in a manifest, which is stored and shown: name a file of them under policy_git in the server's configuration"))
	}
	for field, src := range map[string]Source{"branch": {Branch: s.Branch}, "tag": {Tag: s.Tag}, "commit": {Commit: s.Commit}} {
		_, err := parseWanted(src)
		bad(field, err)
	}
	_, err := cleanRoot(s.Path)
	bad("path", err)
	return errors.Join(errs...)
}

// hasCredentials reports whether a URL has more than the login name of ssh.
func hasCredentials(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil || u.User == nil { // ssh's short form has no password
		return false
	}
	_, password := u.User.Password()
	return password || u.Scheme != "ssh"
}
