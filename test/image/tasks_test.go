package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"signet.example/test/envoytest"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// services have a converted task each, and a replica on the host.
var services = []string{"orders", "catalog", "checkout"}

// Users of the agent's container that its configuration names.
const envoyUser, authzUser = 1337, 1339

const (
	// mostOfPair is what the container of agent, authz and Envoy may have of its own at most, in a task of 512 MiB, and
	// mostWithPrograms what it may have with all pages of its programs, which the kernel drops where memory is short.
	mostOfPair, mostWithPrograms = 150 << 20, 180 << 20
	// mostHealthy is within what it is to be healthy, as hosts are: half of all.
	mostHealthy = 10 * time.Second
)

// The definitions that `signet ecs` writes are run as containers, exactly as they stand there: server and agent of a
// host, and three tasks that were converted, which join by their role. They are healthy in time, call each other by
// mTLS in both directions, have no more memory than was said, and are stopped in both orders without a failed call.
func TestTaskDefinitionsRunAsContainersAsTheyStandThere(t *testing.T) {
	dir := first(t)
	t.Setenv(onHost, dir)
	if !parts.SeveralHosts(t, t.Name(), 10) {
		return
	}
	m := newMesh(t, dir)
	m.startServer()
	m.apply()
	m.startAgent()
	watch := m.watch()
	m.startTasks()
	m.judgeHealth(watch())
	for i, r := range m.tasks {
		m.awaitCalls(r, services[i])
	}
	watch = m.watch()
	m.weighUnderLoad()
	r := m.newRolling()
	load := m.bearable() // of the mesh itself, which calls no service that has not moved
	callers, rate := r.bearableCallers()
	deployments := meshtest.Soak(1, 19)
	r.all(deployments, r.converted)
	report := load.Stop()
	r.all(1, r.frozen) // back to the revision of before
	time.Sleep(time.Second)
	balancer, neighbour, stood := callers[0].Stop(), callers[1].Stop(), watch()
	t.Logf("%d deployments at %d calls/s from each; the host stood still %d times", len(r.deployed), rate, len(stood))
	r.judge("the mesh", report, stood)
	r.judge("the load balancer", balancer, stood)
	r.judge("the neighbour", neighbour, stood)
	r.judgePosts()
	if err := m.agent.stopAll(false); err != nil {
		t.Error(err)
	}
	if err := m.server.stopAll(false); err != nil {
		t.Error(err)
	}
}

// mesh is what is run.
type mesh struct {
	*platform
	agents string // the image
	server *running
	agent  *running
	tasks  []*running
	defs   []parts.TaskDefinition // of the services
	roots  string                 // file of the trust domain's root
	listen string
	front  string // where its way out is
}

func newMesh(t *testing.T, dir string) *mesh {
	p := parts.AccountedContainers(t)
	m := &mesh{platform: &platform{t: t, p: p, aws: parts.NewSTS(t, "123456789012"), root: p.Folder("host")}, listen: parts.ThisHost + ":8443", front: "127.0.0.21:15001"}
	loaded := make(chan error)
	for _, name := range archives() {
		go func() {
			_, err := p.Try("load", "--quiet", "--input", filepath.Join(dir, name))
			loaded <- err
		}()
	}
	must(t, errors.Join(<-loaded, <-loaded))
	for i, name := range archives() {
		ref := p.Do("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference="+strings.TrimSuffix(name, "-"+runtime.GOARCH+".tar"))
		def := m.own([]string{"server", "agent"}[i], ref)
		name := "signet-" + []string{"server", "agent"}[i]
		r := m.task(name, name, 1, "", def)
		if m.server == nil {
			m.server = r
		} else {
			m.agent, m.agents = r, ref
		}
		t.Cleanup(r.tell)
	}
	return m
}

// own is a definition of Signet's own.
func (m *mesh) own(of, image string) parts.TaskDefinition {
	m.t.Helper()
	return parts.ReadTaskDefinition(m.t, of+".json", m.signet("ecs", "taskdef", of, "--image", image))
}

// signet runs a command as an operator on the server's host.
func (m *mesh) signet(args ...string) string {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), parts.Signet(m.t), args...)
	cmd.Env = append(os.Environ(), "SIGNET_SOCKET="+m.at("/var/lib/signet/admin.sock"))
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("signet %s: %v: %s", strings.Join(args, " "), err, &errs)
	}
	return string(out)
}

