package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signet.example/agent"
	"signet.example/ecs"
	"signet.example/internal/manifest"
	"signet.example/proxy"
)

// convertible is the root certificate of a trust domain, and definitions to convert.
func convertible(t *testing.T) (root []byte, definitions []string) {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	if code := run(t.Context(), []string{"init", "--trust-domain", "prod.example", "--data-dir", data}); code != exitOK {
		t.Fatalf("init: %d", code)
	}
	root, err := os.ReadFile(filepath.Join(data, "ca", "root.crt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"orders.json", "front.json", "edge.json", "described.json", "oneline.json"} {
		definitions = append(definitions, filepath.Join("..", "..", "ecs", "testdata", name))
	}
	return root, definitions
}

// TestTheAgentTakesTheEnvironmentThatIsWritten asks the agent itself, as it would be in the task.
func TestTheAgentTakesTheEnvironmentThatIsWritten(t *testing.T) {
	root, definitions := convertible(t)
	for _, name := range definitions {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := ecs.Convert(name, string(text), ecs.Options{Server: "mesh.internal:8443", Image: "signet-agent:1", Root: string(root)})
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			ContainerDefinitions []struct {
				Command     []string
				Environment []struct{ Name, Value string }
			}
		}
		if err := json.Unmarshal([]byte(r.Definition), &d); err != nil {
			t.Fatal(err)
		}
		var environ []string
		for _, c := range d.ContainerDefinitions {
			for _, e := range c.Environment {
				if len(c.Command) == 1 && c.Command[0] == "task" {
					environ = append(environ, e.Name+"="+e.Value)
				}
			}
		}
		settings, err := agent.FromEnvironment(environ)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		cfg := agent.DefaultConfig()
		cfg.Mode = agent.ModeTask
		if _, err := manifest.ReadSettings("the environment", settings.File, &cfg); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := cfg.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if cfg.Server != "mesh.internal:8443" || cfg.Join.Given() != "aws_task" || len(cfg.Proxies) != 1 || cfg.Proxies[0].Mesh != "shop" {
			t.Errorf("%s: the agent reads %+v", name, cfg)
		}
		if want := (proxy.Capture{Egress: 15001, Ingress: 15000}); cfg.Proxies[0].VirtualGateway == "" && cfg.Proxies[0].Capture != want {
			t.Errorf("%s: the agent takes %+v of what is redirected", name, cfg.Proxies[0].Capture)
		}
	}
}

// What convert says of the agent is what the agent and its image have.
func TestConvertAndTheAgentAgreeOnItsImageAndItsEnd(t *testing.T) {
	cfg := agent.DefaultConfig()
	cfg.Mode, cfg.Server, cfg.Proxies = agent.ModeTask, "mesh.internal:8443", []agent.Proxy{{Mesh: "shop", VirtualNode: "web"}}
	for stop, want := range map[int]bool{ecs.LeastStop: true, ecs.LeastStop - 1: false} {
		cfg.StopTimeout = time.Duration(stop) * time.Second
		if err := cfg.Validate(); (err == nil) != want {
			t.Errorf("stop_timeout %d s: %v", stop, err)
		}
	}
	image, err := os.ReadFile("../../image/image.go") // another module
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("name: \"signet-agent\", uid: %d,", proxy.DefaultUID); !strings.Contains(string(image), want) {
		t.Errorf("the image has not %s", want)
	}
}

// TestConvertWritesTheDefinitionAndTheRestBeside runs the command as it is typed.
func TestConvertWritesTheDefinitionAndTheRestBeside(t *testing.T) {
	root, definitions := convertible(t)
	trust, definition := filepath.Join(t.TempDir(), "root.crt"), definitions[0]
	if err := os.WriteFile(trust, root, 0o600); err != nil {
		t.Fatal(err)
	}
	convert := func(more ...string) (string, string) {
		t.Helper()
		var out, errs bytes.Buffer
		c := newRoot()
		c.SetOut(&out)
		c.SetErr(&errs)
		c.SetArgs(append([]string{"ecs", "convert", definition, "--server", "mesh.internal:8443", "--trust", trust, "--image", "signet-agent:1"}, more...))
		if err := c.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		return out.String(), errs.String()
	}
	out, beside := convert()
	if !json.Valid([]byte(out)) || !strings.Contains(out, `"signet-agent:1"`) || !strings.Contains(beside, `IAM arn:aws:iam::123456789012:role/orders-task: add {"Effect": "Allow", "Action": "sts:GetWebIdentityToken"`) ||
		!strings.Contains(beside, "note: connections are redirected to the proxy as before") || !strings.Contains(beside, "lines: 11 written") {
		t.Errorf("convert writes\n%s\nand\n%s", out, beside)
	}
	if out, beside := convert("--way-out", "http_proxy"); strings.Contains(out, "proxyConfiguration") || !strings.Contains(beside, "note: the application listens on 127.0.0.1") {
		t.Errorf("without redirection convert writes\n%s\nand\n%s", out, beside)
	}
	if out, _ := convert("--diff"); !strings.Contains(out, "# containerDefinitions[envoy].image: Signet's agent") || strings.Contains(out, "not-for-the-report") {
		t.Errorf("--diff writes\n%s", out)
	}
	if out, _ := convert("--objects"); !strings.HasPrefix(out, "apiVersion: signet.example/v1alpha1\nkind: NodeGroup\n") {
		t.Errorf("--objects writes\n%s", out)
	}
	out, beside = convert("-o", "json")
	var r ecs.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Written != 11 || len(r.Diff) != r.Written+r.TakenOut || beside != "" {
		t.Errorf("-o json: %v, %d lines, and beside it %s", err, r.Written, beside)
	}
	if code := run(t.Context(), []string{"ecs", "convert", definition, "--server", "mesh.internal:8443", "--trust", definition, "--image", "i"}); code != exitFailed {
		t.Errorf("something else than a certificate is taken: %d", code)
	}
}
