package admin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"signet.example/api"
	"signet.example/proxy"
	"signet.example/server/admin"
	"signet.example/server/fault"
	"signet.example/server/fleet"
	"signet.example/store"
	"signet.example/xds/effect"
)

const (
	group = "---\napiVersion: signet.example/v1alpha1\nkind: NodeGroup\nmetadata: {name: NAME}\nspec: {}\n"
	shop  = "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\n"
	node  = "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: web}\nspec: {listeners: [{portMapping: {port: 80, protocol: http}}], logging: {accessLog: {file: {path: LOG}}}}\n"
)

func groupNamed(name string) string { return strings.ReplaceAll(group, "NAME", name) }
func nodeTo(log string) string      { return strings.ReplaceAll(node, "LOG", log) }

func applyOf(manifests string) *api.ApplyRequest {
	return &api.ApplyRequest{Sources: []*api.Source{{File: "a.yaml", Content: []byte(manifests)}}}
}

// call makes a call as the interceptor does.
func (d *desk) call(method string, req any, handler grpc.UnaryHandler) error {
	_, err := admin.Unary(d.admin)(d.ctx(), req, &grpc.UnaryServerInfo{FullMethod: "/signet.v1alpha1.Admin/" + method}, handler)
	return err
}

func TestAnAuditRowNamesWhatIsAskedAndNeverWhatItHolds(t *testing.T) {
	const secret = "a private thing"
	for _, c := range []struct {
		method string
		req    any
		row    string
	}{
		{"Apply", &api.ApplyRequest{DryRun: true, Sources: []*api.Source{{File: "a\x1b.yaml", Content: []byte(secret)}, {File: "b.yaml"}}}, `dry_run=true skip_foreign=false effect=false prune=false take_over=false concerned=false files=["a�.yaml" "b.yaml"] owner=""`},
		{"CreateToken", &api.CreateTokenRequest{Group: "front", Ttl: durationpb.New(time.Minute)}, `group="front" ttl=1m0s`},
		{"CreateToken", &api.CreateTokenRequest{Group: "front"}, `group="front" ttl=0s`},
		{"Delete", &api.DeleteRequest{Kind: "entry", Name: "job"}, `dry_run=false concerned=false kind="entry" mesh="" name="job"`},
		{"Get", &api.GetRequest{Kind: "all"}, `kind="all" mesh="" name=""`},
		{"BanAgent", &api.BanAgentRequest{Agent: "web-1", Reason: "lost"}, `dry_run=false agent="web-1" reason="lost"`},
		{"Explain", &api.ExplainRequest{Id: "1"}, `id="1"`},
		{"SyncPolicy", &api.SyncPolicyRequest{}, `source=""`},
		{"Check", &api.CheckRequest{}, ``},
		{"Agents", &api.AgentsRequest{}, ``},
	} {
		d := newDesk(t)
		if err := d.call(c.method, c.req, func(context.Context, any) (any, error) { return nil, nil }); err != nil {
			t.Errorf("%s: %v", c.method, err)
		}
		if strings.Contains(fmt.Sprint(d.done), secret) {
			t.Errorf("%s: the row has what the request holds", c.method)
		}
		d.wants("uid 7 pid 8: " + c.method + " " + c.row)
	}
}

func TestNothingIsDoneWithoutARowOfTheAuditTrail(t *testing.T) {
	d := newDesk(t)
	d.silent = errors.New("the disk is full")
	err := d.call("BanAgent", &api.BanAgentRequest{Agent: "x"}, func(context.Context, any) (any, error) {
		t.Error("it was done")
		return nil, nil
	})
	if status.Code(err) != codes.Unavailable || testutil.ToFloat64(d.unsaid) != 1 {
		t.Errorf("%v, %v rows are missing", err, testutil.ToFloat64(d.unsaid))
	}
}

func TestACallThatFailsHasASecondRowAndIsCounted(t *testing.T) {
	d := newDesk(t)
	err := d.call("Explain", &api.ExplainRequest{Id: "1"}, func(context.Context, any) (any, error) { return nil, fault.New(fault.NotFound, "none has it") })
	if status.Code(err) != codes.NotFound {
		t.Error(err)
	}
	d.wants(`uid 7 pid 8: Explain id="1"`, `row Explain id="1" failed: NotFound`)
	if n := testutil.ToFloat64(d.calls.WithLabelValues("Explain", "NotFound")); n != 1 {
		t.Errorf("counted %v times", n)
	}
}

