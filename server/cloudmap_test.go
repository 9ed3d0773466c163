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
	id     string // of the service orders of shop.local

	down atomic.Bool // it answers 500 to the server

	mu     sync.Mutex
	asked  map[string]int // by operation
	signed []string       // what authorized the requests
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
		c.mu.Unlock()
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
	if _, err := c.client.CreateHttpNamespace(t.Context(), &servicediscovery.CreateHttpNamespaceInput{Name: aws.String("shop.local")}); err != nil {
		t.Fatal(err)
	}
	spaces, err := c.client.ListNamespaces(t.Context(), &servicediscovery.ListNamespacesInput{})
	if err != nil || len(spaces.Namespaces) != 1 {
		t.Fatal(spaces, err)
	}
	s, err := c.client.CreateService(t.Context(), &servicediscovery.CreateServiceInput{Name: aws.String("orders"), NamespaceId: spaces.Namespaces[0].Id})
	if err != nil {
		t.Fatal(err)
	}
	c.id = *s.Service.Id
	return c
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

	// A host may have it: mTLS, and only what its agent registers.
	c.register("c", map[string]string{"AWS_INSTANCE_IPV4": "10.0.0.4", "stage": "blue"})
	sentTo(web, "the instance", "10.0.0.4:8080")
	r.apply(binding)
	eventually(t, "mTLS", secured)
	report, _ := r.join("back").session()
	report(proxyReport("orders", "shop", "orders", "127.0.0.9", 8080))
	sentTo(web, "the registered endpoint", "127.0.0.9:8080")
	report(&api.Report{})
	sentTo(web, "the instance again", "10.0.0.4:8080")
}
