package image

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"signet.example/test/parts"
)

// platform does with task definitions what ECS does, by podman: the containers of a task are started and stopped in
// the order of what they depend on, with what their definitions say and no other right, file or variable.
type platform struct {
	t    *testing.T
	p    *parts.Podman
	aws  *parts.STS
	root string // has the folders of its host

	mu       sync.Mutex
	metadata map[int]http.Handler // by host, of the task that runs there
}

// running is a task.
type running struct {
	*platform
	name   string
	family string // of its definition
	atOnce bool   // whether all of its containers are told to stop at once
	host   int    // the n-th; in the network of the first are definitions that ask for their host's
	def    parts.TaskDefinition
	cgroup []string
	// given is what the platform gives containers beside their definitions, extra what the test does.
	given map[string]string
	extra map[string][]string
	// healthy is when a container was, after its start.
	healthy map[string]time.Duration
}

// ofPlatform is where tasks of Fargate find their metadata and their role's credentials.
const ofPlatform = "169.254.170.2"

// task makes one, in which nothing runs yet. On a host there may have been one of its family before.
func (f *platform) task(name, family string, host int, role string, def parts.TaskDefinition) *running {
	f.t.Helper()
	r := &running{platform: f, name: name, family: family, host: host, def: def, given: map[string]string{}, extra: map[string][]string{}, healthy: map[string]time.Duration{}}
	most, err := strconv.Atoi(def.Memory.String())
	if err != nil { // of EC2: each container has its own
		most = 0
		for _, c := range def.ContainerDefinitions {
			most += c.Memory
		}
	}
	r.cgroup = f.p.Cgroup(name, most)
	if def.NetworkMode == "host" {
		return r
	}
	credentials := strings.TrimPrefix(f.aws.Environment(f.aws.ARN(role))["AWS_CONTAINER_CREDENTIALS_FULL_URI"], f.aws.URL())
	metadata, err := url.Parse(parts.ECSMetadata(f.t, parts.ECSTask{
		ARN: parts.ECSTaskARN(fmt.Sprintf("%x", sha256.Sum256([]byte(name)))[:32]), Family: family, Revision: "7", Container: "envoy", IPv4: []string{addressOf(host)},
	}))
	must(f.t, err)
	f.prepare(r, metadata)
	r.given = map[string]string{
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": credentials, "AWS_REGION": "eu-west-1", "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
		"ECS_CONTAINER_METADATA_URI_V4": "http://" + ofPlatform + metadata.Path,
	}
	return r
}

// prepare has a host be what the platform makes of it, and answer for a task.
func (f *platform) prepare(r *running, metadata *url.URL) {
	f.t.Helper()
	f.mu.Lock()
	_, was := f.metadata[r.host]
	if f.metadata == nil {
		f.metadata = map[int]http.Handler{}
	}
	f.metadata[r.host] = to(&url.URL{Scheme: "http", Host: metadata.Host})
	f.mu.Unlock()
	if was {
		return
	}
	f.inNetworkOf(r.host, "ip", "addr", "add", ofPlatform+"/32", "dev", "lo")
	f.inNetworkOf(r.host, "ip", "route", "replace", "default", "via", parts.ThisHost)
	parts.Relay(f.t, r.host, strings.TrimPrefix(f.aws.URL(), "http://"))
	f.serves(r.host)
	if r.def.ProxyConfiguration.Redirects() {
		f.inNetworkOf(r.host, append([]string{parts.Signet(f.t), "redirect", "up"}, r.def.ProxyConfiguration.Flags()...)...)
	}
}

// to passes requests on.
func to(at *url.URL) http.Handler {
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(at) }}
}

func addressOf(host int) string { return fmt.Sprintf("10.231.0.%d", host) }

func (f *platform) inNetworkOf(host int, command ...string) {
	f.t.Helper()
	words := append(strings.Fields(parts.OnHost(host)), command...)
	if out, err := exec.CommandContext(f.t.Context(), words[0], words[1:]...).CombinedOutput(); err != nil {
		f.t.Fatalf("%s: %v: %s", strings.Join(command, " "), err, out)
	}
}

