package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"signet.example/api"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// hostsByCertificate is the World's group of hosts, by what a certificate has.
const hostsByCertificate = "apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: hosts}\nspec: {selectors: [\"x509pop:subject:cn:web-01\"]}\n"

func TestAHostJoinsByACertificateAndIsServed(t *testing.T) {
	authority := parts.NewHostCA(t, "hosts")
	certificate, key := authority.Host("web-01")
	trust := filepath.Join(t.TempDir(), "root.crt")
	w := meshtest.Start(t, meshtest.Options{
		Nodes: []string{"web"}, Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("web", "")), NoAgent: true,
		ServerExtra: "join: {x509pop: {roots: " + parts.WriteCerts(t, authority.Cert) + "}}\n",
		AgentExtra:  "trust: " + trust + "\njoin: {x509pop: {certificate: " + certificate + ", key: " + key + "}}\n",
	})
	root, err := os.ReadFile(filepath.Join(w.ServerDir(), "ca", "root.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(trust, root, 0o600); err != nil {
		t.Fatal(err)
	}
	w.Apply(hostsByCertificate)
	w.StartAgentWithoutToken()
	w.AwaitProxies()
	one := onlyAgent(t, w)
	if one.GetGroup() != "hosts" || one.GetAttestation() != "x509pop" {
		t.Errorf("%v", one)
	}
	// It is known by its host key from now on: neither file is looked at again.
	if err := errors.Join(os.Remove(certificate), os.Remove(key)); err != nil {
		t.Fatal(err)
	}
	w.Agent.Kill()
	w.StartAgentWithoutToken()
	w.AwaitProxies()
	if again := onlyAgent(t, w); again.GetId() != one.GetId() {
		t.Errorf("%s came back as %s", one.GetId(), again.GetId())
	}
	// A group that lets its host go takes the proxy's identity from it.
	w.Apply("apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: hosts}\nspec: {selectors: [\"x509pop:subject:cn:web-02\"]}\n")
	eventually(t, 20*time.Second, "the proxy is gone", func() bool { return w.ProxyStates()["web"] != api.ProxyStatus_READY })
}

func onlyAgent(t *testing.T, w *meshtest.World) *api.AgentInfo {
	t.Helper()
	resp, err := w.Admin.Agents(t.Context(), &api.AgentsRequest{})
	if err != nil || len(resp.GetAgents()) != 1 {
		t.Fatalf("%v, %v", resp, err)
	}
	return resp.GetAgents()[0]
}
