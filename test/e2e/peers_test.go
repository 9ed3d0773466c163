package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"signet.example/api"
	"signet.example/proxy"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// Users that own nothing here. The lone one is bound to a virtual node.
const (
	nobodyUID = 65533
	loneUID   = 65534
)

// inOrders allows only what is asked of orders, and so tells which destination
// the authz process believes a question to come from.
const inOrders = `package signet.authz

allow contains "orders is open" if input.destination.spiffe_id == "spiffe://test.example/test/orders"
`

const loneBinding = `apiVersion: signet.example/v1alpha1
kind: Binding
metadata: {name: lone}
spec: {group: hosts, mesh: test, virtualNode: lone, selectors: ["unix:uid:%d"]}
`

func peersMesh(t *testing.T, change ...func(*meshtest.Options)) *meshtest.World {
	t.Helper()
	if os.Geteuid() != 0 {
		parts.Missing(t, "other users: they need root")
	}
	opts := meshtest.Options{
		Nodes: []string{"front", "orders"},
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "orders"), meshtest.VirtualNode("lone", ""),
			meshtest.VirtualNode("orders", meshtest.Strict("test.example", "orders")), meshtest.ServiceOfNode("orders", "orders"),
			fmt.Sprintf(loneBinding, loneUID)),
		Policy: map[string]string{"orders.rego": inOrders},
	}
	for _, c := range change {
		c(&opts)
	}
	w := meshtest.Start(t, opts)
	w.AwaitRoute("front", host+"/orders")
	return w
}

func TestWhoIsNotAttestedGetsNothing(t *testing.T) {
	w := peersMesh(t)
	socket := func(name string) string { return filepath.Join(w.AgentDir(), name) }
	if a := w.Get("front", host+"/orders"); a.Status != 200 {
		t.Fatalf("the control: %d %s", a.Status, a.Body)
	}
	t.Run("xds", func(t *testing.T) { foreignNodes(t, socket("xds.sock")) })
	t.Run("secrets", func(t *testing.T) { foreignSecrets(t, socket("xds.sock")) })
	t.Run("authz", func(t *testing.T) { foreignChecks(t, w, socket("authz.sock")) })
	t.Run("workload", func(t *testing.T) { foreignWorkloads(t, socket("workload.sock")) })
	t.Run("crowds", func(t *testing.T) { crowds(t, w) })
	t.Run("sockets of operators", func(t *testing.T) { foreignOperators(t, w) })
}

// nodeIDs are those of a proxy that exists, of a node without one, of one that
// does not exist, and of a mesh that does not.
var nodeIDs = []string{proxy.Node("test", "front").String(), proxy.Node("test", "orders").String(), proxy.Node("test", "nothing").String(), proxy.Node("elsewhere", "front").String()}

func without(message, name string) string {
	return strings.ReplaceAll(message, strconv.Quote(name), "NAME")
}

func foreignNodes(t *testing.T, socket string) {
	var questions []question
	for _, id := range nodeIDs {
		questions = append(questions, question{Do: "xds", Socket: socket, Node: id})
	}
	own := question{Do: "xds", Socket: socket, Node: proxy.Node("test", "lone").String()}
	for who, answers := range map[string][]told{
		"a user who is bound to nothing":      askAs(t, nobodyUID, append(questions, own)...),
		"a user who is bound to another node": askAs(t, loneUID, questions...),
		"the agent's own user, not its proxy": askAll(append(questions, own)),
	} {
		for i, a := range answers {
			if a.Code != "PermissionDenied" || len(a.Names) > 0 {
				t.Errorf("%s, node %d: %+v", who, i, a)
			}
			// But for the name that they said themselves all are told the same.
			first, this := without(answers[0].Message, questions[0].Node), without(a.Message, append(questions, own)[i].Node)
			if this != first {
				t.Errorf("%s is told %q of one that is not theirs and %q of another", who, first, this)
			}
		}
	}
	if a := askAs(t, loneUID, own)[0]; a.Code != "OK" || !slices.Equal(a.Names, []string{"cds_ingress_test_lone_http_8080", "signet_authz", "signet_wayout"}) {
		t.Errorf("the control, a user who is bound to this node: %+v", a)
	}
}

