package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// A task joins by its role, serves, and leaves nothing behind when it is told to stop; one
// that is killed leaves its agent until its certificate has ended.
func TestATaskJoinsByItsRoleIsServedAndIsForgottenWhenItStops(t *testing.T) {
	aws := parts.NewSTS(t, "123456789012")
	for name, value := range aws.Environment(aws.ARN("web")) {
		t.Setenv(name, value)
	}
	trust := filepath.Join(t.TempDir(), "root.crt")
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"web"}, Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", "")), NoAgent: true,
		ServerExtra: "join: {aws_task: {accounts: [{account: \"123456789012\", issuer: " + aws.Issuer() + ", roles: [\"" + aws.ARN("web") + "\"]}]}}\n",
		AgentExtra:  "trust: " + trust + "\njoin: {aws_task: {region: environment, endpoint: " + aws.URL() + "}}\n",
	})
	root, err := os.ReadFile(filepath.Join(w.ServerDir(), "ca", "root.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(trust, root, 0o600); err != nil {
		t.Fatal(err)
	}
	w.Apply("apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: hosts}\nspec: {selectors: [\"aws_task:role:" + aws.ARN("web") + "\", \"aws_task:region:eu-west-1\"]}\n")
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