func TestAnApplyIsWrittenOnceAndOnlyIfAllOfItIsGood(t *testing.T) {
	d := newDesk(t)
	resp, err := d.admin.Apply(d.ctx(), applyOf(groupNamed("front")+shop))
	if err != nil || resp.GetRevision() != 1 || len(resp.GetChanges()) != 2 {
		t.Fatal(resp, err)
	}
	d.wants("begin", `write uid 7 pid 8: dry_run=false skip_foreign=false effect=false prune=false take_over=false concerned=false files=["a.yaml"] owner=""`, "end")
	resp, err = d.admin.Apply(d.ctx(), applyOf(groupNamed("front")))
	if err != nil || resp.GetChanges()[0].GetAction() != api.Change_UNCHANGED || resp.GetRevision() != 1 {
		t.Error(resp, err)
	}
	d.wants("begin", `uid 7 pid 8: Apply dry_run=false skip_foreign=false effect=false prune=false take_over=false concerned=false files=["a.yaml"] owner=""`, "end") // a row, and no change
	dry := applyOf(groupNamed("back"))
	dry.DryRun = true
	if resp, err = d.admin.Apply(d.ctx(), dry); err != nil || resp.GetChanges()[0].GetAction() != api.Change_CREATED {
		t.Error(resp, err)
	}
	d.wants("begin", "end")
	d.cannot["web"] = errors.New("a port is too many")
	for name, c := range map[string]struct{ manifests, says string }{
		"one of two is not understood":  {groupNamed("back") + strings.Replace(groupNamed("other"), "spec: {}", "spec: {sel: 1}", 1), "a.yaml"},
		"a reference leads nowhere":     {"---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: s}\nspec: {provider: {virtualNode: {virtualNodeRef: {name: none}}}}\n", "none"},
		"it cannot be translated":       {nodeTo("/dev/stdout"), "cannot be translated: a port is too many"},
		"a log where no host takes one": {nodeTo("/etc/passwd"), "connected agents have /var/log/proxies"},
		"it is somebody else's":         {"apiVersion: v1\nkind: Service\nmetadata: {name: s}\n", "--skip-foreign"},
	} {
		_, err := d.admin.Apply(d.ctx(), applyOf(c.manifests))
		if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		d.wants("begin", "end")
	}
	delete(d.cannot, "web")
	if _, err := d.admin.Apply(d.ctx(), applyOf(nodeTo("/var/log/proxies/web"))); err != nil {
		t.Error(err)
	}
	if got, err := d.admin.Get(d.ctx(), &api.GetRequest{Kind: "vn"}); err != nil || len(got.GetObjects()) != 1 || got.GetObjects()[0].GetMesh() != "shop" {
		t.Error(got, err)
	}
}

func TestWhatOthersNeedIsNotDeleted(t *testing.T) {
	d := newDesk(t)
	if _, err := d.admin.Apply(d.ctx(), applyOf(groupNamed("front")+groupNamed("back")+shop+nodeTo("/dev/stdout"))); err != nil {
		t.Fatal(err)
	}
	d.agents = []fleet.Status{{Agent: store.Agent{ID: "web-1", Group: "front"}, State: api.AgentInfo_CONNECTED, Since: noon}}
	d.done = nil
	for _, c := range []struct {
		kind, name string
		why        error
		says       string
	}{
		{"mesh", "shop", fault.Referenced, "VirtualNode shop/web is in it"},
		{"nodegroup", "front", fault.Referenced, "agent web-1 of it is connected"},
		{"nodegroup", "none", fault.NotFound, "there are back, front"},
		{"pod", "x", fault.Invalid, "is not a kind; there are"},
		{"VirtualNods", "x", fault.Invalid, "Agent; did you mean virtualnode?"},
	} {
		_, err := d.admin.Delete(d.ctx(), &api.DeleteRequest{Kind: c.kind, Name: c.name})
		if !errors.Is(err, c.why) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s %s: %v", c.kind, c.name, err)
		}
		d.wants("begin", "end")
	}
	if _, err := d.admin.Get(d.ctx(), &api.GetRequest{Kind: "virtualgateway", Mesh: "shop", Name: "x"}); err == nil || !strings.HasSuffix(err.Error(), "; there is none") {
		t.Error(err)
	}
	if _, err := d.admin.Delete(d.ctx(), &api.DeleteRequest{Kind: "virtualnode", Mesh: "other", Name: "web"}); err == nil || !strings.HasSuffix(err.Error(), "; there is none") { // of that mesh
		t.Error(err)
	}
	d.wants("begin", "end")
	if _, err := d.admin.Delete(d.ctx(), &api.DeleteRequest{Kind: "ng", Name: "back"}); err != nil {
		t.Error(err)
	}
	d.wants("begin", `write uid 7 pid 8: dry_run=false concerned=false kind="ng" mesh="" name="back"`, "end")
}

