package envoy

import (
	"errors"
	"os"
	"strings"
	"sync"
	"time"

	"signet.example/internal/child"
	"signet.example/proxy"
)

// versionWithin is how long a program has to answer `--version`. Envoy does in some
// 50 ms; a busy host gets time, and whoever says nothing is of no known version.
const versionWithin = 10 * time.Second

// mostVersion is as much of an answer as is looked at.
const mostVersion = 4 << 10

// programs remembers the versions of programs, each of which is asked once.
type programs struct {
	mu       sync.Mutex // held while one is asked: whoever else starts it needs the answer, too
	versions map[program]string
}

// program is one file as one user runs it; one that is replaced is another. What a user's
// processes answer can be that user's doing, so it is nobody else's.
type program struct {
	path           string
	size, modified int64
	uid            uint32
}

// version is what a program says that it is, such as "1.40.0"; "" where it says nothing that
// is a version. One that is too old is an error.
func (p *programs) version(path string, as *child.User) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	key := program{path, info.Size(), info.ModTime().UnixNano(), Proxy{User: as}.UID()}
	p.mu.Lock()
	defer p.mu.Unlock()
	v, asked := p.versions[key]
	if !asked {
		v = askVersion(path, as)
		if p.versions == nil {
			p.versions = map[program]string{}
		}
		p.versions[key] = v
	}
	err = proxy.ValidEnvoy(v)
	if errors.Is(err, proxy.ErrOldEnvoy) {
		return "", err
	}
	if err != nil {
		return "", nil //nolint:nilerr // some other program's word: nothing is known of it
	}
	return v, nil
}

// askVersion runs a program as its proxy will run, so that it gets nothing more by that.
func askVersion(path string, as *child.User) string {
	var said head
	p, err := child.Start(child.Spec{
		Path: path, Args: []string{"--version"}, Env: []string{"PATH=" + os.Getenv("PATH")}, Stdout: &said, User: as,
		Limits: child.Limits{Deadline: versionWithin},
	})
	if err != nil {
		return "" // it cannot be started as a proxy either, which says why
	}
	<-p.Done()
	return versionIn(string(said))
}

// head keeps the beginning of what is written to it.
type head []byte

func (h *head) Write(b []byte) (int, error) {
	*h = append(*h, b[:min(len(b), mostVersion-len(*h))]...)
	return len(b), nil
}

// versionIn is the version in what Envoy says of its build, "" for none: of --version
// "envoy  version: commit/1.40.0/Clean/RELEASE/BoringSSL", of /server_info what follows the colon.
func versionIn(said string) string {
	parts := strings.Split(said[strings.LastIndex(said, ":")+1:], "/")
	if len(parts) < 2 {
		return ""
	}
	return parts[1]
}
