package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"google.golang.org/grpc"

	"signet.example/api"
	"signet.example/api/admin"
)

// Config of the demo.
type Config struct {
	// Exe is the signet binary; Envoy the Envoy binary.
	Exe, Envoy string
	// Once makes the calls, prints the table and ends.
	Once bool
	// SVIDLifetime of the demo's certificates; 20 s if zero.
	SVIDLifetime time.Duration
	// Out takes what the demo has to say; progress goes to Progress.
	Out, Progress io.Writer
}

// ErrDiffers is returned when a call of the demo answered something else than expected.
var ErrDiffers = errors.New("a call answered something else than expected")

// startTimeout bounds everything up to the first call; on two cores it takes about three seconds.
const startTimeout = 45 * time.Second

type demo struct {
	cfg      Config
	world    *world
	children *children
	admin    api.AdminClient
	conn     *grpc.ClientConn
	began    time.Time
}

// Run makes the mesh, shows it until ctx ends (or makes the calls once), and
// leaves nothing behind.
func Run(ctx context.Context, cfg Config) (err error) {
	if cfg.SVIDLifetime == 0 {
		cfg.SVIDLifetime = 20 * time.Second
	}
	d := &demo{cfg: cfg, began: time.Now()}
	if d.world, err = newWorld(cfg.Exe, cfg.Envoy); err != nil {
		return err
	}
	d.children = newChildren(d.world.Dir)
	defer func() { err = errors.Join(err, d.stop(err)) }()

	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := d.start(starting); err != nil {
		return err
	}
	if err := d.publish(); err != nil {
		return err
	}
	d.printWorld()
	if cfg.Once {
		return d.callAll(ctx)
	}
	d.printCalls()
	select {
	case <-ctx.Done():
		d.progress("stopping")
		return nil
	case c := <-d.children.died:
		return fmt.Errorf("%s ended: %v; its last words:\n%s", c.name, c.err, c.tail()) //nolint:errorlint // nil where it ended by itself
	}
}

func (d *demo) start(ctx context.Context) error {
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"server", d.startServer},
		{"mesh and policies", d.configure},
		{"agent, proxies and applications", d.startAgent},
		{"routes and identities", d.awaitMesh},
	} {
		d.progress("starting " + step.what)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("start %s: %w", step.what, err)
		}
	}
	return nil
}

func (d *demo) progress(what string) {
	_, _ = fmt.Fprintf(d.cfg.Progress, "%5.1fs %s\n", time.Since(d.began).Seconds(), what) // stderr is gone: nobody to tell
}

func (d *demo) serverDir() string { return filepath.Join(d.world.Dir, "server") }
func (d *demo) agentDir() string  { return filepath.Join(d.world.Dir, "agent") }
func (d *demo) socket() string    { return filepath.Join(d.serverDir(), "admin.sock") }

// startServer does what an operator does: init, a configuration file, server.
func (d *demo) startServer(ctx context.Context) error {
	password := filepath.Join(d.world.Dir, "password")
	if err := writeSecret(password); err != nil {
		return err
	}
	initialized, err := d.children.start("init", d.world.Exe, "init",
		"--trust-domain", trustDomain, "--data-dir", d.serverDir(), "--password-file", password)
	if err != nil {
		return err
	}
	<-initialized.done
	<-d.children.died // this one was meant to end
	if initialized.err != nil {
		return fmt.Errorf("signet init: %w\n%s", initialized.err, initialized.tail())
	}
	config, err := writeYAML(filepath.Join(d.world.Dir, "server.yaml"), map[string]any{
		"trust_domain": trustDomain, "data_dir": d.serverDir(), "password_file": password,
		"listen": "127.0.0.1:0", "metrics": "127.0.0.1:0",
		"lifetimes": map[string]any{"svid": d.cfg.SVIDLifetime.String()},
	})
	if err != nil {
		return err
	}
	if _, err := d.children.start("server", d.world.Exe, "server", "--config", config); err != nil {
		return err
	}
	if err := d.children.await(ctx, "server", func() error { _, err := d.addresses(d.serverDir()); return err }); err != nil {
		return err
	}
	d.admin, d.conn, err = admin.Dial(d.socket())
	return err
}

// addresses that a server or agent wrote when it was ready.
func (d *demo) addresses(dir string) (map[string]any, error) {
	content, err := os.ReadFile(filepath.Join(dir, "addresses.json"))
	if err != nil {
		return nil, err
	}
	var out map[string]any
	return out, json.Unmarshal(content, &out)
}

func (d *demo) configure(ctx context.Context) error {
	var sources []*api.Source
	for _, name := range []string{"mesh.yaml", "signet.yaml"} {
		path := filepath.Join(d.world.Dir, "mesh", name)
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		sources = append(sources, &api.Source{File: path, Content: content})
	}
	if _, err := d.admin.Apply(ctx, &api.ApplyRequest{Sources: sources}); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	answer, err := d.admin.SyncPolicy(ctx, &api.SyncPolicyRequest{})
	if err != nil {
		return fmt.Errorf("policy sync: %w", err)
	}
	for _, s := range answer.GetStatuses() {
		if s.GetError() != "" {
			return fmt.Errorf("policy sync: %s: %s", s.GetSource(), s.GetError())
		}
	}
	return nil
}

