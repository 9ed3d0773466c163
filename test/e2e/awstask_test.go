package e2e

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/store"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// byRole starts a mesh whose agent is a task's that joins by its role.
func byRole(t *testing.T, opts meshtest.Options) (*meshtest.World, *parts.STS) {
	t.Helper()
	aws := parts.NewSTS(t, "123456789012")
	for name, value := range aws.Environment(aws.ARN("web")) {
		t.Setenv(name, value)
	}
	opts.ServerExtra += "join: {aws_task: {accounts: [{account: \"123456789012\", issuer: " + aws.Issuer() + ", roles: [\"" + aws.ARN("web") + "\"]}]}}\n"
	opts.AgentExtra = "join: {aws_task: {region: environment, endpoint: " + aws.URL() + "}}\n"
	return withTrust(t, opts, "aws_task:role:"+aws.ARN("web"), "aws_task:region:eu-west-1"), aws
}

// withTrust starts a mesh whose agent has the root in a file, and whose hosts have these selectors.
func withTrust(t *testing.T, opts meshtest.Options, selectors ...string) *meshtest.World {
	t.Helper()
	trust := filepath.Join(t.TempDir(), "root.crt")
	opts.NoAgent = true
	opts.AgentExtra += "trust: " + trust + "\n"
	w := meshtest.Start(t, opts)
	root, err := os.ReadFile(filepath.Join(w.ServerDir(), "ca", "root.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(trust, root, 0o600); err != nil {
		t.Fatal(err)
	}
	w.Apply("apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: hosts}\nspec: {selectors: [\"" + strings.Join(selectors, "\", \"") + "\"]}\n")
	return w
}

// A task joins by its role, serves, and leaves nothing behind when it is told to stop; one
// that is killed leaves its agent until its certificate has ended.
func TestATaskJoinsByItsRoleIsServedAndIsForgottenWhenItStops(t *testing.T) {
	w, aws := byRole(t, meshtest.Options{Nodes: []string{"web"}, Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", ""))})
	w.StartAgentWithoutToken()
	w.AwaitProxies()
	one := onlyAgent(t, w)
	if one.GetGroup() != "hosts" || one.GetAttestation() != "aws_task" {
		t.Errorf("%v", one)
	}
	w.Agent.Kill()
	w.StartAgentWithoutToken() // in the same task: it comes back by the key that it has
	w.AwaitProxies()
	if again := onlyAgent(t, w); again.GetId() != one.GetId() {
		t.Errorf("%s came back as %s", one.GetId(), again.GetId())
	}
	if n := aws.Asked.Load(); n != 1 {
		t.Errorf("STS was asked %d times", n)
	}
	w.Agent.Stop()
	eventually(t, 20*time.Second, "the agent is forgotten", func() bool {
		resp, err := w.Admin.Agents(t.Context(), &api.AgentsRequest{})
		return err == nil && len(resp.GetAgents()) == 0
	})
	if n := aws.Fetches.Load(); n != 1 {
		t.Errorf("keys were fetched %d times", n)
	}
	w.StartAgentWithoutToken() // as another one: its host key is not known any more
	w.AwaitProxies()
	if again := onlyAgent(t, w); again.GetId() == one.GetId() {
		t.Errorf("it came back as %s, which was forgotten", again.GetId())
	}
}

// A9-47: the agent of a task that runs was deleted at the server, as after a long partition: it
// joins anew, and its Envoys are what they were.
func TestATaskThatIsForgottenWhileItRunsJoinsAnewWithTheEnvoysThatItHas(t *testing.T) {
	w, aws := byRole(t, meshtest.Options{
		Nodes: []string{"front", "web"}, ServerExtra: "  agent: 20s\n", // of lifetimes
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "web"), meshtest.VirtualNode("web", ""), meshtest.ServiceOfNode("web", "web")),
	})
	w.StartAgentWithoutToken()
	w.AwaitProxies()
	page := "http://" + meshtest.HostOf("web") + "/"
	w.AwaitRoute("front", page)
	one, pids := onlyAgent(t, w), pidsOf(w)
	w.KillServer()
	s, err := store.Open(t.Context(), filepath.Join(w.ServerDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.DeleteAgent(t.Context(), "server", one.GetId()), s.Close()); err != nil {
		t.Fatal(err)
	}
	w.StartServer()
	eventually(t, 60*time.Second, "it joined anew, and its proxies are ready", func() bool {
		resp, err := w.Admin.Agents(t.Context(), &api.AgentsRequest{})
		return err == nil && len(resp.GetAgents()) == 1 && resp.GetAgents()[0].GetId() != one.GetId() && len(w.ProxyStates()) == 2
	})
	w.AwaitProxies()
	w.AwaitRoute("front", page) // its endpoints went with the agent that was
	if now := pidsOf(w); !maps.Equal(now, pids) {
		t.Errorf("the Envoys were %v, and are %v", pids, now)
	}
	if n := aws.Asked.Load(); n != 2 {
		t.Errorf("STS was asked %d times", n)
	}
}

// A task whose account gives no tokens joins by a question that it signs and the server asks.
func TestATaskJoinsByAQuestionToSTSAndIsServed(t *testing.T) {
	aws := parts.NewSTS(t, "123456789012")
	for name, value := range aws.Environment(aws.ARN("web")) {
		t.Setenv(name, value)
	}
	w := withTrust(t, meshtest.Options{
		Nodes: []string{"web"}, Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", "")),
		ServerExtra: "join: {aws_caller_identity: {regions: [{region: eu-west-1, endpoint: " + aws.URL() + "}], accounts: [{account: \"123456789012\", roles: [\"" + aws.ARN("web") + "\"]}]}}\n",
		AgentExtra:  "join: {aws_caller_identity: {region: environment}}\n",
	}, "aws_caller_identity:role:"+aws.ARN("web"))
	w.StartAgentWithoutToken()
	w.AwaitProxies()
	if one := onlyAgent(t, w); one.GetGroup() != "hosts" || one.GetAttestation() != "aws_caller_identity" || aws.Asked.Load() != 1 {
		t.Errorf("%v; STS was asked %d times", one, aws.Asked.Load())
	}
}

// A pod joins by the token that the kubelet wrote, is served, and leaves nothing behind.
func TestAPodJoinsByItsTokenIsServedAndIsForgottenWhenItStops(t *testing.T) {
	cluster := parts.NewCluster(t)
	pod := parts.Pod{Namespace: "shop", ServiceAccount: "web", Name: "web-5d4f8", UID: "4f1c0c2e-6f0e-4ac1-9d1a-0f8f6f1f7d11"}
	token := cluster.Project(cluster.Sign(cluster.Claims(pod, "signet:test.example")))
	w := withTrust(t, meshtest.Options{
		Nodes: []string{"web"}, Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", "")),
		ServerExtra: "join: {k8s_psat: {clusters: [{name: prod, issuer: " + cluster.Issuer() + ", keys_url: " + cluster.KeysURL() + ", service_accounts: [shop/web]}]}}\n",
		AgentExtra:  "join: {k8s_psat: {token_file: " + token + "}}\n",
	}, "k8s_psat:service_account:prod/shop/web")
	w.StartAgentWithoutToken()
	w.AwaitProxies()
	if one := onlyAgent(t, w); one.GetGroup() != "hosts" || one.GetAttestation() != "k8s_psat" {
		t.Errorf("%v", one)
	}
	w.Agent.Stop()
	eventually(t, 20*time.Second, "the agent is forgotten", func() bool {
		resp, err := w.Admin.Agents(t.Context(), &api.AgentsRequest{})
		return err == nil && len(resp.GetAgents()) == 0
	})
}

// pidsOf are the processes of the proxies.
func pidsOf(w *meshtest.World) map[string]int64 {
	pids := map[string]int64{}
	for _, p := range w.Proxies() {
		pids[p.GetName()] = p.GetPid()
	}
	return pids
}