// at is where a file of the host is.
func (m *mesh) at(path string) string { return m.root + path }

// folder makes one of the host's, of a user.
func (m *mesh) folder(path string, uid int) {
	m.t.Helper()
	must(m.t, errors.Join(os.MkdirAll(m.at(path), 0o755), os.Chown(m.at(path), uid, uid)))
}

func (m *mesh) write(path, text string) {
	m.t.Helper()
	must(m.t, os.WriteFile(m.at(path), []byte(text), 0o644))
}

// own gives a folder, and all that is in it, to a user.
func own(t *testing.T, dir string, uid int) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error { return errors.Join(err, os.Chown(path, uid, uid)) }))
}

// startServer makes the server's folders, as the command's help says, and starts its task.
func (m *mesh) startServer() {
	t := m.t
	m.folder("/etc/signet", 0)
	m.folder("/var/lib/signet", 0)
	must(t, os.Chmod(m.at("/var/lib/signet"), 0o700))
	m.signet("init", "--trust-domain", "test.example", "--data-dir", m.at("/var/lib/signet"))
	own(t, m.at("/var/lib/signet"), 1338)
	m.roots = m.at("/var/lib/signet/ca/root.crt")
	var roles []string
	for _, name := range services {
		roles = append(roles, `"`+m.aws.ARN(name+"-task")+`"`)
	}
	m.write("/etc/signet/server.yaml", fmt.Sprintf("trust_domain: test.example\nlisten: %q\njoin: {aws_task: {accounts: [{account: \"123456789012\", issuer: %s, roles: [%s]}]}}\n",
		m.listen, m.aws.Issuer(), strings.Join(roles, ", ")))
	// A policy is read from a folder of the host's, too.
	repo := (&meshtest.World{T: t, Dir: m.at("/etc/signet")}).CommitPolicy(map[string]string{"all.rego": meshtest.AllowAll})
	own(t, repo, 1338)
	begun := time.Now()
	must(t, m.server.start())
	must(t, m.server.await("signet-server", begun, time.Second))
	t.Logf("the server is HEALTHY after %s", m.server.healthy["signet-server"].Round(time.Millisecond))
}

// apply applies the mesh: front calls the services, and they call it.
func (m *mesh) apply() {
	t := m.t
	all := []string{
		meshtest.Mesh(), meshtest.VirtualNode("front", meshtest.Strict("test.example", "front"), services...), meshtest.ServiceOfNode("front", "front"),
		"apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: hosts}\nspec: {addresses: [\"10.231.0.0/24\"]}\n",
		"apiVersion: signet.example/v1alpha1\nkind: PolicySource\nmetadata: {name: policy}\nspec: {url: \"file:///etc/signet/policy\", branch: main, poll: 60s}\n",
	}
	for _, name := range services {
		all = append(all, meshtest.VirtualNode(name, "", "front"), meshtest.ServiceOfNode(name, name), fmt.Sprintf(
			"apiVersion: signet.example/v1alpha1\nkind: VirtualNodeOptions\nmetadata: {name: %s}\nspec: {listeners: [{port: 8080, ingress: [{name: alb, ranges: [%s/32], healthCheckPath: /up}, {name: unmoved, ranges: [%s/32]}]}]}\n",
			name, balancerHost, parts.ThisHost))
	}
	for _, name := range append([]string{"front"}, services...) {
		all = append(all, fmt.Sprintf("apiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: %s-on-host}\nspec: {group: hosts, mesh: test, virtualNode: %[1]s, selectors: [\"signet:proxy:%[1]s\"]}\n", name))
	}
	file := filepath.Join(t.TempDir(), "mesh.yaml")
	must(t, os.WriteFile(file, []byte(meshtest.Join(all...)), 0o600))
	m.signet("apply", "-f", file)
	m.signet("policy", "sync")
}

