package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"signet.example/ecs"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// A definition of App Mesh's is converted, its objects are applied, and its containers are run as
// they stand there, with what the platform redirects by it and without: the task joins by its role,
// is healthy, serves and calls out, and is stopped in the order of ECS under load without a failed
// request.
func TestAConvertedTaskDefinitionJoinsServesAndIsStoppedInItsOrder(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	if out, err := exec.CommandContext(t.Context(), "ip", "addr", "add", frontHost+"/24", "dev", "wire").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	aws := parts.NewSTS(t, "123456789012")
	parts.Relay(t, 2, strings.TrimPrefix(aws.URL(), "http://"))
	c := converting{aws: aws, role: aws.ARN("orders-task")}
	c.w = meshtest.Start(t, meshtest.Options{
		Listen: parts.ThisHost + ":0", Nodes: []string{"front", "web"}, Binds: map[string]string{"web": parts.ThisHost, "front": frontHost}, NoAgent: true,
		ServerExtra: "join: {aws_task: {accounts: [{account: \"123456789012\", issuer: " + aws.Issuer() + ", roles: [\"" + c.role + "\"]}]}}\n",
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "web"), meshtest.VirtualNode("web", meshtest.Strict("test.example", "web"), "front"),
			meshtest.ServiceOfNode("web", "web"), meshtest.ServiceOfNode("front", "front")),
	})
	c.w.Apply("apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: hosts}\nspec: {addresses: [\"10.231.0.0/24\"]}\n")
	c.w.StartAgent()
	c.w.AwaitProxies()
	words := append(strings.Fields(parts.OnAnotherHost()), "ip", "addr", "add", taskAddress+"/24", "dev", "wire")
	if out, err := exec.CommandContext(t.Context(), words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.image = image{c.w.Place(c.w.Program(), "signet-task"), c.w.PlaceEnvoy()}
	for _, way := range []ecs.WayOut{ecs.ByRedirection, ecs.ByVariable} {
		t.Run(string(way), func(t *testing.T) { c.run(t, way) })
	}
}

// converting is a mesh in which a task of a converted definition is one of two replicas.
type converting struct {
	w     *meshtest.World
	aws   *parts.STS
	role  string
	image image
}

func (c *converting) convert(t *testing.T, way ecs.WayOut) (d parts.TaskDefinition) {
	t.Helper()
	text, err := os.ReadFile("../../ecs/testdata/orders.json")
	root, err2 := os.ReadFile(filepath.Join(c.w.ServerDir(), "ca", "root.crt"))
	server, err3 := c.w.Addresses(c.w.ServerDir())
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	o := ecs.Options{Server: server.Agents, Image: "signet-agent", Root: string(root)}
	if way != ecs.ByRedirection { // which is what this definition has by default
		o.WayOut = way
	}
	made, err := ecs.Convert("orders.json", strings.Replace(string(text), "mesh/shop/virtualNode/orders", "mesh/test/virtualNode/web", 1), o)
	if err != nil {
		t.Fatal(err)
	}
	if made.Written > mostLines {
		t.Errorf("%d lines are written", made.Written)
	}
	if err := json.Unmarshal([]byte(made.Definition), &d); err != nil {
		t.Fatal(err)
	}
	if d.ProxyConfiguration.Redirects() != (way == ecs.ByRedirection) {
		t.Fatalf("the platform is told to redirect %+v", d.ProxyConfiguration)
	}
	// The proxy is of one task definition, by what ECS says; the task's address is another than the server sees.
	c.w.Apply(strings.NewReplacer(`["signet:proxy:web"]`, `["signet:proxy:web", "ecs:family:orders", "ecs:label:team:shop"]`, `spec: {selectors: ["aws_task:`, `spec: {addresses: ["`+taskAddress+`/32"], selectors: ["aws_task:`).Replace(made.Objects))
	return d
}

// taskAddress is the one that ECS says the converted task has, beside that by which it reaches its server.
const taskAddress = "10.231.0.52"

// onECS has a task's container find what ECS says of it.
func onECS(t *testing.T, host int, family, address string) string {
	t.Helper()
	at := parts.ECSMetadata(t, parts.ECSTask{
		ARN: parts.ECSTaskARN("0123456789abcdef0123456789abcdef"), Family: family, Revision: "7", Container: "envoy",
		Labels: map[string]string{"team": "shop"}, IPv4: []string{address},
	})
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	parts.Relay(t, host, u.Host)
	return at
}

