package admin_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"signet.example/api"
	"signet.example/proxy"
	"signet.example/server/fleet"
	"signet.example/xds/effect"
)

// enforced is a change after which web's policy denies.
var enforced = []*api.Effect_Node{{Node: webRef, Authorization: "enforce"}}

// by is an agent's status, with the policy revision that it has loaded.
func by(revision string, st fleet.Status) fleet.Status {
	st.Report.PolicyRevision = revision
	return st
}

func TestWhatAPolicyDeniesIsAtAProxyWhenItsAgentHasLoadedThatAndItsRoutesAskForIt(t *testing.T) {
	const ready = api.ProxyStatus_READY
	has, hasNot := reached{has: true}, reached{}
	here := func(loaded string) fleet.Status {
		return by(loaded, at("a", api.AgentInfo_CONNECTED, proxyIn("p", ready)))
	}
	for name, c := range map[string]struct {
		agent fleet.Status
		said  reached
		stamp string
		want  string
	}{
		"it decides so":             {here("new"), has, "new", "p applied; settled"},
		"its agent has another one": {here("old"), has, "new", "p waiting (its agent has not loaded the policy that has it); "},
		"its agent has none":        {here(""), has, "new", "p waiting (its agent has not loaded the policy that has it); "},
		"routes ask for another":    {here("new"), has, "old", "p waiting (its routes do not ask for the policy that has it, which not all agents have loaded); "},
		"it has not the routes":     {here("new"), hasNot, "new", "p waiting (it has not taken the routes that ask for the policy that has it); "},
		"its agent is away":         {by("new", at("a", api.AgentInfo_AWAY, proxyIn("p", ready))), has, "new", "p waiting (its agent is away); "},
		"it does not run":           {by("new", at("a", api.AgentInfo_CONNECTED, proxyIn("p", api.ProxyStatus_STARTING))), has, "new", "p waiting (it is starting); "},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDesk(t)
				d.agents, d.reached, d.newest, d.stamp = []fleet.Status{c.agent}, map[string]reached{"a": c.said}, "new", c.stamp
				if got := progressOf(t, d, enforced); !slices.Equal(got, []string{c.want}) {
					t.Errorf("%q, want %q", got, c.want)
				}
				d.wants("renewed") // what is in force may be of what was stored before
			})
		})
	}
}

func TestAPolicyThatCameAfterTheOneThatIsWaitedForHasItToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.newest, d.stamp, d.reached = "new", "old", map[string]reached{"a": {has: true}}
		d.agents = []fleet.Status{by("newer", at("a", api.AgentInfo_CONNECTED, proxyIn("p", api.ProxyStatus_READY)))}
		go func() {
			time.Sleep(5 * time.Second)
			d.reaching.Lock()
			defer d.reaching.Unlock()
			d.newest, d.stamp = "newer", "newer"
		}()
		if got := progressOf(t, d, enforced); got[len(got)-1] != "p applied; settled" {
			t.Errorf("%q", got)
		}
	})
}

func TestAPolicyThatCannotBeMadeIsNoEndOfAWait(t *testing.T) {
	d := newDesk(t)
	d.renewed = errors.New("disk full")
	err := d.admin.Progress(&api.ProgressRequest{Nodes: enforced}, &progressStream{ctx: d.ctx()})
	if err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("%v", err)
	}
}

// A job that is run again where an agent has not loaded what it asks for is told so, as of what was
// refused.
func TestWhatIsAppliedAgainConcernsThoseThatDoNotDecideByItYet(t *testing.T) {
	const head = "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: "
	const nodes = head + "Mesh\nmetadata: {name: shop}\n" + head + "VirtualNode\nmetadata: {name: web}\nspec: {listeners: [{portMapping: {port: 80, protocol: http}}]}\n" +
		head + "VirtualNode\nmetadata: {name: orders}\nspec: {listeners: [{portMapping: {port: 80, protocol: http}}]}\n"
	options := func(kind, name, spec string) string {
		return "---\napiVersion: signet.example/v1alpha1\nkind: " + kind + "\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n"
	}
	mesh, web := options("MeshOptions", "shop", "authorization: enforce"), options("VirtualNodeOptions", "web", "authorization: enforce")
	for name, c := range map[string]struct {
		stored, again string
		loaded        string
		runs          api.ProxyStatus_State
		want          string
	}{
		"a mesh":                    {mesh, mesh, "old", api.ProxyStatus_READY, "orders web"},
		"a node":                    {web, web, "old", api.ProxyStatus_READY, "web"},
		"all decide by it":          {mesh, mesh, "p", api.ProxyStatus_READY, ""},
		"proxies that do not run":   {mesh, mesh, "old", api.ProxyStatus_WAITING, ""},
		"something else is applied": {mesh, nodes, "old", api.ProxyStatus_READY, ""},
		"options about other things": {
			options("MeshOptions", "shop", "envoyHeaders: suppress"), options("MeshOptions", "shop", "envoyHeaders: suppress"), "old", api.ProxyStatus_READY, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			if _, err := d.admin.Apply(d.ctx(), applyOf(nodes+c.stored)); err != nil {
				t.Fatal(err)
			}
			d.reached = map[string]reached{}
			for _, node := range []string{"web", "orders"} {
				p := proxyIn(node, c.runs)
				p.VirtualNode = &api.VirtualNodeRef{Mesh: "shop", Name: node}
				d.agents = append(d.agents, by(c.loaded, at("a-"+node, api.AgentInfo_CONNECTED, p)))
				d.reached["a-"+node] = reached{has: true}
			}
			req := applyOf(c.again)
			req.Concerned = true
			resp, err := d.admin.Apply(d.ctx(), req)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, n := range resp.GetEffect().GetNodes() {
				if n.GetAuthorization() != "enforce" {
					t.Errorf("%s: %q", n.GetNode().GetName(), n.GetAuthorization())
				}
				got = append(got, n.GetNode().GetName())
			}
			slices.Sort(got)
			if strings.Join(got, " ") != c.want {
				t.Errorf("it concerns %q, want %q", got, c.want)
			}
		})
	}
}

// What a change makes another configuration, too, keeps what it has of that.
func TestAnAuthorizationComesToTheOtherChangesOfItsNode(t *testing.T) {
	d := newDesk(t)
	d.effects = []effect.Effect{{Of: proxy.Node("shop", "web"), Authorization: "observe"}}
	if _, err := d.admin.Apply(d.ctx(), applyOf(groupNamed("front"))); err != nil {
		t.Fatal(err)
	}
	req := applyOf(groupNamed("back"))
	req.Concerned = true
	resp, err := d.admin.Apply(d.ctx(), req)
	if err != nil || len(resp.GetEffect().GetNodes()) != 1 || resp.GetEffect().GetNodes()[0].GetAuthorization() != "observe" {
		t.Errorf("%v %v", resp.GetEffect(), err)
	}
}
