package server_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1" //nolint:gosec // git's own
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/server"
	"signet.example/test/parts"
)

// A bare repository that is written byte by byte.
type rawRepo struct {
	t   *testing.T
	dir string
}

func newRawRepo(t *testing.T) *rawRepo {
	t.Helper()
	r := &rawRepo{t, t.TempDir()}
	for name, content := range map[string]string{
		"HEAD": "ref: refs/heads/main\n", "config": "[core]\n\trepositoryformatversion = 0\n\tbare = true\n", "refs/heads/x": "", "objects/pack/x": "",
	} {
		r.write(name, []byte(content))
	}
	return r
}

func (r *rawRepo) write(name string, content []byte) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// object writes a loose object of the content, followed by zeros.
func (r *rawRepo) object(kind, content string, zeros int64) string {
	r.t.Helper()
	head := fmt.Sprintf("%s %d\x00%s", kind, int64(len(content))+zeros, content)
	sum := sha1.Sum([]byte(head)) //nolint:gosec // git's own; of a bomb it is wrong, and nobody gets as far
	id := hex.EncodeToString(sum[:])
	r.write("objects/"+id[:2]+"/"+id[2:], deflate(head, zeros))
	return id
}

func (r *rawRepo) commit(tree string) {
	r.t.Helper()
	id := r.object("commit", "tree "+tree+"\nauthor a <a@test.example> 1 +0000\ncommitter a <a@test.example> 1 +0000\n\nm\n", 0)
	r.write("refs/heads/main", []byte(id+"\n"))
}

func treeOf(entries ...string) string {
	var b strings.Builder
	for e := range slices.Chunk(entries, 3) {
		id, _ := hex.DecodeString(e[2])
		fmt.Fprintf(&b, "%s %s\x00%s", e[0], e[1], id)
	}
	return b.String()
}

// deflate is fast for any number of zeros: a block of them is repeated.
func deflate(content string, zeros int64) []byte {
	const block = 1 << 20
	var out, one bytes.Buffer
	z := zlib.NewWriter(&out)
	_, _ = z.Write([]byte(content)) // a buffer takes it
	_ = z.Flush()
	if zeros >= block {
		z1 := zlib.NewWriter(&one)
		_ = z1.Flush()
		one.Reset()
		_, _ = z1.Write(make([]byte, block))
		_ = z1.Flush()
		for ; zeros >= block; zeros -= block {
			out.Write(one.Bytes())
		}
	}
	_, _ = z.Write(make([]byte, zeros))
	_ = z.Close() // its checksum is that of less, at the end of gigabytes
	return out.Bytes()
}

func (r *rawRepo) source(url string) string {
	return "apiVersion: signet.example/v1alpha1\nkind: PolicySource\nmetadata: {name: main}\nspec: {url: \"" + url + "\", branch: main, poll: 1s}\n"
}

// wide is a test whose last value has 2 gigabytes when it is written out, which one
// step of the evaluator does.
var wide = func() string {
	list := func(element string, n int) string { return strings.TrimSuffix(strings.Repeat(element+", ", n), ", ") }
	return fmt.Sprintf("package signet.authz_test\n\ntest_x if {\n\tx := [%s]\n\ty := [%s]\n\tz := [%s]\n\tw := [%s]\n\tcount(w) == 0\n}\n",
		list("1", 100), list("x", 100), list("y", 100), list("z", 20_000))
}()

// doublings is a test whose value is 2 to the n bytes large.
func doublings(n int) string {
	var b strings.Builder
	b.WriteString("package signet.authz_test\n\ntest_x if {\n\tx0 := [\"aaaaaaaaaaaaaaaa\"]\n")
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, "\tx%d := [x%d, x%d]\n", i, i-1, i-1)
	}
	fmt.Fprintf(&b, "\tcount(x%d) == 2\n}\n", n)
	return b.String()
}

