package arch

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// homes reports where a call of the system stands that others have by a function of
// ours: a second home of the same idea is as weak as what it forgot.
var homes = []struct {
	call  string // regular expression
	files []string
	why   string
}{
	{`\bos\.(Rename|CreateTemp)\(`, []string{"internal/durable/durable.go"}, "a file is replaced by internal/durable"},
	{`\bos\.O_CREATE\b`, []string{"agent/wayout/remembered.go", "dev/children.go", "server/server.go", "store/store.go"}, "a file is written whole and durably by internal/durable; a lock, a child's output and a database are opened"},
	{`\bGetsockoptUcred\(`, []string{"internal/unixsock/peer.go", "attestation/peer.go"}, "who is at the other end of a socket is unixsock.PeerOf's to say; attestation asks with its pidfd, at one instant"},
	{`\bListen(Unix)?\([^)]*"unix"`, []string{"internal/unixsock/listen.go"}, "what a socket may replace is unixsock.Listen's to say"},
	{`<- struct\{\}\{\}:\s+default:`, []string{"internal/watched/watched.go", "ads/stream.go"}, "who waits is woken by a watched.Signal; ads imports nothing"},
	{`\bbackoff\.Config\b|\(\*errdetails\.RetryInfo\)|\bmin\(2\*`, []string{"internal/retry/retry.go"}, "how long to wait before another try is internal/retry's to say"},
	{`strings\.(Contains|HasPrefix|HasSuffix|Cut)\([^\n]*(\.Error\(\)|\.Msg\b)`, nil, "nothing is decided by the words of an error"},
	{`\b(Socketpair|FileConn)\(`, []string{"internal/unixsock/pair.go"}, "a connection that a child inherits is unixsock's to make"},
	{`\bFlock\(`, []string{"internal/durable/lock.go"}, "a lock is one that a check can ask about without taking it"},
	{`\bPR_SET_DUMPABLE\b`, []string{"internal/child/confine.go"}, "whoever has a key keeps its memory to itself by child.KeepSecret"},
	{`"os/user"`, []string{"internal/child/user.go"}, "users are found by internal/child: no number is read in two ways"},
	{`\bhttp\.Server\{`, []string{"internal/scrape/scrape.go", "dev/service.go"}, "who asks for metrics is bounded by internal/scrape; the demo's applications are its user's"},
	{`\bGetrlimit\(unix\.RLIMIT_NOFILE`, []string{"internal/openfiles/openfiles.go"}, "how many files a process may open is internal/openfiles's to say"},
	{`\bgrpc\.NewServer\(`, []string{"internal/decode/codec.go"}, "what a message becomes is bounded by internal/decode before it is decoded"},
	{`\bads\.ServerOptions\(nil\)`, nil, "as above"},
	{`\bMemfdCreate\(`, []string{"internal/child/memory.go"}, "shared memory has its seals"},
}

func TestEachIdeaHasOneHome(t *testing.T) {
	found := map[string]bool{}
	err := filepath.WalkDir(root(t), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root(t), path)
		if err != nil {
			return err
		}
		if d.IsDir() && (name == "test" || strings.HasPrefix(name, ".") && name != ".") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		content, err := os.ReadFile(path)
		for _, h := range homes {
			if !regexp.MustCompile(h.call).Match(content) {
				continue
			}
			if found[name+h.call] = true; !slices.Contains(h.files, name) {
				t.Errorf("%s has %s: %s", name, h.call, h.why)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range homes {
		for _, f := range h.files {
			if !found[f+h.call] {
				t.Errorf("%s has no %s", f, h.call)
			}
		}
	}
}
