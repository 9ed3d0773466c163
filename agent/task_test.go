package agent_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signet.example/agent"
	"signet.example/agent/local"
	"signet.example/api"
	"signet.example/attestation/ecstask"
	"signet.example/test/parts"
)

// inTask has the agents of a test be in a task's network namespace.
func inTask(t *testing.T) func(*agent.Config) {
	t.Cleanup(agent.OnAHost(false))
	return func(c *agent.Config) { c.Mode = agent.ModeTask }
}

func TestATaskIsAttestedAsAWholeAndItsFolderIsClosed(t *testing.T) {
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{entry("app", "/shop/app", "signet:unit:task"), entry("process", "/shop/process", self(t))}
	}, inTask(t))
	r.await("an SVID", func() bool {
		m, err := r.fetchOnce()
		if err != nil {
			return false
		}
		if len(m.GetSvids()) != 1 || m.GetSvids()[0].GetSpiffeId() != "spiffe://test.example/shop/app" {
			t.Fatalf("%v", m.GetSvids())
		}
		return true
	})
	r.await("a report", func() bool {
		return r.lastReport().GetPeerMode() == api.Report_TASK && len(r.lastReport().GetOwn()) > 0
	})
	if found := strings.Join(r.lastReport().GetFindings(), "\n"); !strings.Contains(found, "of one process, and a task is attested as a whole") {
		t.Errorf("findings: %s", found)
	}
	if info, err := os.Stat(r.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder of the sockets: %v, %v", info.Mode(), err)
	}
}

// onECS has this process be in a container of a task of ECS.
func onECS(t *testing.T) {
	t.Helper()
	task := parts.ECSTask{
		ARN: parts.ECSTaskARN("0123456789abcdef0123456789abcdef"), Family: "web", Revision: "7", Container: "envoy",
		Labels: map[string]string{"team": "shop"}, IPv4: []string{"192.0.2.3"},
	}
	t.Setenv(ecstask.Variable, parts.ECSMetadata(t, task))
}

func TestATaskHasTheSelectorsThatECSSaysOfIt(t *testing.T) {
	onECS(t)
	r := newRig(t, func(f *fakeServer) {
		f.entries = []*api.Entry{
			entry("app", "/shop/app", "signet:unit:task", "ecs:cluster:shop-prod", "ecs:family:web", "ecs:revision:7", "ecs:container:envoy", "ecs:label:team:shop"),
			entry("other", "/shop/other", "signet:unit:task", "ecs:family:orders"),
			entry("later", "/shop/later", "signet:unit:task", "ecs:family:web", "ecs:revision:8"),
			entry("all", "/shop/all", "ecs:family:web"), // of a proxy as well: refused
		}
	}, inTask(t))
	r.await("an SVID", func() bool {
		m, err := r.fetchOnce()
		if err != nil {
			return false
		}
		if len(m.GetSvids()) != 1 || m.GetSvids()[0].GetSpiffeId() != "spiffe://test.example/shop/app" {
			t.Fatalf("%v", m.GetSvids())
		}
		return true
	})
	r.await("a report", func() bool { return len(r.lastReport().GetOwn()) > 0 })
	if task := r.lastReport().GetTask(); task != "shop-prod/web:7" {
		t.Errorf("it reports the task %q", task)
	}
	if found := strings.Join(r.lastReport().GetFindings(), "\n"); !strings.Contains(found, `ecs:… is what a task has as a whole`) {
		t.Errorf("findings: %s", found)
	}
}

func TestATasksProxyIsAtTheAddressThatECSSays(t *testing.T) {
	t.Cleanup(agent.OnAHost(false))
	onECS(t)
	dir := t.TempDir()
	cfg := agent.Config{
		Server: "127.0.0.1:1", Mode: agent.ModeTask, SocketDir: filepath.Join(dir, "s"), DataDir: filepath.Join(dir, "d"),
		Proxies: []agent.Proxy{{Mesh: "shop", VirtualNode: "web"}},
	}
	const of = "proxies[0].bind: this host does not have the address 192.0.2.3"
	if err := agent.Check(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), of) {
		t.Errorf("%v", err)
	}
	cfg.Proxies[0].Bind = "127.0.0.2"
	if err := agent.Check(t.Context(), cfg); err == nil || strings.Contains(err.Error(), "bind") {
		t.Errorf("with a bind of its own: %v", err)
	}
	cfg.Proxies[0].Bind, cfg.IgnoreECSMetadata = "", true
	if err := agent.Check(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "with 127.0.0.1, by which 127.0.0.1:1 is reached, as bind") {
		t.Errorf("where ECS is asked nothing: %v", err)
	}
	cfg.IgnoreECSMetadata = false
	t.Setenv(ecstask.Variable, "http://192.0.2.1/v4/1")
	if err := agent.Check(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "ignore_ecs_metadata: true does without: "+ecstask.Variable) {
		t.Errorf("an endpoint that is none: %v", err)
	}
	cfg.Mode, cfg.Proxies = agent.ModeHost, nil
	if err := agent.Check(t.Context(), cfg); err == nil || strings.Contains(err.Error(), ecstask.Variable) {
		t.Errorf("on a host: %v", err)
	}
}

