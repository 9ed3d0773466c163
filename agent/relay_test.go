package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"signet.example/ads"
	"signet.example/api"
)

const webNode = "mesh/shop/virtualNode/web"

type adsStream = discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient

// ads opens a stream as this process and asks for clusters and these secrets.
func (r *rig) ads(node string, secrets ...string) adsStream {
	r.t.Helper()
	return r.adsOf("127.0.0.1", node, secrets...)
}

// adsOf is ads of a proxy whose application is in this place.
func (r *rig) adsOf(app, node string, secrets ...string) adsStream {
	r.t.Helper()
	return r.adsOn(r.dial("xds.sock"), app, node, secrets...)
}

func (r *rig) adsOn(conn *grpc.ClientConn, app, node string, secrets ...string) adsStream {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	r.t.Cleanup(cancel)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	shape, err := structpb.NewStruct(map[string]any{"signet.shape": map[string]any{"bind": "127.0.0.9", "app": app, "egress": 15001.0}})
	if err != nil {
		r.t.Fatal(err)
	}
	_ = stream.Send(&discoveryv3.DeltaDiscoveryRequest{ // an error shows at Recv
		Node: &corev3.Node{Id: node, Metadata: shape}, TypeUrl: ads.ClusterType,
	})
	if len(secrets) > 0 {
		_ = stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: ads.SecretType, ResourceNamesSubscribe: secrets}) // likewise
	}
	return stream
}

// take receives until ok accepts an answer; each is acknowledged.
func take(t testing.TB, s adsStream, ok func(*discoveryv3.DeltaDiscoveryResponse) bool) {
	t.Helper()
	for {
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce()}) // an error shows at Recv
		if ok(m) {
			return
		}
	}
}

func (r *rig) routeWeb(revision string, clusters ...string) {
	var rs []*ads.Resource
	for _, c := range clusters {
		rs = append(rs, r.resource(ads.ClusterType, c, &clusterv3.Cluster{Name: c}))
	}
	r.route(webNode, revision, rs...)
}

// code is how a stream ends.
func code(s adsStream) (codes.Code, string) {
	for {
		if _, err := s.Recv(); err != nil {
			return status.Code(err), status.Convert(err).Message()
		}
	}
}

// ready waits until the agent has its entries.
func (r *rig) ready(policies ...string) {
	r.t.Helper()
	r.await("bindings", func() bool {
		return strings.Contains(r.log.String(), "own resources") && (len(policies) == 0 || r.lastReport().GetPolicyRevision() == policies[0])
	})
}

func TestABoundProxyGetsItsRoutingItsSVIDAndTheBundleAndNothingElse(t *testing.T) {
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{binding("web", "web", self(t)), entry("other", "/shop/other", "unix:path:/bin/other")}
	})
	r.routeWeb("", "one")
	r.ready()
	own, bundle, other := "spiffe://test.example/shop/web", "spiffe://test.example", "spiffe://test.example/shop/other"
	s := r.ads(webNode, own, bundle, other, "spiffe://test.example/none")
	got, removed, cluster := map[string]bool{}, map[string]bool{}, false
	take(t, s, func(m *discoveryv3.DeltaDiscoveryResponse) bool {
		for _, res := range m.GetResources() {
			got[res.GetName()] = true
		}
		for _, name := range m.GetRemovedResources() {
			removed[name] = true
		}
		cluster = cluster || m.GetTypeUrl() == ads.ClusterType
		return cluster && got[own] && got[bundle] && len(removed) == 2
	})
	if got[other] {
		t.Error("another identity's secret was served")
	}
	// A27: the same answer for what is not theirs and what does not exist.
	if !removed[other] || !removed["spiffe://test.example/none"] {
		t.Errorf("removed: %v", removed)
	}
}