// startAgent starts the agent of the host, with the proxy of front and one replica of each service, whose
// applications are in this process.
func (m *mesh) startAgent() {
	t := m.t
	m.folder("/var/lib/signet-agent", 0) // as Docker makes what is not there
	m.folder("/run/signet", 0)
	config := fmt.Sprintf("server: %s\ntoken_file: /etc/signet/token\nproxy_user: \"%d\"\nauthz: {user: \"%d\"}\nproxies:\n", m.listen, envoyUser, authzUser)
	for i, name := range append([]string{"front"}, services...) {
		bind, app := fmt.Sprintf("10.231.0.%d", 100+i), fmt.Sprintf("127.0.0.%d", 21+i)
		if out, err := exec.CommandContext(t.Context(), "ip", "addr", "add", bind+"/24", "dev", "wire").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		l, err := net.Listen("tcp", app+":8080")
		must(t, err)
		server := &http.Server{Handler: meshtest.Echo(name), ReadHeaderTimeout: 10 * time.Second}
		t.Cleanup(func() { _ = server.Close() })
		go func() { _ = server.Serve(l) }() // ends by Close
		config += fmt.Sprintf("- {name: %s, mesh: test, virtual_node: %[1]s, bind: %s, app: %s, egress: \"%[3]s:15001\", concurrency: 1}\n", name, bind, app)
	}
	m.write("/etc/signet/agent.yaml", config)
	m.write("/etc/signet/token", strings.TrimSpace(m.signet("token", "create", "--group", "hosts"))+"\n")
	must(t, os.Chmod(m.at("/etc/signet/token"), 0o600))
	begun := time.Now()
	must(t, m.agent.start())
	must(t, m.agent.await("signet-agent", begun, time.Second))
	t.Logf("the agent of the host is HEALTHY after %s", m.agent.healthy["signet-agent"].Round(time.Millisecond))
}

// startTasks converts the definitions and starts what they are converted to.
func (m *mesh) startTasks() {
	t := m.t
	files := map[string][]string{"orders": {"orders.json"}, "catalog": {"catalog.json", "--way-out", "http_proxy"}, "checkout": {"checkout.yaml"}}
	failed := make(chan error)
	for i, name := range services {
		var made struct {
			Definition, Objects string
			Written             int
		}
		out := m.signet(append([]string{"ecs", "convert", "--server", m.listen, "--trust", m.roots, "--image", m.agents, "-o", "json", filepath.Join("..", "e2e", "testdata", "tasks", files[name][0])}, files[name][1:]...)...)
		must(t, json.Unmarshal([]byte(out), &made))
		file := filepath.Join(t.TempDir(), "objects.yaml")
		must(t, os.WriteFile(file, []byte(made.Objects), 0o600))
		m.signet("apply", "-f", file)
		m.defs = append(m.defs, parts.ReadTaskDefinition(t, files[name][0], made.Definition))
		r := m.replica(i, 1)
		m.tasks = append(m.tasks, r)
		go func() {
			err := r.start()
			if err != nil {
				err = fmt.Errorf("%s: %w", name, err)
			}
			failed <- err
		}()
	}
	for range m.tasks {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	for _, r := range m.tasks {
		if len(r.def.Container(t, "app").HealthCheck.Command) > 0 {
			must(t, r.await("app", time.Now(), 100*time.Millisecond))
		}
	}
}

// replica makes the n-th task of a service. It has two hosts in turn, and its tasks are stopped in both orders in turn.
func (m *mesh) replica(of, n int) *running {
	name := services[of]
	r := m.task(fmt.Sprintf("%s-%d", name, n), name, 2+of+3*((n-1)%2), name+"-task", m.defs[of])
	r.given["SIGNET_JOIN_AWS_TASK_ENDPOINT"] = m.aws.URL() // STS is not AWS's here
	if r.atOnce = (of+n)%2 == 0; r.atOnce {
		r.extra["app"] = []string{"--env", outlivesEnv + "=10s"} // twice drain_time, as docs/TASKS.md asks of it
	}
	m.t.Cleanup(r.tell)
	return r
}

// weighUnderLoad has the tasks be called for a while before they are weighed.
func (m *mesh) weighUnderLoad() {
	load := m.bearable()
	time.Sleep(3 * time.Second)
	m.weigh()
	if report := load.Stop(); report.Sent < 20 {
		m.t.Error("it was no load")
	}
}

// judgeHealth holds tasks to when they were to be healthy, where the host did not stand still.
func (m *mesh) judgeHealth(stood []spell) {
	var took []time.Duration
	for _, r := range m.tasks {
		took = append(took, r.healthy["envoy"])
	}
	slices.Sort(took)
	m.t.Logf("tasks are HEALTHY after %v; the host stood still %d times", took, len(stood))
	if took[1] > mostHealthy && len(stood) == 0 {
		m.t.Errorf("half of the tasks are HEALTHY after %s", took[1])
	}
}

func (m *mesh) wayOut() *url.URL { return &url.URL{Scheme: "http", Host: m.front} }

// awaitCalls waits until a task serves front, and calls it.
func (m *mesh) awaitCalls(r *running, service string) {
	m.t.Helper()
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(m.wayOut()), DisableKeepAlives: true}, Timeout: 5 * time.Second}
	want := answered{service, "spiffe://test.example/test/front", "spiffe://test.example/test/" + service}
	var last string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		a, err := meshtest.Do(m.t, client, http.MethodGet, "http://"+meshtest.HostOf(service)+":8080/through")
		var got answered
		if err == nil && json.Unmarshal([]byte(a.Body), &got) == nil && got == want {
			return
		}
		last = fmt.Sprint(a.Status, a.Body, err)
	}
	m.t.Fatalf("%s does not answer as %+v: last %s", r.name, want, last)
}