func (d *demo) startAgent(ctx context.Context) error {
	addresses, err := d.addresses(d.serverDir())
	if err != nil {
		return err
	}
	token, err := d.admin.CreateToken(ctx, &api.CreateTokenRequest{Group: group})
	if err != nil {
		return fmt.Errorf("token create: %w", err)
	}
	tokenFile := filepath.Join(d.world.Dir, "token")
	if err := os.WriteFile(tokenFile, []byte(token.GetToken()+"\n"), 0o600); err != nil {
		return err
	}
	var proxies []map[string]any
	for _, n := range d.world.Nodes {
		proxies = append(proxies, map[string]any{
			"name": n.Name, "mesh": meshName, "virtual_node": n.Name,
			"bind": n.Bind, "app": n.App, "egress_port": egressPort,
		})
	}
	settings := map[string]any{
		"server": addresses["agents"], "token_file": tokenFile, "data_dir": filepath.Join(d.world.Dir, "agent-data"), "socket_dir": d.agentDir(), "metrics": "127.0.0.1:0",
		"envoy": d.world.Envoy, "drain_time": "1s", "proxies": proxies,
	}
	if root() {
		settings["proxy_user"], settings["authz"] = strconv.Itoa(proxyUID), map[string]any{"user": strconv.Itoa(authzUID)}
	}
	config, err := writeYAML(filepath.Join(d.world.Dir, "agent.yaml"), settings)
	if err != nil {
		return err
	}
	if _, err := d.children.start("agent", d.world.Exe, "agent", "--config", config); err != nil {
		return err
	}
	if err := d.children.await(ctx, "agent", func() error { _, err := d.addresses(d.agentDir()); return err }); err != nil {
		return err
	}
	for _, n := range d.world.Nodes {
		if _, err := d.children.start("app-"+n.Name, n.Program, "demo-service", "--name", n.Name,
			"--listen", fmt.Sprintf("%s:%d", n.App, appPort), "--workload-api", filepath.Join(d.agentDir(), "workload.sock")); err != nil {
			return err
		}
	}
	return nil
}

// awaitMesh waits until every proxy is ready and the first call is answered.
func (d *demo) awaitMesh(ctx context.Context) error {
	err := d.children.await(ctx, "proxies", func() error {
		answer, err := d.admin.Agents(ctx, &api.AgentsRequest{})
		if err != nil {
			return err
		}
		return proxiesReady(answer, len(d.world.Nodes))
	})
	if err != nil {
		return err
	}
	var refusedSince time.Time
	return d.children.await(ctx, "first call", func() error {
		a := d.call(ctx, "web", "/orders", "")
		if a.Status != 200 {
			switch why := d.wayOutRefused(ctx); {
			case why == "":
				refusedSince = time.Time{}
			case refusedSince.IsZero():
				refusedSince = time.Now()
			case time.Since(refusedSince) > refusedFor:
				return finalError{fmt.Errorf("nobody may call out here: %s (the demo's applications run as its own user: run it as another one, or in a service of its own)", why)}
			}
			return fmt.Errorf("GET %s/orders by web: %s", service, a)
		}
		if a := d.call(ctx, "batch", "/orders", ""); a.Denied != "policy" {
			return fmt.Errorf("GET %s/orders by batch: %s", service, a)
		}
		return nil
	})
}

// refusedFor is how long a refusal must last: a report may be older than the
// application's listener.
const refusedFor = 3 * time.Second

// wayOutRefused returns why the agent lets nobody call out by web although its
// application listens, and "" otherwise.
func (d *demo) wayOutRefused(ctx context.Context) string {
	answer, err := d.admin.Agents(ctx, &api.AgentsRequest{})
	if err != nil {
		return "" // the call failed for a reason of its own
	}
	for _, a := range answer.GetAgents() {
		for _, p := range a.GetReport().GetProxies() {
			if p.GetName() == "web" && p.GetSpeaker() == "" && len(p.GetApplications()) > 0 {
				return p.GetSpeakerProblem()
			}
		}
	}
	return ""
}

func proxiesReady(answer *api.AgentsResponse, want int) error {
	var waiting []string
	ready := 0
	for _, a := range answer.GetAgents() {
		for _, p := range a.GetReport().GetProxies() {
			if p.GetState() == api.ProxyStatus_READY {
				ready++
				continue
			}
			waiting = append(waiting, p.GetName()+" is "+p.GetStateWord())
		}
	}
	if ready < want {
		return fmt.Errorf("%d of %d proxies ready; %s", ready, want, strings.Join(waiting, ", "))
	}
	return nil
}

// stop ends the children and removes the folder; the logs stay only where
// something went wrong.
func (d *demo) stop(failure error) error {
	if d.conn != nil {
		_ = d.conn.Close() // a client connection: nothing is lost
	}
	err := d.children.stop()
	if failure != nil && !errors.Is(failure, ErrDiffers) || err != nil {
		d.progress("logs are in " + d.world.Dir)
		return err
	}
	return d.world.Close()
}

func writeYAML(path string, v any) (string, error) {
	content, err := yaml.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("internal error: %w", err)
	}
	return path, os.WriteFile(path, content, 0o600)
}
