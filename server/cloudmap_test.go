package server_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"

	"signet.example/ads"
	"signet.example/api"
	"signet.example/server"
	"signet.example/server/cloudmap"
	"signet.example/test/parts"
)

// cloud is a Cloud Map that moto serves, behind a door that shows what comes in.
type cloud struct {
	t      *testing.T
	url    string
	client *servicediscovery.Client
	space  string // the id of shop.local
	id     string // of the service orders there

	down   atomic.Bool // it answers 500 to the server
	limits atomic.Pointer[limit]

	mu      sync.Mutex
	asked   map[string]int // by operation
	signed  []string       // what authorized the requests
	limited []time.Time    // when it was asked although it limits
}

// limit is how it answers whoever asks too often.
type limit struct{ code, after string }

func (l *limit) answer(w http.ResponseWriter) {
	if l.after != "" {
		w.Header().Set("Retry-After", l.after)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(http.StatusBadRequest)
	_, _ = w.Write([]byte(`{"__type": "` + l.code + `", "message": "Rate exceeded"}`)) // the client sees it or has failed
}

// startCloud serves one for the test, of which nobody else's credentials are good.
func startCloud(t *testing.T) *cloud {
	t.Helper()
	program := filepath.Join(parts.Root(), ".bin", "moto", "bin", "moto_server")
	if _, err := os.Stat(program); err != nil {
		parts.Missing(t, "moto_server is not here: run make deps")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	_ = l.Close() // it is moto's now
	_, port, _ := net.SplitHostPort(at)
	cmd := exec.Command(program, "-H", "127.0.0.1", "-p", port)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // it was told to end
	c := &cloud{t: t, asked: map[string]int{}}
	behind := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: at})
	door := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		c.mu.Lock()
		c.asked[operation]++
		c.signed = append(c.signed, r.Header.Get("Authorization"))
		limited := c.limits.Load()
		if limited != nil {
			c.limited = append(c.limited, time.Now())
		}
		c.mu.Unlock()
		if limited != nil {
			limited.answer(w)
			return
		}
		if c.down.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		behind.ServeHTTP(w, r)
	})}
	dl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = door.Serve(dl) }() // ends with Close
	t.Cleanup(func() { _ = door.Close() })
	c.url = "http://" + dl.Addr().String()
	direct := "http://" + at
	c.client = servicediscovery.New(servicediscovery.Options{Region: "eu-west-1", BaseEndpoint: &direct, Credentials: credentials.NewStaticCredentialsProvider("x", "y", "")})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { // it has a thousand modules to read
		if _, err := c.client.ListNamespaces(t.Context(), &servicediscovery.ListNamespacesInput{}); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("moto: %v", err)
		}
	}
	c.create()
	return c
}

// create makes shop.local and its service orders.
func (c *cloud) create() {
	c.t.Helper()
	if _, err := c.client.CreateHttpNamespace(c.t.Context(), &servicediscovery.CreateHttpNamespaceInput{Name: aws.String("shop.local")}); err != nil {
		c.t.Fatal(err)
	}
	spaces, err := c.client.ListNamespaces(c.t.Context(), &servicediscovery.ListNamespacesInput{})
	if err != nil || len(spaces.Namespaces) != 1 {
		c.t.Fatal(spaces, err)
	}
	c.space = *spaces.Namespaces[0].Id
	s, err := c.client.CreateService(c.t.Context(), &servicediscovery.CreateServiceInput{Name: aws.String("orders"), NamespaceId: &c.space})
	if err != nil {
		c.t.Fatal(err)
	}
	c.id = *s.Service.Id
}

// remove deletes what create made.
func (c *cloud) remove() {
	c.t.Helper()
	if _, err := c.client.DeleteService(c.t.Context(), &servicediscovery.DeleteServiceInput{Id: &c.id}); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.client.DeleteNamespace(c.t.Context(), &servicediscovery.DeleteNamespaceInput{Id: &c.space}); err != nil {
		c.t.Fatal(err)
	}
}

// limit has it limit the server until it is asked so many times, and returns how long it was not
// asked between these.
func (c *cloud) limit(code, after string, times int) (gaps []time.Duration) {
	c.t.Helper()
	c.mu.Lock()
	c.limited = nil
	c.limits.Store(&limit{code, after})
	c.mu.Unlock()
	var asked []time.Time
	patiently(c.t, "questions to one who limits", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		asked = slices.Clone(c.limited)
		return len(asked) >= times
	})
	for i, at := range asked[1:] {
		gaps = append(gaps, at.Sub(asked[i]))
	}
	return gaps
}