const (
	mostRate = 50 // calls a second, of which each is two
	// quick is within what a host answers 99 of 100 calls that has processors for so many. Where others have them, the
	// half is tried, and so on.
	quick = 200 * time.Millisecond
)

// bearable starts the load that this host can bear.
func (m *mesh) bearable() *envoytest.Run {
	for rate := mostRate; ; rate /= 2 {
		if rate > mostRate/8 {
			l := m.load(rate)
			time.Sleep(time.Second)
			if report := l.Stop(); report.Failed > 0 || report.Quantile(0.99) > quick {
				continue
			}
		}
		m.t.Logf("%d calls/s", rate)
		return m.load(rate)
	}
}

// load calls the services in turn.
func (m *mesh) load(rate int) *envoytest.Run {
	return envoytest.Load{
		Rate: rate, NewConnections: 0.02, Proxy: m.wayOut(),
		Request: func(ctx context.Context, n int) (*http.Request, error) {
			return http.NewRequestWithContext(ctx, http.MethodGet, "http://"+meshtest.HostOf(services[n%len(services)])+":8080/through", nil)
		},
		Check: notOK,
	}.Start(m.t.Context())
}

// notOK is why an answer is a failure.
func notOK(status int, _ http.Header, body string) string {
	if status != http.StatusOK {
		return fmt.Sprintf("%d %s", status, body)
	}
	return ""
}

// spell is from one moment to another.
type spell struct{ from, to time.Time }

const (
	// still is how long a call by loopback from this process to itself takes where the host gave somebody no processor:
	// no proxy has to do with it.
	still = 50 * time.Millisecond
	// after is for how long calls fail of that.
	after = 2 * time.Second
)

// watch notes when the host stands still. What it returns ends that, and returns what was noted.
func (m *mesh) watch() func() []spell {
	ctx, cancel := context.WithCancel(m.t.Context())
	noted := make(chan []spell)
	go func() {
		var all []spell
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		for ; ctx.Err() == nil; time.Sleep(still / 2) {
			begun := time.Now()
			resp, err := client.Get("http://127.0.0.21:8080/") // the application of front
			if err == nil {
				_ = resp.Body.Close() // that it came is all
			}
			if ended := time.Now(); err != nil || ended.Sub(begun) > still {
				all = append(all, spell{begun.Add(-after), ended.Add(after)})
			}
		}
		noted <- all
	}()
	return func() []spell { cancel(); return <-noted }
}

// weigh holds what the agents' containers have in memory to its bound.
func (m *mesh) weigh() {
	for _, r := range m.tasks {
		pair, all := m.p.Memory(r.name, r.container("envoy")), m.p.Memory(r.name, "")
		m.t.Logf("%s: agent, authz and Envoy have %s; the task has %d MiB of its own", r.name, pair, all.Now>>20)
		if pair.Peak > mostOfPair || pair.All() > mostWithPrograms {
			m.t.Errorf("agent, authz and Envoy of %s have %s", r.name, pair)
		}
	}
	m.t.Logf("agent, authz and four Envoys of the host have %s; the server has %s",
		m.p.Memory(m.agent.name, m.agent.container("signet-agent")), m.p.Memory(m.server.name, m.server.container("signet-server")))
}