// nestedComprehensions take the compiler twice as long for each more.
func nestedComprehensions(n int) string {
	return "package signet.authz\n\nallow contains \"x\" if " + strings.Repeat("count([1 | ", n) + "true" + strings.Repeat("]) > 0", n) + "\n"
}

// serveBomb is a git server whose one commit has a blob of zeros.
func serveBomb(t *testing.T, zeros int64, requests *atomic.Int64) string {
	t.Helper()
	commit := strings.Repeat("c", 40)
	line := func(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if strings.HasSuffix(q.URL.Path, "/info/refs") {
			w.Header().Set("content-type", "application/x-git-upload-pack-advertisement")
			_, _ = io.WriteString(w, line("# service=git-upload-pack\n")+"0000"+
				line(commit+" HEAD\x00shallow symref=HEAD:refs/heads/main\n")+line(commit+" refs/heads/main\n")+"0000")
			return
		}
		requests.Add(1)
		w.Header().Set("content-type", "application/x-git-upload-pack-result")
		_, _ = io.WriteString(w, line("shallow "+commit+"\n")+"0000"+line("NAK\n"))
		_, _ = w.Write(append([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x01"), size(zeros)...))
		_, _ = w.Write(deflate("", zeros))
	}))
	t.Cleanup(srv.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file)
	return srv.URL + "/r.git"
}

// size is the head of a blob in a pack.
func size(n int64) []byte {
	b := []byte{byte(3<<4 | n&15)} //nolint:gosec // the low bits
	for n >>= 4; n > 0; n >>= 7 {
		b[len(b)-1] |= 0x80
		b = append(b, byte(n&0x7f))
	}
	return b
}

// rss of this process, which is the server here.
func rss(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// Whoever may push may write policies, and nothing else.
func TestAHostilePushCostsTheServerNothingAndIsReadOnce(t *testing.T) {
	// What a fetch inflates is bounded by the processor time of its process alone.
	const huge = 3 << 30
	pack := int64(96 << 20) // more than the server may grow by
	if parts.Soak() {
		pack = huge
	}
	r := newRig(t)
	good := newRawRepo(t)
	rego := good.object("blob", allowAll, 0)
	good.commit(good.object("tree", treeOf("100644", "a.rego", rego), 0))
	r.apply(registry + shop + "---\n" + good.source("file://"+good.dir))
	revision := r.sync().GetRevision()

	var read atomic.Int64
	for _, c := range []struct {
		name string
		push func()
		says string
	}{
		{"a test whose value is repeated in itself", func() {
			good.commit(good.object("tree", treeOf("100644", "a.rego", rego, "100644", "a_test.rego", good.object("blob", wide, 0)), 0))
		}, "killed: memory is over its limit"},
		{"doublings by a builtin", func() {
			test := strings.ReplaceAll(doublings(26), "[x", "concat(\"\", [x")
			test = strings.ReplaceAll(test, "]\n", "])\n")
			test = strings.Replace(test, "x0 := [\"aaaaaaaaaaaaaaaa\"])", "x0 := \"aaaaaaaaaaaaaaaa\"", 1)
			good.commit(good.object("tree", treeOf("100644", "a.rego", rego, "100644", "a_test.rego", good.object("blob", test, 0)), 0))
		}, "concat: more than a builtin may be given"},
		{"comprehensions in each other", func() {
			good.commit(good.object("tree", treeOf("100644", "a.rego", good.object("blob", nestedComprehensions(30), 0)), 0))
		}, "nested more than 8 deep"},
		{"a module of zeros", func() {
			good.commit(good.object("tree", treeOf("100644", "a.rego", rego, "100644", "b.rego", good.object("blob", "package signet.authz\n#", huge)), 0))
		}, "bytes: at most 1048576"},
		{"a folder of zeros", func() {
			good.commit(good.object("tree", treeOf("100644", "a.rego", rego, "40000", "b", good.object("tree", treeOf("100644", "a.rego", rego), huge)), 0))
		}, "bytes: at most 1048576"},
		{"a commit of zeros", func() {
			good.write("refs/heads/main", []byte(good.object("commit", "tree "+rego+"\n", huge)+"\n"))
		}, "bytes: at most 1048576"},
		{"many references", func() {
			var b bytes.Buffer
			for i := range 200_000 {
				fmt.Fprintf(&b, "%040x refs/heads/b%d\n", i, i)
			}
			good.write("packed-refs", b.Bytes())
			good.commit(good.object("tree", treeOf("100644", "a.rego", good.object("blob", "no rego", 0)), 0))
		}, "does not compile"},
		{"a pack of zeros", func() { r.apply(good.source(serveBomb(t, pack, &read))) }, "fetch: policy source main"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.push()
			debug.FreeOSMemory()
			before := rss(t)
			most := peak(t)
			begun := time.Now()
			st := r.sync()
			grown := (most() - before) >> 20
			t.Logf("the server grew by %d MiB; after %s: %s", grown, time.Since(begun).Round(time.Millisecond), st.GetError())
			if !strings.Contains(st.GetError(), c.says) || st.GetRevision() != revision {
				t.Errorf("status %v", st)
			}
			if grown > 64 {
				t.Errorf("the server grew by %d MiB", grown)
			}
			awaitFinding(t, r, "SIG005", "stays in force")
		})
	}
}

// peak samples this process' memory until it is asked for the most that it saw.
func peak(t *testing.T) func() int64 {
	stop, most := make(chan struct{}), make(chan int64)
	go func() { // ends when it is asked
		seen := int64(0)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			seen = max(seen, rss(t))
			select {
			case <-stop:
				most <- seen
				return
			case <-tick.C:
			}
		}
	}()
	return func() int64 {
		close(stop)
		return <-most
	}
}

