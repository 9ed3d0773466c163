package agent

import (
	"os"
	"strings"
	"testing"

	"signet.example/agent/envoy"
	"signet.example/api"
	"signet.example/internal/child"
	"signet.example/proxy"
	"signet.example/test/parts"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		parts.Missing(t, "root: the rules for an agent that is root")
	}
}

func TestARootAgentRunsEnvoyAsRootOnlyIfThatIsNamed(t *testing.T) {
	needRoot(t)
	c := Config{Proxies: []Proxy{{Name: "web"}, {Name: "orders"}}}
	if _, err := c.ProxyUsers(); err == nil || !strings.Contains(err.Error(), "proxies[0].user: is missing") || !strings.Contains(err.Error(), "proxies[1].user: is missing") {
		t.Errorf("no user: %v", err)
	}
	for name, set := range map[string]func(*Config){
		"for all": func(c *Config) { c.ProxyUser = "root" },
		"each":    func(c *Config) { c.Proxies = []Proxy{{Name: "web", User: "0"}, {Name: "orders", User: "0"}} },
		"another": func(c *Config) { c.ProxyUser = "64991" },
		"different": func(c *Config) {
			c.ProxyUser, c.Proxies = "64991", []Proxy{{Name: "web"}, {Name: "orders", User: "64992"}}
		},
	} {
		c := c
		set(&c)
		if _, err := c.ProxyUsers(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheUsersOfChildrenAreKeptApart(t *testing.T) {
	needRoot(t)
	uid := uint32(64991)
	for want, c := range map[string]Config{
		"proxies[0].user: uid 64991 is the authz process's":  {Authz: AuthzOptions{UID: &uid}, Proxies: []Proxy{{Name: "web", User: "64991"}}},
		`proxies[0].user: user "nobody-knows-me" is not`:     {Proxies: []Proxy{{Name: "web", User: "nobody-knows-me"}}},
		`authz.user: user "nobody-knows-me" is not`:          {Authz: AuthzOptions{User: "nobody-knows-me"}},
		"proxies[0].admin: /run/signet/a.sock is not in":     {Proxies: []Proxy{{Name: "web", User: "64991", Admin: "/run/signet/a.sock"}}},
		"proxies[1].admin: /run/signet/x/b.sock is not in a": {Proxies: []Proxy{{Name: "web", User: "64991", Admin: "/run/signet/x/a.sock"}, {Name: "orders", User: "64992", Admin: "/run/signet/x/b.sock"}}},
	} {
		if _, err := c.ProxyUsers(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
}

// Root's files are root's to write, also for a
// process without capabilities.
func TestAnAgentThatIsRootRunsAuthzAsNobodyElseUnlessRootIsNamed(t *testing.T) {
	needRoot(t)
	if _, err := (Config{}).ProxyUsers(); err != nil {
		t.Error(err)
	}
	if !(AuthzOptions{}).spare() || (AuthzOptions{as: &child.User{}}).spare() {
		t.Error("a user is found where none is named, and only there")
	}
	c := Config{ProxyUser: "60600", Proxies: []Proxy{{Name: "web"}}}
	if _, err := c.ProxyUsers(); err == nil || !strings.Contains(err.Error(), "proxies[0].user: uid 60600 is among those") {
		t.Errorf("a proxy of a user that authz may have: %v", err)
	}
	c.Authz.User = "64991"
	if _, err := c.ProxyUsers(); err != nil {
		t.Errorf("with a name for authz: %v", err)
	}
}

// statusOf are the proxies of a configuration, as if they ran.
func statusOf(t *testing.T, c Config) []envoy.Status {
	t.Helper()
	c, err := c.withDefaults().withUsers()
	if err != nil {
		t.Fatal(err)
	}
	var all []envoy.Status
	for _, p := range proxiesOf(c.Proxies, proxy.Shape{}) {
		all = append(all, envoy.Status{Proxy: p})
	}
	return all
}

func TestProxiesOfTheAgentsOwnUserAreAFinding(t *testing.T) {
	needRoot(t)
	all := statusOf(t, Config{ProxyUser: "root", Proxies: []Proxy{{Name: "web"}, {Name: "orders", User: "64991"}}})
	const want = "as the agent's own user, uid 0, run the Envoys of web"
	if got := sameUser(all); len(got) != 1 || got[0].GetKind() != api.AgentFinding_PROXIES_SAME_USER || got[0].GetText() != want {
		t.Errorf("%v", got)
	}
	if got := sameUser(all[1:]); got != nil {
		t.Errorf("of another user: %q", got)
	}
}