func TestAPeerWithoutABindingIsRefused(t *testing.T) {
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{binding("web", "web", "unix:path:/bin/other"), binding("api", "api", self(t))}
	})
	r.routeWeb("", "one")
	r.ready()
	// The same answer for what is not theirs and what does not exist: who is bound to something is told to what.
	for _, node := range []string{webNode, "mesh/shop/virtualNode/nowhere", "arn:aws:appmesh:eu-west-1:123456789012:" + webNode} {
		c, m := code(r.ads(node))
		if want := fmt.Sprintf("no binding lets this process be a proxy here as %q: it is bound to mesh/shop/virtualNode/api", node); c != codes.PermissionDenied || m != want {
			t.Errorf("%v %q, want %q", c, m, want)
		}
	}
	if c, _ := code(r.ads("web")); c != codes.InvalidArgument {
		t.Errorf("a node id of another form: %v", c)
	}
}

// The agent looks with its own eyes, and a proxy that it did not start may name any
// folder of the host.
func TestAProxyIsToldNothingOfFoldersThatItMayNotSee(t *testing.T) {
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{binding("web", "web", self(t))}
	})
	r.routeWeb("", "one")
	r.ready()
	secret := t.TempDir()
	open, file := filepath.Join(secret, "open"), filepath.Join(secret, "file")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o777), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	answers := map[string]bool{}
	for _, folder := range []string{filepath.Join(secret, "none"), open, file} {
		c, said := code(r.adsOf("unix:"+folder+"/{port}.sock", webNode))
		if c != codes.InvalidArgument || !strings.Contains(said, "app: ") || strings.Contains(said, secret) {
			t.Errorf("%s: %v %q", folder, c, said)
		}
		answers[said] = true
		if !strings.Contains(r.log.String(), folder) {
			t.Errorf("the agent's log has nothing of %s", folder)
		}
	}
	if len(answers) != 1 {
		t.Errorf("answers differ: %v", answers)
	}
}

func TestTheNodeIDSelectsAmongBindings(t *testing.T) {
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{binding("web", "web", self(t)), binding("api", "api", self(t))}
	})
	r.routeWeb("", "one")
	r.ready()
	take(t, r.ads(webNode), func(m *discoveryv3.DeltaDiscoveryResponse) bool { return len(m.GetResources()) == 1 })
}

// What a process is on xds.sock, its decisions are of: else its configuration
// would come and every call be denied.
func TestDecisionsAreOfTheNodeThatTheProcessIs(t *testing.T) {
	allow := revision(t, allowReads)
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{binding("web", "web", self(t)), binding("api", "api", self(t))}
		f.policies = []*api.PolicyRevision{allow}
	})
	r.routeWeb("", "one")
	r.ready()
	if _, _, err := r.check(authv3.NewAuthorizationClient(r.dial("authz.sock")), "GET", allow.GetId()); err == nil {
		t.Error("a process that is two nodes, and has not said which, is answered")
	}
	take(t, r.ads(webNode), func(m *discoveryv3.DeltaDiscoveryResponse) bool { return len(m.GetResources()) == 1 })
	r.await("a decision", func() bool {
		code, _, err := r.check(authv3.NewAuthorizationClient(r.dial("authz.sock")), "GET", allow.GetId())
		return err == nil && code == codes.OK
	})
}

func TestTwoBindingsForOneNodeAreAsGoodAsOne(t *testing.T) {
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{binding("web", "web", self(t)), binding("also", "web", "unix:uid:"+strconv.Itoa(os.Geteuid()))}
	})
	r.routeWeb("", "one")
	r.ready()
	take(t, r.ads(webNode), func(m *discoveryv3.DeltaDiscoveryResponse) bool { return len(m.GetResources()) == 1 })
}

func TestAStreamEndsWithItsBinding(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(f *fakeServer) { f.entries = []*api.Entry{binding("web", "web", self(t))} })
	r.routeWeb("", "one")
	r.ready()
	s := r.ads(webNode)
	take(t, s, func(*discoveryv3.DeltaDiscoveryResponse) bool { return true })
	r.change(func(f *fakeServer) { f.entries = nil })
	if c, _ := code(s); c != codes.PermissionDenied {
		t.Errorf("got %v", c)
	}
}