// What was killed once is not begun again for each poll: only its commit is looked up.
func TestACommitWhoseReadingWasKilledIsReadAgainOnlyByHand(t *testing.T) {
	t.Parallel()
	// Less memory is filled sooner; what the product gives is used up in the test above.
	r := newRigWith(t, func(ctx context.Context, cfg server.Config, log *slog.Logger) error {
		return server.RunInProcess(ctx, cfg, log, opened, server.PolicyMemory(256<<20))
	})
	repo := newRawRepo(t)
	rego := repo.object("blob", allowAll, 0)
	repo.commit(repo.object("tree", treeOf("100644", "a.rego", rego, "100644", "a_test.rego", repo.object("blob", wide, 0)), 0))
	r.apply(registry + shop + "---\n" + repo.source("file://"+repo.dir))
	errs := func() string { return r.metric(`signet_server_policy_sync_errors_total{source="main"}`) }
	for end := time.Now().Add(time.Minute); errs() == "0" || errs() == ""; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not read")
		}
	}
	const ended = "was ended: " // by whichever limit it meets first
	awaitFinding(t, r, "SIG005", ended)
	if n := errs(); n != "1" {
		t.Errorf("read %s times", n)
	}
	time.Sleep(3500 * time.Millisecond) // three polls
	if n := errs(); n != "1" {
		t.Errorf("read %s times", n)
	}
	if st := r.sync(); !strings.Contains(st.GetError(), ended) || errs() != "2" {
		t.Errorf("by hand: %v after %s", st, errs())
	}
	repo.commit(repo.object("tree", treeOf("100644", "a.rego", rego), 0))
	eventually(t, "the next commit", func() bool {
		resp, err := r.admin.Check(t.Context(), &api.CheckRequest{})
		return err == nil && !slices.ContainsFunc(resp.GetFindings(), func(f *api.Finding) bool { return f.GetId() == "SIG005" })
	})
}

// metric is the value of a series of the server's.
func (r *rig) metric(series string) string {
	r.t.Helper()
	resp, err := http.Get("http://" + r.addr.Metrics + "/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if v, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
