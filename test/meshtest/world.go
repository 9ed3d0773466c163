package meshtest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"signet.example/api"
	"signet.example/api/admin"
	"signet.example/dev"
	"signet.example/test/parts"
)

// Options of a World. The zero value is a mesh without nodes.
type Options struct {
	// TrustDomain, "test.example" by default.
	TrustDomain string
	// Lifetime of SVIDs, 60 s by default.
	Lifetime time.Duration
	// Nodes get a proxy each, supervised by the agent.
	Nodes []string
	// Manifests are applied before the agent starts. The World adds the node
	// group "hosts" and a Binding for each node.
	Manifests string
	// Policy is the repository's content, by file name. Without one everything
	// is allowed (AllowAll); "none" means no policy source at all.
	Policy map[string]string
	// Binds are addresses of nodes' inbound listeners that are not on loopback; the
	// test sees to it that they are there. The outbound ones stay there.
	Binds map[string]string
	// Ranges are addresses of the group "hosts", as elements of a YAML list.
	Ranges string
	// EgressOpen are addresses, not on loopback, of nodes' outbound listeners.
	EgressOpen map[string]string
	// ServiceAddresses are nodes whose applications find backends at the addresses of services.
	ServiceAddresses []string
	// Capture is what is redirected to nodes' proxies, as the value of the agent's key; their
	// outbound listeners are on 127.0.0.1 then.
	Capture map[string]string
	// Readable are nodes whose proxies can be read (Node.ReadOnly).
	Readable []string
	// OnSockets are nodes with Unix sockets in the place of the application's port.
	OnSockets map[string]OnSockets
	// Applications of nodes' Bindings: who may call out through their proxies, as
	// elements of a YAML list.
	Applications map[string]string
	// Listen is the address of the server's port for agents, 127.0.0.1:0 by default.
	Listen string
	// Apps serve behind the nodes' proxies, by node; Echo by default.
	Apps map[string]App
	// NoAgent leaves the agent to the test.
	NoAgent bool
	// ServerUID and SignerUID give the two users of their own, and the signer its
	// own folder. The test must be root.
	ServerUID, SignerUID uint32
	// Through, where it is set, returns the address that the agent connects to in
	// the place of the server's.
	Through func(server string) string
	// ProxyUser of the agent's configuration; the test's own by default.
	ProxyUser string
	// Disks are the sizes of disks that "server" or "agent-data", folders of the World,
	// have of their own, such as "2m".
	Disks map[string]string
	// Envoy is the program in the place of the real one.
	Envoy string
	// AgentExtra and ServerExtra are appended to the configuration files.
	AgentExtra, ServerExtra string
}

// AllowAll is the policy of tests that are not about policies.
const AllowAll = "package signet.authz\n\nallow contains \"everything\" if true\n"

// World is a running mesh.
type World struct {
	T      testing.TB
	Dir    string
	TD     string
	Admin  api.AdminClient
	Server *Process
	Agent  *Process
	Signer *Process // where it has a user of its own
	Nodes  map[string]Node
	opts   Options
	conn   *grpc.ClientConn
	signet string
	envoy  string
	listen string // the agents' address, kept over restarts
}

// Node is one virtual node's addresses.
type Node struct {
	Name, Bind, App string
	Egress          string // host of the outbound listener, or the path of a socket
}

// EgressAddress is where the node's application sends its own calls.
func (n Node) EgressAddress() string {
	if n.EgressNetwork() == "unix" {
		return n.Egress
	}
	return fmt.Sprintf("%s:%d", n.Egress, EgressPort)
}

// ReadOnly is where the node's proxy can be read, if it is to be.
func (n Node) ReadOnly() string { return n.App + ":9901" }

// Ports of every node: they repeat, since addresses differ.
const (
	AppPort    = 8080
	EgressPort = 15001
)

// Start runs a mesh until the test ends.
func Start(t testing.TB, opts Options) *World {
	t.Helper()
	w := Prepare(t, opts)
	w.init()
	if opts.SignerUID != 0 {
		w.Part()
		w.StartSigner()
	}
	w.StartServer()
	w.configure()
	if !opts.NoAgent {
		w.StartAgent()
		w.AwaitProxies()
	}
	return w
}

