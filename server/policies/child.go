package policies

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"signet.example/api"
	"signet.example/internal/child"
	"signet.example/internal/unixsock"
	"signet.example/policy"
	"signet.example/policy/repo"
)

// Whoever may push to a policy repository writes what is inflated, compiled and run
// here. So that happens in a process of its own, which is killed at these limits; the
// server takes from it the text of modules that passed, and no more of it than
// maxReading.
const (
	// Memory is what the process may use: the largest policies that a revision
	// may have take 420 MiB to read, compile and test.
	Memory = 768 << 20
	// They take 8 s of processor time, and a busy machine gives it slowly.
	childCPU      = 30 * time.Second
	childDeadline = 2 * time.Minute
	testTime      = time.Minute // of compiling and testing, which are then not tried again
	fileBytes     = 512 << 20   // of one file of the clone
	childFiles    = 256
	// maxReading bounds an answer: policy's 4 MiB of modules with their names.
	maxReading = 6 << 20
	maxRequest = 64 << 10
	// maxWarnings are passed on, of all that the tests gave.
	maxWarnings = 100
	// childNice: its work is less urgent than anything else's here.
	childNice = 10
)

// limitsOf are those of a process that may use so much memory. From two thirds of
// it on, the process collects garbage instead of growing.
func limitsOf(memory uint64) (limits child.Limits, heap string) {
	return child.Limits{
		RSS: memory, Data: 2 * memory, CPU: childCPU, Files: childFiles, FileSize: fileBytes, Deadline: childDeadline,
	}, fmt.Sprintf("GOMEMLIMIT=%dMiB", memory>>20*2/3)
}

// Reading is what came of reading a source.
type Reading struct {
	// Commit that its branch or tag was at; "" if that is not known.
	Commit    string
	Unchanged bool      // the commit is the failed one, and nothing else was read
	Tree      repo.Tree // without tests
	Tests     int
	Packages  []policy.Package
	Warnings  []string
}

// hardError is a failure that trying the same commit again does not mend.
type hardError struct{ error }

func (e hardError) Unwrap() error { return e.error }

// Read runs one such process with so much memory. With failed its commit is
// looked up, and only another one is read.
func Read(ctx context.Context, exe string, memory uint64, src repo.Source, login repo.Login, dir, failed string) (Reading, error) {
	ours, theirs, err := unixsock.Pair(unix.SOCK_STREAM, "policies")
	if err != nil {
		return Reading{}, fmt.Errorf("read policies: %w", err)
	}
	defer func() { _ = ours.Close() }() // the child has ended
	tail := child.NewTail(io.Discard)
	limits, heap := limitsOf(memory)
	p, err := child.Start(child.Spec{
		Path: exe, Args: []string{"policy-child"}, Confines: true,
		Env:   child.OwnEnv(append(fetchEnv(), heap, "GOTRACEBACK=single")...),
		Files: []*os.File{theirs}, Stdout: tail, Stderr: tail, Limits: limits,
	})
	_ = theirs.Close() // the child has its own
	if err != nil {
		return Reading{}, fmt.Errorf("read policies: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { p.Stop(0) }) // it has nothing to finish
	defer stop()
	last, err := ask(ours, &api.PolicyRead{
		Name: src.Name, Url: src.URL, Branch: src.Branch, Tag: src.Tag, Commit: src.Commit, Path: src.Path, Dir: dir, FailedCommit: failed,
		User: login.User, Password: login.Password, SshKey: login.SSHKey, KnownHosts: login.KnownHosts,
	})
	if err == nil {
		p.Stop(time.Second) // it is ending
	}
	p.Stop(0)
	got := Reading{
		Commit: last.GetCommit(), Unchanged: last.GetUnchanged(), Tests: int(last.GetTests()),
		Tree: repo.Tree{URL: last.GetUrl(), Commit: last.GetReadCommit()},
	}
	for _, m := range last.GetModules() {
		got.Tree.Modules = append(got.Tree.Modules, policy.Module{Path: m.GetPath(), Rego: m.GetRego()})
	}
	for _, k := range last.GetPackages() {
		got.Packages = append(got.Packages, policy.Package{Node: k.GetNode(), File: k.GetFile(), Line: int(k.GetLine())})
	}
	got.Warnings = last.GetWarnings()
	switch {
	case last.GetDone() && last.GetError() == "":
		return got, nil
	case last.GetDone() && last.GetHard():
		return got, hardError{errors.New(last.GetError())}
	case last.GetDone():
		return got, errors.New(last.GetError())
	case ctx.Err() != nil:
		return got, fmt.Errorf("read policies: %w", ctx.Err())
	}
	said := tail.Text()
	if len(said) > 200 {
		said = said[:200]
	}
	return got, hardError{fmt.Errorf("reading the repository of policy source %s was ended: %w (%s)", src.Name, p.Err(), cmp.Or(said, err.Error()))}
}

// fetchEnv is what a fetch needs of the environment: proxies, authorities, and how
// ssh knows hosts and users.
func fetchEnv() []string {
	var env []string
	for _, name := range []string{
		"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy",
		"SSL_CERT_FILE", "SSL_CERT_DIR", "HOME", "SSH_KNOWN_HOSTS", "SSH_AUTH_SOCK",
	} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// ask sends a request and returns the last answer; with an error, the last there was.
func ask(conn net.Conn, read *api.PolicyRead) (*api.PolicyReading, error) {
	last := &api.PolicyReading{}
	if err := writeMessage(conn, read); err != nil {
		return last, err
	}
	for !last.GetDone() {
		next := &api.PolicyReading{}
		if err := readMessage(conn, next, maxReading); err != nil {
			return last, err
		}
		last = next
	}
	return last, nil
}

func writeMessage(w io.Writer, m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)) //nolint:gosec // bounded by its reader
	return err
}

func readMessage(r io.Reader, m proto.Message, most uint32) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("it said nothing more: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > most {
		return fmt.Errorf("an answer of %d bytes: at most %d", n, most)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return fmt.Errorf("it ended within its answer: %w", err)
	}
	return proto.Unmarshal(b, m)
}

