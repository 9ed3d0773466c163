package yesterday

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"signet.example/api"
	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

func TestServerAndAgentGoOnWithWhatTheReleaseBeforeLeft(t *testing.T) {
	t.Parallel()
	w := resume(t)
	before := t.TempDir()
	unpack(t, "whole.tar.gz", before)
	sameAuthority(t, filepath.Join(before, "server"), w.ServerDir())
	sameObjects(t, w)
	sameCerts(t, w, "certs.json")

	// What was applied then is applied again and changes nothing.
	answer, err := w.Admin.Apply(t.Context(), &api.ApplyRequest{DryRun: true, Sources: []*api.Source{{File: "manifests.yaml", Content: kept(t, "manifests.yaml")}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range answer.GetChanges() {
		if c.GetAction() != api.Change_UNCHANGED {
			t.Errorf("%s %s is %s:\n%s", c.GetKind(), c.GetName(), c.GetAction(), cmp.Diff(c.GetBefore(), c.GetAfter()))
		}
	}

	// The agent has no token: it is who it was, by its host key.
	if err := os.Mkdir(filepath.Join(w.Dir, "logs"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.Agent = w.Run("agent", w.Program(), "agent", "--config", config(t, w, "agent.yaml"))
	w.AwaitAgent()
	var then struct{ Agents []*agentRow }
	decode(t, kept(t, "agents.json"), &then)
	today, err := w.Admin.Agents(t.Context(), &api.AgentsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(today.GetAgents()) != 1 || len(then.Agents) != 1 {
		t.Fatalf("%d agents, and %d before", len(today.GetAgents()), len(then.Agents))
	}
	a := today.GetAgents()[0]
	if is := (agentRow{a.GetId(), a.GetGroup(), a.GetHostname(), a.GetJoined().AsTime()}); is != *then.Agents[0] || !a.GetConnected() {
		t.Errorf("the agent was %+v and is %+v, connected: %t", *then.Agents[0], is, a.GetConnected())
	}

	// The policy that was in force decides, though its repository is not here.
	w.AwaitRoute("front", "http://orders.test.internal/orders")
	if got := w.Get("front", "http://orders.test.internal/orders"); got.Status != 200 || got.Seen.Caller() != "spiffe://"+trustDomain+"/test/front" {
		t.Errorf("orders: %d by %q", got.Status, got.Seen.Caller())
	}
	denied := w.Get("front", "http://orders.test.internal/admin")
	if denied.Status != 403 {
		t.Errorf("admin: %d", denied.Status)
	}
	if out, _ := w.CLI("explain", denied.DecisionID); !strings.Contains(out, "nobody reaches the admin pages") {
		t.Errorf("explain:\n%s", out)
	}
}

func TestServerAndSignerOfTwoUsersGoOnWithWhatTheReleaseBeforeLeft(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		parts.Missing(t, "processes of two users need root")
	}
	w := meshtest.Prepare(t, meshtest.Options{TrustDomain: trustDomain, SignerUID: 65001, ServerUID: 65002}) // as the configurations say
	unpack(t, "apart.tar.gz", w.Dir)
	before := t.TempDir()
	unpack(t, "apart.tar.gz", before)
	w.Part()
	w.StartSignerWith(config(t, w, "apart-signer.yaml"))
	w.StartServerWith(config(t, w, "apart-server.yaml"))
	sameAuthority(t, filepath.Join(before, "signer"), w.SignerDir())
	sameCerts(t, w, "apart-certs.json")
	today, err := w.Admin.Agents(t.Context(), &api.AgentsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSpace(string(kept(t, "apart-agent.txt")))
	if a := today.GetAgents(); len(a) != 1 || a[0].GetId() != id {
		t.Errorf("the agent was %s; agents are %v", id, a)
	}
	if h := w.JoinHost(); h.ID == "" {
		t.Error("nobody joins")
	}
}

type agentRow struct {
	ID, Group, Hostname string
	Joined              time.Time
}

func decode(t *testing.T, content []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(content, into); err != nil {
		t.Fatal(err)
	}
}

// sameAuthority holds a signer's files to what they were: the root and its set are the
// same bytes, and the log has grown.
func sameAuthority(t *testing.T, before, today string) {
	t.Helper()
	for _, name := range []string{"root.crt", "root-set", "root.key"} {
		was, err := os.ReadFile(filepath.Join(before, "ca", name))
		is, err2 := os.ReadFile(filepath.Join(today, "ca", name))
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(was, is) {
			t.Errorf("%s is another", name)
		}
	}
	was, err := os.ReadFile(filepath.Join(before, "ca", "issuance.log"))
	is, err2 := os.ReadFile(filepath.Join(today, "ca", "issuance.log"))
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(is, was) || len(is) == len(was) {
		t.Errorf("the log of %d bytes does not go on the one of %d", len(is), len(was))
	}
}

func sameObjects(t *testing.T, w *meshtest.World) {
	t.Helper()
	out, code := w.CLI("get", "all", "-o", "json")
	if code != 0 {
		t.Fatal(out)
	}
	var was, is map[string]any
	decode(t, kept(t, "objects.json"), &was)
	decode(t, []byte(out), &is)
	if d := cmp.Diff(was, is); d != "" {
		t.Errorf("objects (- before, + today):\n%s", d)
	}
}

// sameCerts looks up each certificate of before by its serial.
func sameCerts(t *testing.T, w *meshtest.World, name string) {
	t.Helper()
	out, code := w.CLI("certs", "--all", "-o", "json")
	if code != 0 {
		t.Fatal(out)
	}
	rows := func(content []byte) []string {
		var all struct {
			Certs []struct{ SpiffeID, Serial, NotBefore, NotAfter string }
		}
		decode(t, bytes.ReplaceAll(content, []byte("_"), nil), &all)
		var rows []string
		for _, c := range all.Certs {
			rows = append(rows, fmt.Sprintf("%+v", c))
		}
		return rows
	}
	was, is := rows(kept(t, name)), rows([]byte(out))
	if len(was) == 0 {
		t.Fatalf("%s has none", name)
	}
	for _, c := range was {
		if !slices.Contains(is, c) {
			t.Errorf("it is not in the log any more: %s\n%v", c, is)
		}
	}
}