// Prepare makes a World in which nothing runs except the nodes' applications: the
// test has files of its own for the rest, and starts it.
func Prepare(t testing.TB, opts Options) *World {
	t.Helper()
	if opts.TrustDomain == "" {
		opts.TrustDomain = "test.example"
	}
	if opts.Lifetime == 0 {
		opts.Lifetime = time.Minute
	}
	if opts.Policy == nil {
		opts.Policy = map[string]string{"all.rego": AllowAll}
	}
	dir, err := os.MkdirTemp("", "sg") // short: a Unix socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	w := &World{T: t, Dir: dir, TD: opts.TrustDomain, Nodes: map[string]Node{}, opts: opts, signet: parts.Signet(t), envoy: cmp.Or(opts.Envoy, parts.Envoy(t)), listen: cmp.Or(opts.Listen, "127.0.0.1:0")}
	t.Cleanup(func() { // the last: disks of their own are gone then
		if !t.Failed() {
			_ = os.RemoveAll(dir) // the next run does not look here
		}
	})
	for name, size := range opts.Disks {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		parts.Disk(t, filepath.Join(dir, name), size)
	}
	t.Cleanup(w.end)
	if len(opts.OnSockets) > 0 { // another user runs it
		w.envoy = w.Place(w.envoy, "envoy")
	}
	w.addNodes()
	return w
}

func (w *World) end() {
	if w.Agent != nil {
		w.Agent.Stop()
	}
	if w.conn != nil {
		_ = w.conn.Close() // the server is gone next
	}
	if w.Server != nil {
		w.Server.Stop()
	}
	if w.Signer != nil {
		w.Signer.Stop()
	}
	if w.T.Failed() {
		w.T.Logf("the mesh's files and logs are kept in %s", w.Dir)
		for _, p := range []*Process{w.Signer, w.Server, w.Agent} {
			if p != nil {
				w.T.Logf("end of %s's log:\n%s", p.Name, p.Tail(4000))
			}
		}
	}
}

func (w *World) addNodes() {
	w.T.Helper()
	loopback, err := dev.ReserveLoopback(2*len(w.opts.Nodes), AppPort, EgressPort)
	if err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(func() {
		if err := loopback.Close(); err != nil {
			w.T.Error(err)
		}
	})
	for i, name := range w.opts.Nodes {
		n := Node{Name: name, Bind: loopback.Addresses[2*i], App: loopback.Addresses[2*i+1]}
		n.Egress = n.Bind
		if bind := w.opts.Binds[name]; bind != "" {
			n.Bind = bind
		}
		if open := w.opts.EgressOpen[name]; open != "" {
			n.Egress = open
		}
		if w.opts.Capture[name] != "" {
			n.Egress = "127.0.0.1"
		}
		app := w.opts.Apps[name]
		if app == nil {
			app = Echo(name)
		}
		if s, ok := w.opts.OnSockets[name]; ok {
			serveAt(w.T, w.onSockets(&n, s), app)
		} else {
			serve(w.T, fmt.Sprintf("%s:%d", n.App, AppPort), app)
		}
		w.Nodes[name] = n
	}
}

func (w *World) init() {
	authority := []string{"--password-file", filepath.Join(w.Dir, "password")}
	if w.opts.SignerUID != 0 {
		authority = []string{"--signer-dir", w.SignerDir()}
	}
	out, code := w.CLI(append([]string{"init", "--trust-domain", w.TD, "--data-dir", w.ServerDir()}, authority...)...)
	if code != 0 {
		w.T.Fatalf("signet init: %s", out)
	}
}

// ServerDir, AgentDir and Socket are where things lie.
func (w *World) ServerDir() string { return filepath.Join(w.Dir, "server") }

// AgentDir is the agent's socket folder.
func (w *World) AgentDir() string { return filepath.Join(w.Dir, "agent") }

// Socket is the server's admin socket.
func (w *World) Socket() string { return filepath.Join(w.ServerDir(), "admin.sock") }

// StartServer starts the server, also again after KillServer, at the same address.
func (w *World) StartServer() {
	w.T.Helper()
	signer := "password_file: " + filepath.Join(w.Dir, "password")
	if w.opts.SignerUID != 0 {
		signer = fmt.Sprintf("signer: unix:%s\nsigner_user: \"%d\"", w.SignerSocket(), w.opts.SignerUID)
	}
	config := fmt.Sprintf("trust_domain: %s\ndata_dir: %s\n%s\nlisten: %q\nmetrics: 127.0.0.1:0\nlifetimes:\n  svid: %s\n%s",
		w.TD, w.ServerDir(), signer, w.listen, w.opts.Lifetime, w.opts.ServerExtra)
	w.StartServerWith(w.write("server.yaml", config))
}

// StartServerWith starts the server with a configuration file.
func (w *World) StartServerWith(path string) {
	w.T.Helper()
	_ = os.Remove(filepath.Join(w.ServerDir(), "addresses.json")) // from the last run
	w.own(path, w.opts.ServerUID)
	w.Server = w.processOf(w.opts.ServerUID, "server", w.signet, "server", "--config", path)
	w.Await("server", 20*time.Second, func() error {
		a, err := w.Addresses(w.ServerDir())
		if err == nil {
			w.listen = a.Agents
		}
		return err
	})
	if w.conn == nil {
		var err error
		if w.Admin, w.conn, err = admin.Dial(w.Socket()); err != nil {
			w.T.Fatal(err)
		}
	}
	w.Await("admin socket", 20*time.Second, func() error {
		_, err := w.Admin.Get(w.Context(), &api.GetRequest{Kind: "all"})
		return err
	})
}

