package e2e

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"signet.example/dev"
	"signet.example/test/envoytest"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// appMeshBootstrap is what App Mesh's own agent writes for its Envoy where its control plane
// and its certificates are at Unix sockets: APPMESH_XDS_ENDPOINT=unix://…/xds.sock and
// APPMESH_SDS_SOCKET_PATH. Of its own it has no place, and no address but that of its task.
// Not shown: tracing, tags of statistics, and 0.0.0.0:9901 (ENVOY_ADMIN_MODE=uds).
const appMeshBootstrap = `
node:
  id: ID
  cluster: ID
  metadata:
    aws.appmesh.static_runtime: {envoy.features.enable_all_deprecated_features: true, re2.max_program_size.error_level: 1000}
    aws.appmesh.task.interfaces: {ipv4: {eth0: ["BIND/8"]}, ipv6: {}}
    aws.appmesh.platformInfo:
      AvailabilityZone: eu-west-1a
      supportedIPFamilies: IPv4
      ecsPlatformInfo: {ecsLaunchType: EC2, ecsClusterArn: "arn:aws:ecs:eu-west-1:123456789012:cluster/shop"}
      systemInfo: {systemPlatform: linux, systemKernelVersion: "5.10"}
admin:
  access_log_path: DIR/admin.log
  address: {pipe: {path: DIR/admin.sock, mode: 384}}
dynamic_resources:
  ads_config:
    api_type: GRPC
    transport_api_version: V3
    grpc_services:
      - google_grpc:
          target_uri: unix://SOCKETS/xds.sock
          stat_prefix: ads
          channel_args:
            args:
              grpc.keepalive_time_ms: {int_value: "10000"}
              grpc.keepalive_timeout_ms: {int_value: "20000"}
              grpc.http2.max_pings_without_data: {int_value: "0"}
              grpc.initial_reconnect_backoff_ms: {int_value: "10000"}
              grpc.max_connection_age_ms: {int_value: "2400000"}
              grpc.max_connection_age_grace_ms: {int_value: "5000"}
  cds_config: {resource_api_version: V3, initial_fetch_timeout: 0s, ads: {}}
  lds_config: {resource_api_version: V3, initial_fetch_timeout: 0s, ads: {}}
static_resources:
  clusters:
    - name: local_cluster
      type: EDS
      connect_timeout: 1s
      eds_cluster_config: {eds_config: {resource_api_version: V3, initial_fetch_timeout: 0.001s, ads: {}}}
    - name: static_cluster_sds_unix_socket
      type: STATIC
      connect_timeout: 1s
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {http2_protocol_options: {}}
      load_assignment:
        cluster_name: static_cluster_sds_unix_socket
        endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: SOCKETS/workload.sock}}}}]}]
layered_runtime:
  layers:
    - name: static_layer_0
      static_layer:
        envoy.features.enable_all_deprecated_features: true
        re2.max_program_size.error_level: 1000
        envoy.reloadable_features.http_set_tracing_decision_in_request_id: true
        envoy.reloadable_features.no_extension_lookup_by_name: true
    - name: admin_layer
      admin_layer: {}
`

// appMeshOwn are the objects of two Envoys that App Mesh's agent starts: a node's and a gateway's.
const appMeshOwn = `apiVersion: signet.example/v1alpha1
kind: Binding
metadata: {name: web-envoy}
spec: {group: hosts, mesh: test, virtualNode: web, selectors: ["unix:path:%s"]}
---
apiVersion: signet.example/v1alpha1
kind: Binding
metadata: {name: edge-envoy}
spec: {group: hosts, mesh: test, virtualGateway: edge, selectors: ["unix:path:%s"]}
---
apiVersion: appmesh.k8s.aws/v1beta2
kind: VirtualGateway
metadata: {name: edge}
spec: {meshRef: {name: test}, listeners: [{portMapping: {port: %d, protocol: http}}]}
`

const edgeARN = "arn:aws:appmesh:eu-west-1:123456789012:mesh/test/virtualGateway/edge"