func foreignSecrets(t *testing.T, socket string) {
	own := proxy.Node("test", "lone").String()
	names := []string{
		"spiffe://test.example/test/front", "spiffe://test.example/test/nothing", "spiffe://other.example", "spiffe://test.example/signet/server/a",
		"spiffe://test.example/test/lone", "spiffe://test.example",
	}
	answers := askAs(t, loneUID,
		question{Do: "xds", Socket: socket, Node: own, Names: names},
		question{Do: "xds", Socket: socket, Node: own, Names: names[4:5], Then: nodeIDs[0]})
	want := told{
		Code: "OK", Names: []string{"spiffe://test.example", "spiffe://test.example/test/lone"},
		Missing: []string{"spiffe://other.example", "spiffe://test.example/signet/server/a", "spiffe://test.example/test/front", "spiffe://test.example/test/nothing"},
	}
	if d := cmp.Diff(want, answers[0]); d != "" {
		t.Errorf("secrets by name (-want +got):\n%s", d)
	}
	if a := answers[1]; a.Code == "OK" || slices.Contains(a.Names, "spiffe://test.example/test/front") {
		t.Errorf("another node id in the middle of a stream: %+v", a)
	}
}

var asLone = regexp.MustCompile(`(?m)^to +spiffe://test\.example/test/lone$`)

func foreignChecks(t *testing.T, w *meshtest.World, socket string) {
	agents, err := w.Admin.Agents(t.Context(), &api.AgentsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	q := question{Do: "authz", Socket: socket, Destination: "spiffe://test.example/test/orders", Revision: agents.GetAgents()[0].GetReport().GetPolicyRevision()}
	for who, a := range map[string]told{"a user who is bound to nothing": askAs(t, nobodyUID, q)[0], "the agent's own user, not its proxy": askAll([]question{q})[0]} {
		if a.Code != "Unavailable" || a.Status != 0 {
			t.Errorf("%s: %+v, want the connection closed", who, a)
		}
	}
	// Who is bound asks for itself only: what it says of the destination is not read.
	a := askAs(t, loneUID, q)[0]
	if a.Code != "OK" || a.Status != 403 || len(a.Names) != 2 {
		t.Fatalf("the proxy of another node: %+v, want a denial", a)
	}
	id := a.Names[0]
	if len(id) != 32 {
		id = a.Names[1]
	}
	if out, code := w.CLI("explain", id); code != 0 || !asLone.MatchString(out) {
		t.Errorf("explain of it: exit %d\n%s", code, out)
	}
}

func foreignWorkloads(t *testing.T, socket string) {
	var questions []question
	headers := [][]string{nil, {"false"}, {"TRUE"}, {"True"}, {"1"}, {"true "}, {""}, {"true", "true"}, {"true", "false"}, {"true"}}
	for _, h := range headers {
		questions = append(questions, question{Do: "workload", Socket: socket, Header: h})
	}
	for i, a := range askAs(t, nobodyUID, questions...) {
		want := "InvalidArgument"
		// HTTP takes white space round a value away before anybody sees it (RFC 9110 5.5).
		if h := headers[i]; len(h) == 1 && strings.TrimSpace(h[0]) == "true" {
			want = "PermissionDenied"
		}
		if a.Code != want && (headers[i] == nil || headers[i][0] != "true ") || a.Code == "OK" || len(a.Names) > 0 {
			t.Errorf("header %q: %+v, want %s", headers[i], a, want)
		}
	}
	// The control: a user with an identity gets it, and no other one.
	if a := askAs(t, loneUID, questions[len(questions)-1])[0]; a.Code != "OK" || !slices.Equal(a.Names, []string{"spiffe://test.example/test/lone"}) {
		t.Errorf("a bound proxy at the Workload API: %+v", a)
	}
}

// foreignOperators: what is for operators is closed by the file system, and the
// server looks at the peer as well.
func foreignOperators(t *testing.T, w *meshtest.World) {
	envoys := filepath.Join(w.AgentDir(), "proxies", "orders", "admin.sock")
	for i, a := range askAs(t, nobodyUID, question{Do: "dial", Socket: w.Socket()}, question{Do: "dial", Socket: envoys}) {
		if a.Code != "permission denied" {
			t.Errorf("socket %d: %+v", i, a)
		}
	}
	// Somebody has opened the file system: the peer's user decides.
	for path, mode := range map[string]os.FileMode{w.ServerDir(): 0o755, w.Socket(): 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	admin := question{Do: "admin", Socket: w.Socket()}
	for _, uid := range []uint32{nobodyUID, loneUID} {
		if a := askAs(t, uid, question{Do: "dial", Socket: w.Socket()}, admin); a[0].Code != "OK" || a[1].Code != "Unavailable" {
			t.Errorf("uid %d through an open file system: %+v", uid, a)
		}
	}
	if a := askAll([]question{admin})[0]; a.Code != "OK" {
		t.Errorf("the control, the server's own user: %+v", a)
	}
}