// KillServer ends the server with SIGKILL, and with it its signer.
func (w *World) KillServer() { w.Server.Kill() }

func (w *World) configure() {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: hosts}\nspec: {addresses: [%s]}\n", w.opts.Ranges)
	if w.opts.Manifests != "" {
		for _, n := range w.opts.Nodes {
			fmt.Fprintf(&b, "---\napiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: %s-proxy}\nspec: {group: hosts, mesh: test, virtualNode: %s, selectors: [\"signet:proxy:%s\"], applications: [%s]}\n", n, n, n, w.opts.Applications[n])
		}
		fmt.Fprintf(&b, "---\n%s", w.opts.Manifests)
	}
	if _, none := w.opts.Policy["none"]; !none {
		repo := w.CommitPolicy(w.opts.Policy)
		fmt.Fprintf(&b, "\n---\napiVersion: signet.example/v1alpha1\nkind: PolicySource\nmetadata: {name: policy}\nspec: {url: \"file://%s\", branch: main, poll: 60s}\n", repo)
	}
	w.Apply(b.String())
	w.SyncPolicy()
}

// Apply applies manifests and fails the test if they are refused.
func (w *World) Apply(manifests string) *api.ApplyResponse {
	w.T.Helper()
	answer, err := w.TryApply(manifests)
	if err != nil {
		w.T.Fatalf("apply: %v", err)
	}
	return answer
}

// TryApply applies manifests.
func (w *World) TryApply(manifests string) (*api.ApplyResponse, error) {
	return w.Admin.Apply(w.Context(), &api.ApplyRequest{Sources: []*api.Source{{File: "test.yaml", Content: []byte(manifests)}}})
}

// SyncPolicy fetches the policies now and fails the test if they are refused.
func (w *World) SyncPolicy() {
	w.T.Helper()
	answer, err := w.Admin.SyncPolicy(w.Context(), &api.SyncPolicyRequest{})
	if err != nil {
		w.T.Fatalf("policy sync: %v", err)
	}
	for _, s := range answer.GetStatuses() {
		if s.GetError() != "" {
			w.T.Fatalf("policy sync: %s", s.GetError())
		}
	}
}

// Token makes a join token for the group "hosts".
func (w *World) Token() string {
	w.T.Helper()
	answer, err := w.Admin.CreateToken(w.Context(), &api.CreateTokenRequest{Group: "hosts"})
	if err != nil {
		w.T.Fatalf("token create: %v", err)
	}
	return answer.GetToken()
}

// ExtendAgent appends to the configuration of an agent that is started later.
func (w *World) ExtendAgent(extra string) { w.opts.AgentExtra += extra }

// StartAgent starts the agent with the World's proxies.
func (w *World) StartAgent() {
	w.T.Helper()
	w.startAgent(nil, w.signet, "agent", "--config", w.agentConfig(w.envoy))
}

// StartAgentWithFiles starts it where it, and what it starts, may open no more files.
func (w *World) StartAgentWithFiles(most int) {
	w.T.Helper()
	w.startAgent(nil, "sh", "-c", `ulimit -n "$0"; exec "$@"`, strconv.Itoa(most), w.signet, "agent", "--config", w.agentConfig(w.envoy))
}

// StartAgentWithoutToken starts it with what its configuration says and no more.
func (w *World) StartAgentWithoutToken() {
	w.T.Helper()
	w.runAgent(nil, w.signet, "agent", "--config", w.agentConfig(w.envoy))
}

func (w *World) agentConfig(envoy string) string {
	w.T.Helper()
	var b strings.Builder
	server := w.listen
	if w.opts.Through != nil {
		server = w.opts.Through(server)
	}
	fmt.Fprintf(&b, "server: %q\ndata_dir: %s\nsocket_dir: %s\nmetrics: 127.0.0.1:0\nenvoy: %s\ndrain_time: 1s\n", server, filepath.Join(w.Dir, "agent-data"), w.AgentDir(), envoy)
	if len(w.opts.Nodes) > 0 {
		// Where the test is root so are they, and by name: only then do they run as it.
		fmt.Fprintf(&b, "proxy_user: %q\nproxies:\n", cmp.Or(w.opts.ProxyUser, strconv.Itoa(os.Getuid())))
	}
	for _, name := range w.opts.Nodes {
		n := w.Nodes[name]
		egress := n.EgressAddress()
		if n.EgressNetwork() == "unix" {
			egress = "unix:" + egress
		}
		readOnly := ""
		if w.Readable(name) {
			readOnly = fmt.Sprintf(", admin_read_only: %q", n.ReadOnly())
		}
		fmt.Fprintf(&b, "- {name: %s, mesh: test, virtual_node: %s, bind: %q, app: \"%s\", egress: \"%s\", egress_open: %t, service_addresses: %t, concurrency: 1, capture: %s%s}\n", name, name, n.Bind, n.App, egress, w.opts.EgressOpen[name] != "", slices.Contains(w.opts.ServiceAddresses, name), cmp.Or(w.opts.Capture[name], "{}"), readOnly)
	}
	b.WriteString(w.opts.AgentExtra)
	return w.write("agent.yaml", b.String())
}