func TestTheEnvoyOfAppMeshsOwnAgentIsAProxyByItsBinding(t *testing.T) {
	loopback, err := dev.ReserveLoopback(3, meshtest.AppPort, meshtest.EgressPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = loopback.Close() })
	bind, app, edgeBind := loopback.Addresses[0], loopback.Addresses[1], loopback.Addresses[2]
	webDir, edgeDir, otherDir := t.TempDir(), t.TempDir(), t.TempDir()
	web, edge := copyOf(t, parts.Envoy(t), filepath.Join(webDir, "envoy")), copyOf(t, parts.Envoy(t), filepath.Join(edgeDir, "envoy"))
	w := meshtest.Start(t, meshtest.Options{
		Lifetime: 20 * time.Second, Nodes: []string{"front", "orders"},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "web"), meshtest.VirtualNode("orders", meshtest.Strict("test.example", "orders")),
			meshtest.VirtualNode("web", meshtest.Strict("test.example", "web"), "orders"), meshtest.ServiceOfNode("orders", "orders"), meshtest.ServiceOfNode("web", "web"),
			fmt.Sprintf(appMeshOwn, web, edge, meshtest.AppPort), edgeRoute("web", "/", "web")),
		AgentExtra: "app_mesh: {app: " + app + "}\n",
	})
	w.Nodes["web"] = meshtest.Node{Name: "web", Bind: bind, App: app, Egress: bind}
	serveEcho(t, net.JoinHostPort(app, fmt.Sprint(meshtest.AppPort)))
	start := func(program, dir, id, at string) *ownEnvoy {
		return startOwn(t, program, dir, strings.NewReplacer("ID", id, "BIND", at, "DIR", dir, "SOCKETS", w.AgentDir()).Replace(appMeshBootstrap))
	}
	node, gateway := start(web, webDir, "mesh/test/virtualNode/web", bind), start(edge, edgeDir, edgeARN, edgeBind)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the node's log:\n%s\nthe gateway's log:\n%s", node.said(t), gateway.said(t))
		}
	})
	atEdge := "http://" + net.JoinHostPort(edgeBind, fmt.Sprint(meshtest.AppPort)) + "/"
	outside := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	throughEdge := func() (meshtest.Answer, error) { return meshtest.Do(t, outside, http.MethodGet, atEdge) }
	w.AwaitRoute("front", webHost+"/")
	w.AwaitRoute("web", host+"/orders")
	eventually(t, 15*time.Second, "a call through the gateway", func() bool { a, err := throughEdge(); return err == nil && a.Status == 200 })

	t.Run("it serves and calls by mTLS", func(t *testing.T) {
		for what, c := range map[string]struct {
			call   func() (meshtest.Answer, error)
			caller string
		}{
			"front to web":  {func() (meshtest.Answer, error) { return w.Get("front", webHost+"/"), nil }, frontID},
			"web to orders": {func() (meshtest.Answer, error) { return w.Get("web", host+"/orders"), nil }, ownID},
			"from outside":  {throughEdge, "spiffe://test.example/test/edge"},
		} {
			if a, err := c.call(); err != nil || a.Status != 200 || a.Seen.Caller() != c.caller {
				t.Errorf("%s: %d, called by %q: %s, %v", what, a.Status, a.Seen.Caller(), a.Body, err)
			}
		}
	})
	t.Run("they are registered where their tasks are", func(t *testing.T) {
		for name, ref := range map[string]string{"web-envoy@" + bind: "test/web", "edge-envoy@" + edgeBind: "test/edge"} {
			eventually(t, 10*time.Second, name+" is synced", func() bool {
				out, _ := w.CLI("proxies", name, "-o", "wide")
				return regexp.MustCompile(`(?m)^` + name + ` +` + ref + ` +ready +synced `).MatchString(out)
			})
		}
	})
	t.Run("certificates rotate and the server restarts: no request fails", func(t *testing.T) {
		// Few: each of them may open a connection with a handshake of its own where a host is slow.
		const perSecond, atLeast = 20, 60
		loads := map[string]*envoytest.Run{
			"to it":      w.StartLoad("front", webHost+"/", perSecond),
			"from it":    w.StartLoad("web", host+"/orders", perSecond),
			"through it": envoytest.Load{URL: atEdge, Rate: perSecond, NewConnections: 0.02}.Start(t.Context()),
		}
		changes := map[*ownEnvoy]int{}
		last := map[*ownEnvoy]string{node: node.serials(t), gateway: gateway.serials(t)}
		rotated := func(n int) func() bool {
			return func() bool {
				for _, e := range []*ownEnvoy{node, gateway} {
					if now := e.serials(t); now != last[e] {
						last[e] = now
						changes[e]++
					}
				}
				return changes[node] >= n && changes[gateway] >= n
			}
		}
		eventually(t, 30*time.Second, "a first rotation", rotated(1))
		w.KillServer()
		w.StartServer()
		eventually(t, 40*time.Second, "a rotation by the server that came back", rotated(2))
		for what, load := range loads {
			r := load.Stop()
			t.Logf("%s: %s", what, r)
			if r.Failed > 0 || r.Sent < atLeast {
				t.Errorf("%s: %d of %d failed; its Envoy:\n%s", what, r.Failed, r.Sent, node.admin(t, "/stats?usedonly&filter=upstream_cx|ssl|upstream_rq"))
			}
		}
	})
	t.Run("it comes back to an agent that restarts", func(t *testing.T) {
		before := node.serials(t)
		w.Agent.Kill()
		w.StartAgent()
		w.AwaitProxies()
		took := eventually(t, 60*time.Second, "calls to it, from it and through the gateway", func() bool {
			in, err := meshtest.Do(t, w.Client("front"), http.MethodGet, webHost+"/")
			out, err2 := meshtest.Do(t, w.Client("web"), http.MethodGet, host+"/orders")
			through, err3 := throughEdge()
			return err == nil && err2 == nil && err3 == nil && in.Status == 200 && out.Status == 200 && through.Status == 200 && node.serials(t) != before
		})
		t.Logf("%s after the agent and its own proxies were back", took)
	})
	t.Run("it is content with what it was sent", func(t *testing.T) {
		for line := range strings.Lines(node.said(t) + gateway.said(t) + w.Agent.Tail(1<<20)) {
			if strings.Contains(line, "rejected") {
				t.Error(line)
			}
		}
	})
	t.Run("a node id that is not what it is bound to is refused by name", func(t *testing.T) {
		node.end()
		other := start(web, otherDir, "mesh/test/virtualNode/orders", bind)
		eventually(t, 20*time.Second, "the reason in Envoy's log", func() bool {
			return strings.Contains(other.said(t), `no binding lets this process be a proxy here as "mesh/test/virtualNode/orders": it is bound to mesh/test/virtualNode/web`)
		})
		if listeners := other.admin(t, "/listeners"); listeners != "" {
			t.Errorf("it has listeners: %s", listeners)
		}
	})
}

// serials are those of all certificates that it holds.
func (e *ownEnvoy) serials(t *testing.T) string {
	t.Helper()
	return fmt.Sprint(regexp.MustCompile(`"serial_number": ?"[0-9a-f]+"`).FindAllString(e.admin(t, "/certs"), -1))
}