// Checked is what a tree's own tests and the checks of it say: how many passed, and
// warnings. It is handed to RunChild, since only the process that reads has need of it.
type Checked func(ctx context.Context, tree repo.Tree) (passed int, warnings []string, err error)

// RunChild reads the one source that the server asks for on the socket that it inherits.
func RunChild(ctx context.Context, checked Checked) error {
	// Best effort: where memory is short it goes first, and where time is, it waits.
	_ = child.Expendable(1000)
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, childNice)
	if err := child.Confine(); err != nil {
		return fmt.Errorf("policy-child: %w", err)
	}
	conn, err := unixsock.FromFile(os.NewFile(child.FirstFile, "server"))
	if err != nil {
		return fmt.Errorf("policy-child: `signet server` starts it: %w", err)
	}
	defer func() { _ = conn.Close() }() // what was written is the server's
	var read api.PolicyRead
	if err := readMessage(conn, &read, maxRequest); err != nil {
		return fmt.Errorf("policy-child: %w", err)
	}
	src := repo.Source{Name: read.GetName(), URL: read.GetUrl(), Branch: read.GetBranch(), Tag: read.GetTag(), Commit: read.GetCommit(), Path: read.GetPath()}
	login := repo.Login{User: read.GetUser(), Password: read.GetPassword(), SSHKey: read.GetSshKey(), KnownHosts: read.GetKnownHosts()}
	answer := &api.PolicyReading{}
	if answer.Commit, err = login.Resolve(ctx, src); err != nil {
		answer.Done, answer.Error = true, sayable("fetch: "+err.Error())
		return writeMessage(conn, answer)
	}
	if answer.GetCommit() == read.GetFailedCommit() {
		answer.Done, answer.Unchanged = true, true
		return writeMessage(conn, answer)
	}
	if err := writeMessage(conn, answer); err != nil { // so that it is known if this process is killed
		return err
	}
	readSource(ctx, src, login, read.GetDir(), checked, answer)
	answer.Done = true
	return writeMessage(conn, answer)
}

// readSource fetches, compiles and tests.
func readSource(ctx context.Context, src repo.Source, login repo.Login, dir string, checked Checked, answer *api.PolicyReading) {
	defer func() { answer.Error = sayable(answer.GetError()) }()
	tree, err := login.Fetch(ctx, src, dir)
	if err != nil {
		answer.Error = "fetch: " + err.Error()
		return
	}
	answer.Url, answer.ReadCommit = tree.URL, tree.Commit
	ctx, cancel := context.WithTimeout(ctx, testTime)
	defer cancel()
	if _, err := policy.Compile(policy.NewRevision(tree.URL, tree.Commit, served(tree.Modules), policy.Generated{})); err != nil {
		answer.Error = fmt.Sprintf("commit %.12s does not compile: %v", tree.Commit, withoutRevision(err))
		return
	}
	passed, warnings, err := checked(ctx, tree)
	if err != nil {
		answer.Error, answer.Hard = err.Error(), ctx.Err() != nil // it names the commit
		return
	}
	packages, err := policy.Packages(tree.Modules)
	if err != nil {
		answer.Error = fmt.Sprintf("commit %.12s: %v", tree.Commit, err)
		return
	}
	for _, k := range packages {
		answer.Packages = append(answer.Packages, &api.NodePackage{Node: k.Node, File: k.File, Line: int32(k.Line)}) //nolint:gosec // a line of a module
	}
	for _, w := range warnings {
		if len(answer.GetWarnings()) < maxWarnings {
			answer.Warnings = append(answer.Warnings, sayable(w))
		}
	}
	answer.Tests = int32(passed) //nolint:gosec // bounded by the modules
	for _, m := range served(tree.Modules) {
		answer.Modules = append(answer.Modules, &api.PolicyModule{Path: m.Path, Rego: m.Rego})
	}
}

// sayable is an error's text as it may be sent and shown: it quotes a repository.
func sayable(text string) string {
	const most = 4 << 10
	return strings.ToValidUTF8(text[:min(len(text), most)], "\uFFFD")
}