// Readable reports whether a node's proxy can be read.
func (w *World) Readable(node string) bool { return slices.Contains(w.opts.Readable, node) }

func (w *World) startAgent(env []string, program string, args ...string) {
	w.T.Helper()
	w.runAgent(append(env, "SIGNET_TOKEN="+w.Token()), program, args...)
}

func (w *World) runAgent(env []string, program string, args ...string) {
	w.T.Helper()
	_ = os.Remove(filepath.Join(w.AgentDir(), "addresses.json")) // from the last run
	w.Agent = w.processEnv("agent", env, program, args...)
	w.Await("agent", 20*time.Second, func() error { _, err := w.Addresses(w.AgentDir()); return err })
}

// AwaitProxies waits until every node's proxy is ready.
func (w *World) AwaitProxies() {
	w.T.Helper()
	w.Await("proxies", 40*time.Second, func() error {
		states := w.ProxyStates()
		for _, n := range w.opts.Nodes {
			if states[n] != api.ProxyStatus_READY {
				return fmt.Errorf("proxy %s is %s", n, api.Word(states[n]))
			}
		}
		return nil
	})
}

// ProxyStates tells each proxy's state as the server knows it.
func (w *World) ProxyStates() map[string]api.ProxyStatus_State {
	out := map[string]api.ProxyStatus_State{}
	for _, p := range w.Proxies() {
		out[p.GetName()] = p.GetState()
	}
	return out
}

// Proxies as the server knows them from connected agents.
func (w *World) Proxies() []*api.ProxyStatus {
	answer, err := w.Admin.Agents(w.Context(), &api.AgentsRequest{})
	if err != nil {
		return nil
	}
	var out []*api.ProxyStatus
	for _, a := range answer.GetAgents() {
		if a.GetConnected() {
			out = append(out, a.GetReport().GetProxies()...)
		}
	}
	return out
}

// Addresses of a running server (Agents) or agent.
type Addresses struct{ Agents, Metrics string }

// Addresses that a server or agent wrote into its folder.
func (w *World) Addresses(dir string) (Addresses, error) {
	var out Addresses
	content, err := os.ReadFile(filepath.Join(dir, "addresses.json"))
	if err != nil {
		return out, err
	}
	return out, json.Unmarshal(content, &out)
}

// Await fails the test unless ready holds within the bound.
func (w *World) Await(what string, bound time.Duration, ready func() error) {
	w.T.Helper()
	deadline := time.Now().Add(bound)
	for {
		err := ready()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.T.Fatalf("%s: not within %s: %v", what, bound, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// CLI runs one signet command against this World's server and gives its whole output.
func (w *World) CLI(args ...string) (string, int) {
	stdout, stderr, code := w.CLISplit(args...)
	return stdout + stderr, code
}

// CLISplit is CLI with standard output and error apart.
func (w *World) CLISplit(args ...string) (stdout, stderr string, code int) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.signet, args...)
	cmd.Env = append(os.Environ(), "SIGNET_SOCKET="+w.Socket(), "NO_COLOR=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.T.Fatalf("signet %v: %v", args, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// Program is the signet binary, where every user of the World can run it.
func (w *World) Program() string { return w.signet }

// PlaceEnvoy copies Envoy to where every user can execute it, and returns the path: the
// agent starts that one from then on.
func (w *World) PlaceEnvoy() string {
	w.T.Helper()
	w.envoy = w.Place(w.envoy, "envoy")
	return w.envoy
}

// AgentConnected reports whether one agent is connected, or none.
func (w *World) AgentConnected(want bool) error {
	answer, err := w.Admin.Agents(w.Context(), &api.AgentsRequest{})
	if err != nil {
		return err
	}
	for _, a := range answer.GetAgents() {
		if a.GetConnected() != want {
			return fmt.Errorf("agent %s: connected is %t", a.GetId(), a.GetConnected())
		}
	}
	return nil
}

// Context ends with the test.
func (w *World) Context() context.Context { return w.T.Context() }

func (w *World) write(name, content string) string {
	w.T.Helper()
	path := filepath.Join(w.Dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		w.T.Fatal(err)
	}
	return path
}