func (c *converting) run(t *testing.T, way ecs.WayOut) {
	d := c.convert(t, way)
	proxy, app, stop := d.Container(t, "envoy"), d.Container(t, "app"), d.Container(t, "signet-stop")
	name := "converted-" + string(way)
	k := &task{t: t, host: 2, image: c.image, platform: d.ProxyConfiguration, dir: filepath.Join(c.w.Dir, name), ended: make(chan struct{})}
	k.redirect("up")
	k.serve(meshtest.Echo(name))
	given := c.aws.Environment(c.role)
	maps.Copy(given, map[string]string{ // what is the image's, or the platform's
		"PATH": os.Getenv("PATH"), "SIGNET_SOCKET_DIR": k.path("run"), "SIGNET_DATA_DIR": k.path("data"), "SIGNET_ENVOY": k.image.envoy,
		"SIGNET_JOIN_AWS_TASK_ENDPOINT": c.aws.URL(), "SIGNET_DRAIN_TIME": "1s", "ECS_CONTAINER_METADATA_URI_V4": onECS(t, k.host, "orders", taskAddress),
	})
	k.start(proxy.Command, proxy.Environ(given))
	eventually(t, 30*time.Second, "its health check succeeds", func() bool {
		_, err := k.signet(append(slices.Clone(proxy.HealthCheck.Command[2:]), "--socket-dir", k.path("run"))...)
		return err == nil
	})
	k.redirect("check")
	if out, _ := c.w.CLI("proxies", "web", "-o", "wide"); !strings.Contains(out, "shop-prod/orders:7") || !strings.Contains(out, taskAddress) {
		t.Errorf("of its task:\n%s", out)
	}
	page := "http://" + meshtest.HostOf("web") + "/"
	eventually(t, 20*time.Second, "the task answers", func() bool {
		a := c.w.Get("front", page)
		return a.Seen.Service == name && a.Seen.Caller() == "spiffe://test.example/test/front"
	})
	k.callsAs(app)
	eventually(t, 20*time.Second, "its application calls out", func() bool {
		a, err := meshtest.Do(t, k.caller, http.MethodGet, fmt.Sprintf("http://%s:%d/", meshtest.HostOf("front"), meshtest.AppPort))
		return err == nil && a.Seen.Caller() == "spiffe://test.example/test/web"
	})
	c.stopUnderLoad(k, stop.Command, page)
	k.redirect("down")
}

// callsAs has a task's client call as the variables of its container say.
func (k *task) callsAs(app parts.ContainerDefinition) {
	k.t.Helper()
	var to *url.URL
	for _, e := range app.Environment {
		if e.Name == "http_proxy" {
			var err error
			if to, err = url.Parse(e.Value); err != nil {
				k.t.Fatal(err)
			}
		}
	}
	if (to == nil) != k.platform.Redirects() {
		k.t.Fatalf("http_proxy of the application is %v", to)
	}
	k.caller.Transport.(*http.Transport).Proxy = http.ProxyURL(to)
}

// stopUnderLoad stops the containers one after the other.
func (c *converting) stopUnderLoad(k *task, command []string, page string) {
	t := k.t
	t.Helper()
	words := strings.Fields(parts.OnAnotherHost() + asTaskUser)
	first := exec.CommandContext(t.Context(), words[0], append(append(words[1:], k.image.signet), append(command, "--socket-dir", k.path("run"))...)...)
	out, err := first.StdoutPipe()
	if err == nil {
		err = first.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	load := c.w.StartLoad("front", page, 100)
	eventually(t, 20*time.Second, "it waits for SIGTERM", func() bool { return catches(first.Process.Pid, syscall.SIGTERM) })
	time.Sleep(time.Second) // under load
	if err := first.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	said, _ := io.ReadAll(out)
	if err := first.Wait(); err != nil {
		t.Errorf("signet-stop: %v: %s", err, said)
	}
	k.shutDown()
	if code := k.end(30 * time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if r := load.Stop(); r.Failed > 0 || r.Sent < 100 {
		t.Errorf("%+v", r)
	}
}

// catches reports whether a process has a handler for a signal.
func catches(pid int, s syscall.Signal) bool {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		var mask uint64
		if n, _ := fmt.Sscanf(line, "SigCgt:\t%x", &mask); n == 1 {
			return mask&(1<<(uint(s)-1)) != 0
		}
	}
	return false
}