func TestAnAgentInAHostsNamespaceIsNoTasks(t *testing.T) {
	t.Cleanup(agent.OnAHost(true))
	dir := t.TempDir()
	cfg := agent.Config{Server: "127.0.0.1:1", Mode: agent.ModeTask, SocketDir: filepath.Join(dir, "s"), DataDir: filepath.Join(dir, "d")}
	err := agent.Check(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "mode: this is the network namespace of the host") {
		t.Errorf("%v", err)
	}
	cfg.Mode = agent.ModeHost
	if err := agent.Check(t.Context(), cfg); err == nil || strings.Contains(err.Error(), "mode:") {
		t.Errorf("on a host: %v", err)
	}
}

func TestAModeThatThereIsNotAndKeysOfTheOtherAreRefused(t *testing.T) {
	for want, cfg := range map[string]agent.Config{
		`mode: want host or task, got "pod"`:     {Mode: "pod"},
		"refuse_legacy_peers: is for mode: host": {Mode: agent.ModeTask, RefuseLegacyPeers: true},
		"ignore_ecs_metadata: is for mode: task": {IgnoreECSMetadata: true},
		"proxies[0].bind: is missing":            {Proxies: []agent.Proxy{{Name: "web", Mesh: "shop", VirtualNode: "web"}}},
	} {
		cfg.Server, cfg.DataDir = "mesh:8443", "/tmp/d"
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	task := agent.Config{Server: "mesh:8443", Mode: agent.ModeTask, Proxies: []agent.Proxy{{Name: "web", Mesh: "shop", VirtualNode: "web"}}}
	if err := task.Validate(); err != nil {
		t.Errorf("a task without bind: %v", err)
	}
}

func TestATaskIsToldToStopByItsSocketAndSaysWhenItsCallersHaveGone(t *testing.T) {
	r := newRig(t, nil, inTask(t))
	if err := local.AwaitReady(t.Context(), r.dir); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := local.Stop(ctx, r.dir, time.Hour); err == nil || !strings.Contains(err.Error(), `application="1h0m0s": want a duration, 2m30s at most`) {
		t.Errorf("for an hour: %v", err)
	}
	atMost, err := local.Stop(ctx, r.dir, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if atMost < 10*time.Second || atMost > time.Minute { // and stop_timeout after that
		t.Errorf("the proxy goes on for %s at most", atMost)
	}
	select {
	case err := <-r.done:
		if err != nil {
			t.Error(err)
		}
		r.done <- nil // for its cleanup
	case <-ctx.Done():
		t.Error("it goes on")
	}
	if _, err := local.Stop(ctx, r.dir, 0); !errors.Is(err, local.ErrNotRunning) {
		t.Errorf("told again: %v", err)
	}
}

func TestAnAgentOfAHostIsToldToStopByNobodysSocket(t *testing.T) {
	r := newRig(t, nil)
	if _, err := local.Stop(t.Context(), r.dir, 0); !errors.Is(err, local.ErrHosts) {
		t.Errorf("%v", err)
	}
}

func TestAnAgentWhoseProxiesDoNotServeIsNotReady(t *testing.T) {
	r := newRig(t, nil, inTask(t), func(c *agent.Config) {
		c.Envoy, c.ProxyUser = "/bin/true", "root"
		c.Proxies = []agent.Proxy{{Mesh: "shop", VirtualNode: "web", Bind: "127.0.0.2"}}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := local.AwaitReady(ctx, r.dir); err == nil || !strings.Contains(err.Error(), "1 of 1 proxies are not ready") {
		t.Errorf("%v", err)
	}
	if err := local.AwaitReady(ctx, t.TempDir()); !errors.Is(err, local.ErrNotRunning) {
		t.Errorf("no agent: %v", err)
	}
}
