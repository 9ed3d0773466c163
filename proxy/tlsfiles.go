package proxy

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode"
)

// TLSFiles are files of a proxy's host that a mesh names: a certificate with its key, or
// authorities. They are read by the agent of the host, where its operator lets this proxy
// have them, and reach the proxy as a secret that Name names.
type TLSFiles struct {
	Certificate, Key string // both, or
	Authorities      string
}

// The names of secrets that are made of files begin so, as no SPIFFE ID does.
const (
	certificateFiles = "file-certificate:"
	authorityFile    = "file-authorities:"
)

// maxTLSPath is App Mesh's bound of a path, which the API's model has, too.
const maxTLSPath = 255

var escapeTLSPath, unescapeTLSPath = strings.NewReplacer("%", "%25", ":", "%3A"), strings.NewReplacer("%25", "%", "%3A", ":")

// Name is that of the secret.
func (f TLSFiles) Name() string {
	if f.Authorities != "" {
		return authorityFile + escapeTLSPath.Replace(f.Authorities)
	}
	return certificateFiles + escapeTLSPath.Replace(f.Certificate) + ":" + escapeTLSPath.Replace(f.Key)
}

// String is what people read.
func (f TLSFiles) String() string {
	if f.Authorities != "" {
		return f.Authorities
	}
	return f.Certificate + " with " + f.Key
}

// ParseTLSFiles reads a Name; false for that of a secret that is not made of files.
func ParseTLSFiles(name string) (TLSFiles, bool) {
	var f TLSFiles
	if rest, ok := strings.CutPrefix(name, authorityFile); ok {
		f.Authorities = unescapeTLSPath.Replace(rest)
	} else if rest, ok := strings.CutPrefix(name, certificateFiles); ok {
		chain, key, _ := strings.Cut(rest, ":")
		f.Certificate, f.Key = unescapeTLSPath.Replace(chain), unescapeTLSPath.Replace(key)
	}
	return f, f.Name() == name && f.valid() == nil
}

func (f TLSFiles) valid() error {
	if f.Authorities != "" {
		return ValidTLSPath(f.Authorities)
	}
	return errors.Join(ValidTLSPath(f.Certificate), ValidTLSPath(f.Key))
}

// ValidTLSPath refuses a path that does not say by itself which file it means.
func ValidTLSPath(file string) error {
	switch {
	case len(file) > maxTLSPath:
		return fmt.Errorf("a path of %d bytes, at most %d", len(file), maxTLSPath)
	case !path.IsAbs(file) || path.Clean(file) != file || file == "/" || strings.ContainsFunc(file, unicode.IsControl):
		return fmt.Errorf("%.64q; want the absolute path of a file, without . and .., and no other way to write it", file)
	}
	return nil
}
