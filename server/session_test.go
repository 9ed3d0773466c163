package server_test

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
)

func TestExplainFindsTheAgentThatDecided(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	const id = "0123456789abcdef0123456789abcdef"
	_, err := r.admin.Explain(t.Context(), &api.ExplainRequest{Id: id})
	wantCode(t, err, codes.NotFound)
	_, err = r.admin.Explain(t.Context(), &api.ExplainRequest{Id: "../x"})
	wantCode(t, err, codes.InvalidArgument, "x-signet-decision-id")

	knows, other := r.join("front"), r.join("back")
	for _, h := range []*host{knows, other} {
		report, session := h.session()
		report(&api.Report{})
		go func() {
			for {
				m, err := session.Recv()
				if err != nil {
					return
				}
				a := &api.ExplainAnswer{Id: m.GetExplain()}
				if h == knows && m.GetExplain() == id {
					a.Decision = &api.Decision{Id: id, Message: "because", Node: "spiffe://another/agent"}
				}
				if session.Send(&api.SessionUp{Message: &api.SessionUp_Explain{Explain: a}}) != nil {
					return
				}
			}
		}()
	}
	eventually(t, "both are connected", func() bool { return len(connected(t, r)) == 2 })
	resp, err := r.admin.Explain(t.Context(), &api.ExplainRequest{Id: id})
	if err != nil {
		t.Fatal(err)
	}
	if d := resp.GetDecision(); d.GetMessage() != "because" || d.GetNode() != knows.spiffeID() {
		t.Errorf("%v", d)
	}
	_, err = r.admin.Explain(t.Context(), &api.ExplainRequest{Id: strings.Repeat("f", 32)})
	wantCode(t, err, codes.NotFound, "2 connected agents")
}

// A host that was broken into is asked for every decision, and may answer first
// and as often as it likes.
func TestADecisionThatTwoAgentsClaimIsNobodys(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	const id = "0123456789abcdef0123456789abcdef"
	honest, liar := r.join("front"), r.join("back")
	for _, h := range []*host{honest, liar} {
		report, session := h.session()
		report(&api.Report{})
		go func() {
			for {
				m, err := session.Recv()
				if err != nil {
					return
				}
				answers := []*api.ExplainAnswer{{Id: id, Decision: &api.Decision{Id: id, Message: h.spiffeID()}}}
				if h == honest { // it looks before it answers
					time.Sleep(100 * time.Millisecond)
				} else {
					answers = append(answers, &api.ExplainAnswer{Id: id}, &api.ExplainAnswer{Id: id}, answers[0])
				}
				for _, a := range answers {
					if m.GetExplain() != id {
						break
					}
					if session.Send(&api.SessionUp{Message: &api.SessionUp_Explain{Explain: a}}) != nil {
						return
					}
				}
			}
		}()
	}
	eventually(t, "both are connected", func() bool { return len(connected(t, r)) == 2 })
	_, err := r.admin.Explain(t.Context(), &api.ExplainRequest{Id: id})
	wantCode(t, err, codes.FailedPrecondition, honest.spiffeID(), liar.spiffeID())
}