func TestAProxyIsLeftNothingWithoutItsBinding(t *testing.T) {
	t.Parallel()
	const own = "spiffe://test.example/shop/web"
	r := newRig(t, func(f *fakeServer) { f.entries = []*api.Entry{binding("web", "web", self(t))} })
	r.routeWeb("", "one")
	r.ready()
	s := r.ads(webNode, own)
	secrets, clusters := map[string]string{}, 0
	look := func(m *discoveryv3.DeltaDiscoveryResponse) {
		for _, res := range m.GetResources() {
			if m.GetTypeUrl() == ads.SecretType {
				secrets[res.GetName()] = res.GetVersion()
			} else {
				clusters++
			}
		}
		if m.GetTypeUrl() == ads.ClusterType {
			clusters -= len(m.GetRemovedResources())
		}
	}
	take(t, s, func(m *discoveryv3.DeltaDiscoveryResponse) bool {
		look(m)
		return clusters == 1 && secrets[own] != ""
	})
	before := secrets[own]
	r.change(func(f *fakeServer) { f.entries = nil })
	take(t, s, func(m *discoveryv3.DeltaDiscoveryResponse) bool {
		look(m)
		return clusters == 0 && secrets[own] != before
	})
	if c, _ := code(s); c != codes.PermissionDenied {
		t.Errorf("the stream ends with %v", c)
	}
}

func TestTheSecretIsPushedWhenTheSVIDRotates(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(f *fakeServer) {
		f.lifetime = 3 * time.Second
		f.entries = []*api.Entry{binding("web", "web", self(t))}
	})
	r.routeWeb("", "one")
	r.ready()
	versions := map[string]bool{}
	take(t, r.ads(webNode, "spiffe://test.example/shop/web"), func(m *discoveryv3.DeltaDiscoveryResponse) bool {
		for _, res := range m.GetResources() {
			if m.GetTypeUrl() == ads.SecretType {
				versions[res.GetVersion()] = true
			}
		}
		return len(versions) == 3
	})
}

// D3: routing that speaks of a policy goes out when the policy is
// loaded, or after a bounded wait.
func TestRoutingWaitsForItsPolicy(t *testing.T) {
	allow := revision(t, "package signet.authz\n\nallow contains \"all\" if true\n")
	r := newRig(t, func(f *fakeServer) { f.entries = []*api.Entry{binding("web", "web", self(t))} })
	r.routeWeb(allow.GetId(), "one")
	r.ready()
	s := r.ads(webNode)
	begun := time.Now()
	time.AfterFunc(300*time.Millisecond, func() { r.change(func(f *fakeServer) { f.policies = []*api.PolicyRevision{allow} }) })
	take(t, s, func(m *discoveryv3.DeltaDiscoveryResponse) bool { return len(m.GetResources()) == 1 })
	if took := time.Since(begun); took < 300*time.Millisecond || took > 4*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestAnOutageLeavesRoutingAndIdentityToNewProxies(t *testing.T) {
	r := newRig(t, func(f *fakeServer) { f.entries = []*api.Entry{binding("web", "web", self(t))} })
	r.routeWeb("", "one")
	r.ready()
	answer := func(m *discoveryv3.DeltaDiscoveryResponse) bool {
		return m.GetTypeUrl() == ads.SecretType && len(m.GetResources()) == 1
	}
	take(t, r.ads(webNode, "spiffe://test.example/shop/web"), answer)
	r.stop()
	begun := time.Now()
	take(t, r.ads(webNode, "spiffe://test.example/shop/web"), answer)
	t.Logf("a new proxy is served in %s while all servers are gone", time.Since(begun))
	r.start()
	r.routeWeb("", "one", "two")
	take(t, r.ads(webNode), func(m *discoveryv3.DeltaDiscoveryResponse) bool {
		return slices.ContainsFunc(m.GetResources(), func(res *discoveryv3.Resource) bool { return res.GetName() == "two" })
	})
}