// serves has the platform's address answer on a host.
func (f *platform) serves(host int) {
	f.t.Helper()
	aws, err := url.Parse(f.aws.URL())
	must(f.t, err)
	mux := http.NewServeMux()
	mux.Handle("/credentials/", to(aws))
	mux.HandleFunc("/v4/", func(w http.ResponseWriter, req *http.Request) {
		f.mu.Lock()
		of := f.metadata[host]
		f.mu.Unlock()
		of.ServeHTTP(w, req)
	})
	var l net.Listener
	parts.FromHost(f.t, host, func() {
		var err error
		if l, err = net.Listen("tcp", ofPlatform+":80"); err != nil {
			f.t.Error(err)
		}
	})
	if l == nil {
		f.t.FailNow()
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	f.t.Cleanup(func() { _ = server.Close() })
	go func() { _ = server.Serve(l) }() // ends by Close
}

func (r *running) container(name string) string { return r.name + "-" + name }

// start starts the containers, each when those that it depends on are what it asks for.
func (r *running) start() error {
	begun := map[string]time.Time{}
	for len(begun) < len(r.def.ContainerDefinitions) {
		before := len(begun)
		for _, c := range r.def.ContainerDefinitions {
			if _, is := begun[c.Name]; is || !r.waited(c, begun) {
				continue
			}
			for _, on := range c.DependsOn {
				if on.Condition == "HEALTHY" {
					every := time.Duration(r.def.Container(r.t, on.ContainerName).HealthCheck.Interval) * time.Second
					if err := r.await(on.ContainerName, begun[on.ContainerName], every); err != nil {
						return err
					}
				}
			}
			if err := r.run(c); err != nil {
				return err
			}
			begun[c.Name] = time.Now()
		}
		if len(begun) == before {
			return errors.New("containers wait for each other")
		}
	}
	return nil
}

// waited reports whether all that a container depends on have been started.
func (r *running) waited(c parts.ContainerDefinition, begun map[string]time.Time) bool {
	for _, on := range c.DependsOn {
		if _, is := begun[on.ContainerName]; !is {
			return false
		}
	}
	return true
}

// run starts a container. Its image is Signet's, or the application of this test stands in for it.
func (r *running) run(c parts.ContainerDefinition) error {
	args := append([]string{"create", "--name", r.container(c.Name), "--network", r.network()}, r.cgroup...)
	args = append(args, c.Options(r.def, r.name, r.root)...)
	if r.def.PidMode == "host" {
		args = append(args, "--pid", "host")
	}
	for name, value := range r.given {
		args = append(args, "--env", name+"="+value)
	}
	args = append(args, r.extra[c.Name]...)
	if strings.HasPrefix(c.Image, "localhost/signet-") {
		args = append(append(args, c.Image), c.Command...)
	} else {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		args = append(args, "--volume", "/usr:/usr:ro", "--volume", self+":"+self+":ro", "--env", applicationEnv+"="+r.family+" "+c.Name, "--entrypoint", `["`+self+`"]`, parts.BareImage)
	}
	if _, err := r.p.Try(args...); err != nil {
		return err
	}
	_, err := r.p.Try("start", r.container(c.Name))
	return err
}

func (r *running) network() string {
	if r.def.NetworkMode == "host" {
		return "host"
	}
	return "ns:" + parts.NetNS(r.host)
}

// await waits until a container is healthy, by its own check. ECS asks as often as its definition says, and waits so
// long before the first time.
func (r *running) await(name string, begun time.Time, every time.Duration) error {
	if r.healthy[name] != 0 {
		return nil
	}
	for {
		time.Sleep(every)
		said, err := r.p.Try("healthcheck", "run", r.container(name))
		if err == nil {
			r.healthy[name] = time.Since(begun)
			return nil
		}
		if time.Since(begun) > time.Minute {
			return fmt.Errorf("%s is not healthy: %s: %w", r.container(name), said, err)
		}
	}
}

// stop tells a container to stop, waits for its end and returns an error where that was another than it wants, which
// is by itself and well.
func (r *running) stop(name string) error {
	if said, err := r.p.Try("stop", r.container(name)); err != nil {
		return fmt.Errorf("%s: %w", said, err)
	}
	code, err := r.p.Try("inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", r.container(name))
	if err == nil && code != "0 false" {
		err = fmt.Errorf("%s ended with exit code and lack of memory %s", r.container(name), code)
	}
	return err
}

// stopAll stops all containers: those first that depend on others, as ECS does, or all at once.
func (r *running) stopAll(atOnce bool) (err error) {
	if atOnce {
		ended := make(chan error)
		for _, c := range r.def.ContainerDefinitions {
			go func() { ended <- r.stop(c.Name) }()
		}
		for range r.def.ContainerDefinitions {
			err = errors.Join(err, <-ended)
		}
		return err
	}
	left := map[string]bool{}
	for _, c := range r.def.ContainerDefinitions {
		left[c.Name] = true
	}
	for len(left) > 0 {
		for _, c := range r.def.ContainerDefinitions {
			if left[c.Name] && !r.wanted(c.Name, left) {
				err = errors.Join(err, r.stop(c.Name))
				delete(left, c.Name)
			}
		}
	}
	return err
}

// wanted reports whether one that is left depends on a container.
func (r *running) wanted(name string, left map[string]bool) bool {
	for _, c := range r.def.ContainerDefinitions {
		for _, on := range c.DependsOn {
			if left[c.Name] && on.ContainerName == name {
				return true
			}
		}
	}
	return false
}

// said is what a container wrote last.
func (r *running) said(name string) string {
	text := r.output(name)
	return text[max(0, len(text)-4000):]
}

// output is what a container wrote.
func (r *running) output(name string) string {
	file, err := r.p.Try("inspect", "--format", "{{.HostConfig.LogConfig.Path}}", r.container(name))
	if err != nil {
		return err.Error()
	}
	text, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// tell has what the containers wrote in a test's log where it fails.
func (r *running) tell() {
	if r.t.Failed() {
		for _, c := range r.def.ContainerDefinitions {
			r.t.Logf("%s:\n%s", r.container(c.Name), r.said(c.Name))
		}
	}
}