func (c *cloud) register(id string, attributes map[string]string) {
	c.t.Helper()
	if _, err := c.client.RegisterInstance(c.t.Context(), &servicediscovery.RegisterInstanceInput{ServiceId: &c.id, InstanceId: &id, Attributes: attributes}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cloud) deregister(id string) {
	c.t.Helper()
	if _, err := c.client.DeregisterInstance(c.t.Context(), &servicediscovery.DeregisterInstanceInput{ServiceId: &c.id, InstanceId: &id}); err != nil {
		c.t.Fatal(err)
	}
}

// found is a mesh of which orders is looked for in Cloud Map. An agent may host it only
// with its Binding.
func found(t *testing.T) (without, binding string) {
	t.Helper()
	without = strings.Replace(shop, "    dns: {hostname: orders.internal}", "    awsCloudMap: {namespaceName: shop.local, serviceName: orders, attributes: [{key: stage, value: blue}]}", 1)
	i := strings.LastIndex(without, "---\n")
	if without == shop || !strings.Contains(without[i:], "kind: Binding") {
		t.Fatal("shop is another mesh now")
	}
	return without[:i], without[i+4:]
}

func TestInstancesOfCloudMapAreCalledWhereNoAgentRegistersAny(t *testing.T) {
	t.Parallel()
	c := startCloud(t)
	c.register("a", map[string]string{"AWS_INSTANCE_IPV4": "10.0.0.1", "stage": "blue"})
	c.register("b", map[string]string{"AWS_INSTANCE_IPV6": "fd00::2", "AWS_INSTANCE_PORT": "9090", "stage": "blue"})
	c.register("other", map[string]string{"AWS_INSTANCE_IPV4": "10.0.0.3", "stage": "green"})
	c.register("self", map[string]string{"AWS_INSTANCE_IPV4": "127.0.0.1", "stage": "blue"})

	r := newRigWith(t, func(ctx context.Context, cfg server.Config, log *slog.Logger) error {
		cfg.CloudMap = cloudmap.Where{Region: "eu-west-1", Endpoint: c.url, Every: time.Second}
		return runInProcess(ctx, cfg, log)
	})
	mesh, binding := found(t)
	r.apply(registry + mesh)
	caller := r.join("front")
	web := caller.follow(nodeOf("shop", "web", "127.0.0.9"), envoyTypes)
	sentTo := func(f *follower, what string, want ...string) {
		t.Helper()
		f.await(what, func(s *ads.Set, _ *api.View) bool { return slices.Equal(addresses(s), want) })
	}
	secured := func() (yes bool) {
		web.await("the cluster", func(s *ads.Set, _ *api.View) bool {
			for _, res := range s.Type(ads.ClusterType) {
				k := &clusterv3.Cluster{}
				if strings.HasPrefix(res.Name, "cds_egress") && proto.Unmarshal(res.Body, k) == nil {
					yes = k.GetTransportSocket() != nil
					return true
				}
			}
			return false
		})
		return yes
	}
	sentTo(web, "the instances", "10.0.0.1:8080", "fd00::2:9090")
	if secured() {
		t.Error("mTLS to a stranger of whom the spec says nothing")
	}
	c.deregister("a")
	sentTo(web, "what is left", "fd00::2:9090")
	c.mu.Lock()
	for _, by := range c.signed {
		if !strings.HasPrefix(by, "AWS4-HMAC-SHA256 Credential=AKIATEST/") || !strings.Contains(by, "/eu-west-1/servicediscovery/aws4_request") {
			t.Errorf("signed by %q", by)
		}
	}
	if c.asked["DiscoverInstances"] == 0 || c.asked["DiscoverInstancesRevision"] == 0 {
		t.Errorf("asked: %v", c.asked)
	}
	c.mu.Unlock()

	// It fails: what was answered stays, over a restart too.
	c.down.Store(true)
	c.deregister("b")
	awaitFinding(t, r, "SIG035", "AWS Cloud Map does not answer for orders.shop.local")
	if !strings.Contains(r.get("/metrics"), `signet_server_cloud_map_errors_total{service="orders.shop.local"}`) {
		t.Error("/metrics does not count it")
	}
	r.halt()
	r.start()
	web = caller.at(r).follow(nodeOf("shop", "web", "127.0.0.9"), envoyTypes)
	sentTo(web, "the last good answer", "fd00::2:9090")
	c.down.Store(false)
	sentTo(web, "nobody")

	// A host may have it: what there was, until its agent registers one. From then on mTLS, and only that.
	c.register("c", map[string]string{"AWS_INSTANCE_IPV4": "10.0.0.4", "stage": "blue"})
	sentTo(web, "the instance", "10.0.0.4:8080")
	r.apply(binding)
	awaitFinding(t, r, "SIG045", "its callers go on as before")
	if secured() {
		t.Error("mTLS to an instance while the Binding does not count")
	}
	report, _ := r.join("back").session()
	report(proxyReport("orders", "shop", "orders", "127.0.0.9", 8080))
	sentTo(web, "the registered endpoint", "127.0.0.9:8080")
	eventually(t, "mTLS", secured)
	report(&api.Report{})
	sentTo(web, "the instance again", "10.0.0.4:8080")
	if !secured() {
		t.Error("plaintext where the Binding had counted")
	}
}

// patiently is eventually where some questions have failed: the next one is up to a minute away.
func patiently(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for begun := time.Now(); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > 90*time.Second {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestInstancesStayWhileCloudMapLimitsAndWhileTheirServiceIsMadeAnew(t *testing.T) {
	t.Parallel()
	c := startCloud(t)
	c.register("a", map[string]string{"AWS_INSTANCE_IPV4": "10.0.0.1", "stage": "blue"})
	r := newRigWith(t, func(ctx context.Context, cfg server.Config, log *slog.Logger) error {
		cfg.CloudMap = cloudmap.Where{Region: "eu-west-1", Endpoint: c.url, Every: time.Second}
		return runInProcess(ctx, cfg, log)
	})
	mesh, _ := found(t)
	r.apply(registry + mesh)
	web := r.join("front").follow(nodeOf("shop", "web", "127.0.0.9"), envoyTypes)
	sentTo := func(what string, want ...string) {
		t.Helper()
		patiently(t, what, func() bool {
			s, _ := web.now()
			return s != nil && slices.Equal(addresses(s), want)
		})
	}
	says := func(cause string) bool {
		resp, err := r.admin.Check(t.Context(), &api.CheckRequest{})
		return err == nil && slices.ContainsFunc(resp.GetFindings(), func(f *api.Finding) bool {
			return f.GetId() == "SIG035" && strings.Contains(f.GetCause(), cause)
		})
	}
	answers := func() {
		t.Helper()
		eventually(t, "no finding", func() bool { return !says("") })
	}
	was, last := "10.0.0.1:8080", "a"
	sentTo("the instance", was)
	for n, limit := range []struct {
		code, after string
		least       []time.Duration // that it is left alone
	}{
		{"ThrottlingException", "", []time.Duration{1400 * time.Millisecond, 2800 * time.Millisecond}},
		{"RequestLimitExceeded", "4", []time.Duration{4 * time.Second, 4 * time.Second}},
	} {
		id := strconv.Itoa(n)
		gaps := c.limit(limit.code, limit.after, len(limit.least)+1)
		c.register(id, map[string]string{"AWS_INSTANCE_IPV4": "10.0.1." + id, "stage": "blue"})
		c.deregister(last)
		last = id
		for i, least := range limit.least {
			if gaps[i] < least {
				t.Errorf("%s %q: asked again after %s, want at least %s", limit.code, limit.after, gaps[i], least)
			}
		}
		awaitFinding(t, r, "SIG035", limit.code)
		sentTo("the last good answer", was)
		c.limits.Store(nil)
		was = "10.0.1." + id + ":8080"
		sentTo("what came meanwhile", was)
		answers()
	}

	// It is deleted, and another one of its name is made.
	c.down.Store(true) // a service with instances cannot be deleted; what the server is told meanwhile is not what is tested
	awaitFinding(t, r, "SIG035", "AWS Cloud Map does not answer")
	c.deregister(last)
	before := c.id
	c.remove()
	c.down.Store(false)
	patiently(t, "a finding of what is not there", func() bool { return says("NotFound") })
	sentTo("the last good answer", was)
	c.create()
	if c.id == before {
		t.Errorf("the service has the same id %s", was)
	}
	c.register("b", map[string]string{"AWS_INSTANCE_IPV4": "10.0.0.2", "stage": "blue"})
	sentTo("the instance of the new one", "10.0.0.2:8080")
	answers()
}