func connected(t *testing.T, r *rig) []string {
	t.Helper()
	resp, err := r.admin.Agents(t.Context(), &api.AgentsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, a := range resp.GetAgents() {
		if a.GetConnected() && a.GetReport() != nil {
			list = append(list, a.GetId())
		}
	}
	return list
}

func TestTheNewestSessionOfAnAgentReplacesTheOlder(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	h := r.join("front")
	report, old := h.session()
	report(&api.Report{Version: "1"})
	eventually(t, "the first session", func() bool { return slices.Equal(connected(t, r), []string{h.id}) })
	report, _ = h.session()
	var err error
	for err == nil { // what it was told before comes first
		_, err = old.Recv()
	}
	wantCode(t, err, codes.Unavailable, "newer session")
	report(&api.Report{Version: "2"})
	eventually(t, "the second report", func() bool {
		resp, err := r.admin.Agents(t.Context(), &api.AgentsRequest{})
		return err == nil && resp.GetAgents()[0].GetReport().GetVersion() == "2"
	})
}

func TestCertsAreWhatAgentsServeAndAllIsWhatTheLogHas(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	h := r.join("front")
	res, err := h.issue("job", "job")
	if err != nil {
		t.Fatal(err)
	}
	report, _ := h.session()
	first := serialOf(t, res[0].GetChain())
	report(&api.Report{Svids: []*api.SVIDStatus{{
		SpiffeId: "spiffe://test.example/batch/job", Serial: first, Consumer: api.SVIDStatus_WORKLOAD.Enum(),
		NotAfter: timestamppb.New(time.Now().Add(time.Hour)), NextRenewal: timestamppb.New(time.Now().Add(time.Minute)),
	}}})
	eventually(t, "the report", func() bool { return len(r.certs(false)) == 1 })
	c := r.certs(false)[0]
	if c.GetState() != api.Cert_SERVING || c.GetSerial() != first || c.GetNode() != h.spiffeID() {
		t.Errorf("%v", c)
	}
	all := r.certs(true)
	states := map[api.Cert_State]int{}
	serials := map[string]bool{}
	for _, c := range all {
		states[c.GetState()]++
		serials[c.GetSerial()] = true
	}
	// One of the server, one of the agent, two jobs; of those one is served.
	if states[api.Cert_SERVING] != 1 || states[api.Cert_ISSUED] != 3 || !serials[serialOf(t, res[1].GetChain())] {
		t.Errorf("states %v of %d", states, len(all))
	}
}

func (r *rig) certs(all bool) []*api.Cert {
	r.t.Helper()
	s, err := r.admin.Certs(r.t.Context(), &api.CertsRequest{All: all})
	if err != nil {
		r.t.Fatal(err)
	}
	var list []*api.Cert
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			r.t.Fatal(err)
		}
		list = append(list, m.GetCerts()...)
	}
}

func TestCertsCanBeWatched(t *testing.T) {
	r := newRig(t)
	r.apply(registry)
	s, err := r.admin.Certs(t.Context(), &api.CertsRequest{Watch: true})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := s.Recv(); err != nil || len(m.GetCerts()) != 0 {
		t.Fatalf("%v, %v", m, err)
	}
	h := r.join("front")
	report, _ := h.session()
	for _, serial := range []string{"aa", "bb"} {
		report(&api.Report{Svids: []*api.SVIDStatus{{SpiffeId: "spiffe://test.example/x", Serial: serial}}})
		if m, err := s.Recv(); err != nil || len(m.GetCerts()) != 1 || m.GetCerts()[0].GetSerial() != serial {
			t.Fatalf("%v, %v", m, err)
		}
	}
}

func TestCheckNamesWhatIsWrongAndTheCommandThatFixesIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.apply(registry)
	awaitFinding(t, r, "SIG013", "no agent has joined")
	h := r.join("front")
	awaitFinding(t, r, "SIG001", "is not connected")
	report, _ := h.session()
	past := timestamppb.New(time.Now().Add(-time.Hour))
	report(&api.Report{
		PeerMode: api.Report_LEGACY.Enum(), Findings: []string{"AGT001: authz runs as the same uid\x1b[31m"},
		Svids: []*api.SVIDStatus{
			{SpiffeId: "spiffe://test.example/a", NotAfter: past, NextRenewal: past},
			{SpiffeId: "spiffe://test.example/b", NotAfter: timestamppb.New(time.Now().Add(time.Minute)), NextRenewal: past},
		},
		Proxies: []*api.ProxyStatus{{Name: "web", State: api.ProxyStatus_BACKOFF.Enum(), Restarts: 4, Rejected: []*api.ResourceStatus{
			{TypeUrl: "type.googleapis.com/envoy.config.listener.v3.Listener", Name: "l", Version: "v", Message: "no such\nthing"},
		}}},
	})
	awaitFinding(t, r, "SIG002", "expired at")
	awaitFinding(t, r, "SIG003", "was due at")
	if f := awaitFinding(t, r, "SIG004", "no such\ufffdthing"); !strings.Contains(f.GetCause(), "Listener l") {
		t.Errorf("%v", f)
	}
	awaitFinding(t, r, "SIG009", "SO_PEERPIDFD")
	if f := awaitFinding(t, r, "SIG010", "same uid"); strings.Contains(f.GetCause(), "\x1b") {
		t.Errorf("control characters reach the terminal: %q", f.GetCause())
	}
	awaitFinding(t, r, "SIG016", "4 times")
	r.apply("apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: g}\nspec: {}\n" + shop +
		"---\napiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: web2}\nspec: {group: front, mesh: shop, virtualNode: orders, selectors: [\"unix:uid:7\"]}\n" +
		"---\napiVersion: signet.example/v1alpha1\nkind: Binding\nmetadata: {name: web3}\nspec: {group: front, mesh: shop, virtualNode: web, selectors: [\"unix:uid:7\", \"unix:gid:7\"]}\n")
	awaitFinding(t, r, "SIG012", "neither identity")
}