// Manifests only name what is deleted: in one change, or nothing.
func TestWhatManifestsNameIsDeletedInOneChangeOrNotAtAll(t *testing.T) {
	d := newDesk(t)
	all := groupNamed("front") + shop + nodeTo("/dev/stdout")
	if _, err := d.admin.Apply(d.ctx(), applyOf(all)); err != nil {
		t.Fatal(err)
	}
	d.done = nil
	foreign := "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\n"
	of := func(text string) *api.DeleteRequest {
		return &api.DeleteRequest{Sources: []*api.Source{{File: "f.yaml", Content: []byte(text)}}}
	}
	for text, want := range map[string]string{
		groupNamed("front") + shop:             "VirtualNode shop/web is in it",
		groupNamed("none"):                     "none of the 1 objects is stored",
		groupNamed("front") + "---\nkind: [\n": "f.yaml:",
	} {
		if _, err := d.admin.Delete(d.ctx(), of(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
		d.wants("begin", "end")
	}
	// What could not be applied, such as a log that no host takes, is deleted all the same.
	resp, err := d.admin.Delete(d.ctx(), of(groupNamed("front")+groupNamed("none")+shop+strings.Replace(nodeTo("/var/log/none"), "spec: {", "spec: {backendGroups: [{name: \"*\"}], ", 1)+foreign))
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.GetChanges()) != 3 || resp.GetSkippedForeign() != 1 || len(resp.GetWarnings()) != 1 || !strings.Contains(resp.GetWarnings()[0], "NodeGroup none is not stored") {
		t.Error(resp.GetChanges(), resp.GetWarnings())
	}
	d.wants("begin", `write uid 7 pid 8: dry_run=false concerned=false kind="" mesh="" name="" files=["f.yaml"]`, "end")
}

func TestABanIsInForceBeforeAnythingIsAskedOfTheSigner(t *testing.T) {
	d := newDesk(t)
	d.agents = []fleet.Status{{Agent: store.Agent{ID: "web-1"}}, {Agent: store.Agent{ID: "out", Banned: true, BanReason: "lost"}}}
	d.unread = errors.New("the signer does not answer")
	resp, err := d.admin.BanAgent(d.ctx(), &api.BanAgentRequest{Agent: "web-1", Reason: "lost\x1b"})
	if err != nil || !resp.GetChanged() || resp.GetCertificates() != 2 || resp.GetUnread() != "the signer does not answer" {
		t.Error(resp, err)
	}
	d.wants("ban web-1 lost�", "follow", "caught up", "held")
	for _, c := range []struct {
		req  *api.BanAgentRequest
		done []string
	}{
		{&api.BanAgentRequest{Agent: "web-1", DryRun: true}, nil},
		{&api.BanAgentRequest{Agent: "out"}, nil},
		{&api.BanAgentRequest{Agent: "out", Reason: "lost"}, nil},
		{&api.BanAgentRequest{Agent: "out", Reason: "stolen"}, []string{"ban out stolen", "follow"}},
	} {
		if _, err := d.admin.BanAgent(d.ctx(), c.req); err != nil {
			t.Error(err)
		}
		d.wants(append(c.done, "caught up", "held")...)
	}
	if _, err := d.admin.BanAgent(d.ctx(), &api.BanAgentRequest{Agent: "x"}); !errors.Is(err, fault.NotFound) {
		t.Error(err)
	}
	d.wants()
}

func TestAnAgentIsForgottenOnlyWhenNothingOfItIsGood(t *testing.T) {
	d := newDesk(t)
	for _, state := range []api.AgentInfo_State{api.AgentInfo_CONNECTED, api.AgentInfo_JOINED, api.AgentInfo_AWAY, api.AgentInfo_BANNED, api.AgentInfo_GONE} {
		d.agents = append(d.agents, fleet.Status{Agent: store.Agent{ID: api.Word(state)}, State: state, End: noon})
	}
	for _, st := range d.agents[:4] {
		if _, err := d.admin.Delete(d.ctx(), &api.DeleteRequest{Kind: "agents", Name: st.Agent.ID}); !errors.Is(err, fault.Referenced) {
			t.Errorf("%s: %v", st.Agent.ID, err)
		}
		d.wants("caught up")
	}
	if _, err := d.admin.Delete(d.ctx(), &api.DeleteRequest{Kind: "Agent", Name: "gone", DryRun: true}); err != nil {
		t.Error(err)
	}
	d.wants("caught up")
	if _, err := d.admin.Delete(d.ctx(), &api.DeleteRequest{Kind: "Agent", Name: "gone"}); err != nil {
		t.Error(err)
	}
	d.wants("caught up", "delete gone", "follow", "forget gone")
	d.unread = errors.New("the signer does not answer") // a certificate that is not seen may be good
	if _, err := d.admin.Delete(d.ctx(), &api.DeleteRequest{Kind: "Agent", Name: "gone"}); !errors.Is(err, d.unread) {
		t.Error(err)
	}
	d.wants("caught up")
}

func TestATokenIsOfAGroupThatIsThereAndEnds(t *testing.T) {
	d := newDesk(t)
	if _, err := d.admin.Apply(d.ctx(), applyOf(groupNamed("front"))); err != nil {
		t.Fatal(err)
	}
	d.done = nil
	resp, err := d.admin.CreateToken(d.ctx(), &api.CreateTokenRequest{Group: "front"})
	if err != nil || !strings.HasPrefix(resp.GetToken(), "sgt1.") {
		t.Error(err)
	}
	d.wants("token of front until 2026-11-21T12:10:00Z")
	for why, req := range map[error]*api.CreateTokenRequest{
		fault.NotFound: {Group: "back"}, fault.Invalid: {Group: "front", Ttl: durationpb.New(25 * time.Hour)},
	} {
		if _, err := d.admin.CreateToken(d.ctx(), req); !errors.Is(err, why) {
			t.Errorf("%v: %v", req, err)
		}
	}
	d.wants()
}

// certsStream takes what a list sends.
type certsStream struct {
	grpc.ServerStreamingServer[api.CertsResponse]

	ctx  context.Context //nolint:containedctx // grpc.ServerStream's own contract
	sent []string
	n    int
}

func (s *certsStream) Context() context.Context { return s.ctx }

func (s *certsStream) Send(m *api.CertsResponse) error {
	if s.n++; s.n > 10 {
		return io.ErrShortWrite
	}
	for _, c := range m.GetCerts() {
		s.sent = append(s.sent, c.GetSerial()+" "+c.GetStateWord())
	}
	return nil
}

func TestCertificatesAreThoseOfConnectedAgentsAndThenTheLogsOthers(t *testing.T) {
	d := newDesk(t)
	report := func(serial, id string) *api.Report {
		return &api.Report{Svids: []*api.SVIDStatus{{Serial: serial, SpiffeId: id, NotAfter: timestamppb.New(noon)}}}
	}
	d.agents = []fleet.Status{
		{Agent: store.Agent{ID: "b"}, SPIFFE: "b", Since: noon, Report: report("02", "spiffe://test.example/z")},
		{Agent: store.Agent{ID: "a"}, SPIFFE: "a", Since: noon, Report: report("01", "spiffe://test.example/a")},
		{Agent: store.Agent{ID: "left"}, SPIFFE: "left", Report: report("03", "spiffe://test.example/l")},
	}
	d.log = []*api.Cert{{Serial: "01", StateWord: "issued"}, {Serial: "00", StateWord: "expired"}}
	for all, want := range map[bool][]string{false: {"01 serving", "02 serving"}, true: {"01 serving", "02 serving", "00 expired"}} {
		s := &certsStream{ctx: d.ctx()}
		if err := d.admin.Certs(&api.CertsRequest{All: all}, s); err != nil || !slices.Equal(s.sent, want) {
			t.Errorf("all %t: %q, want %q: %v", all, s.sent, want, err)
		}
	}
	d.agents = nil
	if s := (&certsStream{ctx: d.ctx()}); d.admin.Certs(&api.CertsRequest{}, s) != nil || s.n != 1 {
		t.Error("an empty list has no answer")
	}
}

func TestAWatchOfAllCertificatesReadsTheLogAgainOnlyWhenItHasGrown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.log = []*api.Cert{{Serial: "01", StateWord: "expired"}}
		looks := 0
		d.look = func() {
			if looks++; looks == 30 {
				d.log = append(d.log, &api.Cert{Serial: "02", StateWord: "reserved"})
			}
		}
		ctx, cancel := context.WithCancel(d.ctx())
		s, done := &certsStream{ctx: ctx}, make(chan error, 1)
		go func() { done <- d.admin.Certs(&api.CertsRequest{All: true, Watch: true}, s) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		d.wants("log", "log")
		if want := []string{"01 expired", "02 reserved"}; !slices.Equal(s.sent, want) || looks < 59 {
			t.Errorf("%q after %d looks, want %q", s.sent, looks, want)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestTheEffectOfAChangeIsToldInADryRunAlone(t *testing.T) {
	d := newDesk(t)
	d.effects = []effect.Effect{{Of: proxy.Node("m", "a")}, {Of: proxy.Node("m", "b")}}
	req := applyOf(shop)
	req.Effect = true
	if _, err := d.admin.Apply(d.ctx(), req); !errors.Is(err, fault.Invalid) {
		t.Errorf("not a dry run: %v", err)
	}
	d.wants()
	req.DryRun = true
	resp, err := d.admin.Apply(d.ctx(), req)
	if err != nil {
		t.Fatal(err)
	}
	d.wants("begin", "end", "effects") // nobody waits for it
	if e := resp.GetEffect(); len(e.GetNodes()) != 2 {
		t.Errorf("%v", e)
	}
}

func TestAChangeThatIsWaitedForIsToldWhomItConcerns(t *testing.T) {
	d := newDesk(t)
	d.effects = []effect.Effect{{Of: proxy.Node("m", "a")}}
	for _, c := range []struct {
		change func() (*api.ApplyResponse, error)
		asked  string
	}{
		{func() (*api.ApplyResponse, error) {
			req := applyOf(shop + groupNamed("back") + groupNamed("front"))
			req.Concerned = true
			return d.admin.Apply(d.ctx(), req)
		}, `dry_run=false skip_foreign=false effect=false prune=false take_over=false concerned=true files=["a.yaml"] owner=""`},
		{func() (*api.ApplyResponse, error) {
			return d.admin.Delete(d.ctx(), &api.DeleteRequest{Kind: "ng", Name: "back", Concerned: true})
		}, `dry_run=false concerned=true kind="ng" mesh="" name="back"`},
		{func() (*api.ApplyResponse, error) {
			d.cfg.Past = pastOf{back: []store.Write{{Object: store.Object{Kind: "NodeGroup", Name: "front"}, Delete: true}}}
			return admin.New(d.cfg).Rollback(d.ctx(), &api.RollbackRequest{Revision: 3, Concerned: true})
		}, "Rollback to revision 3"},
	} {
		resp, err := c.change()
		if err != nil {
			t.Fatalf("%s: %v", c.asked, err)
		}
		d.wants("begin", "write uid 7 pid 8: "+c.asked, "end", "effects") // nobody waits for it
		if n := resp.GetEffect().GetNodes(); len(n) != 1 || n[0].GetNode().GetName() != "a" || len(resp.GetChanges()) == 0 {
			t.Errorf("%s: %v", c.asked, resp)
		}
	}
	d.agents = []fleet.Status{{Agent: store.Agent{ID: "gone"}, State: api.AgentInfo_GONE, End: noon}}
	if resp, err := d.admin.Delete(d.ctx(), &api.DeleteRequest{Kind: "agent", Name: "gone", Concerned: true}); err != nil || resp.GetEffect() == nil || len(resp.GetEffect().GetNodes()) > 0 {
		t.Errorf("a host that is gone concerns %v: %v", resp.GetEffect(), err)
	}
}

// A9-43: whoever applied again what all had refused was told that nothing changes, and 0.
func TestWhatIsAppliedAgainConcernsThoseThatGoOnRefusingIt(t *testing.T) {
	d := newDesk(t)
	req := applyOf(shop + nodeTo("/dev/stdout"))
	req.Concerned = true
	if _, err := d.admin.Apply(d.ctx(), req); err != nil {
		t.Fatal(err)
	}
	refuses := func(name string, of *api.VirtualNodeRef) *api.ProxyStatus {
		p := proxyIn(name, api.ProxyStatus_READY)
		p.VirtualNode, p.Rejected = of, []*api.ResourceStatus{{TypeUrl: "x.Cluster", Name: "c", Version: "2", Message: "no"}}
		return p
	}
	web := &api.VirtualNodeRef{Mesh: "shop", Name: "web"}
	d.agents = []fleet.Status{
		at("a", api.AgentInfo_CONNECTED, refuses("p", web), refuses("q", &api.VirtualNodeRef{Mesh: "shop", Name: "another"}), proxyIn("r", api.ProxyStatus_READY)),
		at("b", api.AgentInfo_BANNED, refuses("s", web)),
	}
	resp, err := d.admin.Apply(d.ctx(), req)
	if err != nil {
		t.Fatal(err)
	}
	n := resp.GetEffect().GetNodes()
	if len(n) != 1 || n[0].GetNode().GetName() != "web" || len(n[0].GetResources()) != 1 || n[0].GetResources()[0].GetName() != "c" || n[0].GetResources()[0].GetAction() != "refused" {
		t.Errorf("%v", resp)
	}
}