func TestMetricsAndReadiness(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	h := r.join("front")
	report, _ := h.session()
	report(&api.Report{})
	eventually(t, "the session", func() bool { return len(connected(t, r)) == 1 })
	r.get("/healthz")
	r.get("/readyz")
	body := r.get("/metrics")
	for _, want := range []string{
		`signet_server_agents{state="connected"} 1`, `signet_server_svids_issued_total{outcome="ok",profile="agent"} 1`,
		"signet_server_issuing_ca_not_after_timestamp_seconds", "signet_server_policy_revision_info{", "signet_server_xds_rejected 0",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

// get asks the HTTP face.
func (r *rig) get(path string) string {
	r.t.Helper()
	client := &http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://" + r.addr.Metrics + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		r.t.Fatalf("%s: %s, %v", path, resp.Status, err)
	}
	return string(b)
}

func TestARangeThatANodeGroupIsGivenHoldsForReportsThatCameBefore(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	h := r.join("back")
	report, _ := h.session()
	served := func(n string) bool {
		return strings.Contains(r.get("/metrics"), `signet_server_endpoints{state="served"} `+n)
	}
	report(&api.Report{Proxies: []*api.ProxyStatus{{
		Name: "orders", VirtualNode: &api.VirtualNodeRef{Mesh: "shop", Name: "orders"}, Address: "fd00:5::7", Ports: []uint32{8080}, Healthy: true, State: api.ProxyStatus_READY.Enum(),
	}}})
	if f := awaitFinding(t, r, "SIG008", `"fd00:5::7" is not the agent's own`); !strings.Contains(f.GetFix(), "addresses of NodeGroup back") || !served("0") {
		t.Errorf("%v", f)
	}
	group := func(spec string) {
		r.apply("apiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: back}\nspec: " + spec + "\n")
	}
	if group("{addresses: [\"fd00:5::/32\"]}"); !served("1") {
		t.Error("nobody is sent there when the range is stored")
	}
	if group("{}"); !served("0") {
		t.Error("callers are sent there without the range")
	}
}

func TestNobodyIsSentToTheProxiesOfAnAgentThatIsBanned(t *testing.T) {
	r := newRig(t)
	r.apply(registry + shop)
	h := r.join("back")
	report, _ := h.session()
	report(&api.Report{Proxies: []*api.ProxyStatus{{
		Name: "orders", VirtualNode: &api.VirtualNodeRef{Mesh: "shop", Name: "orders"}, Address: "127.0.0.9", Ports: []uint32{8080}, Healthy: true, State: api.ProxyStatus_READY.Enum(),
	}}})
	served := func(n string) bool {
		return strings.Contains(r.get("/metrics"), `signet_server_endpoints{state="served"} `+n)
	}
	eventually(t, "its endpoint", func() bool { return served("1") })
	r.ban(h.id)
	if !served("0") { // the next sweep would come within a second
		t.Error("they are still sent to it when the ban is answered")
	}
}
