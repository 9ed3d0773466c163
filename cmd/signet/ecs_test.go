package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"signet.example/ecs"
)

// TestConvertWritesTheDefinitionAndTheRestBeside runs the command as it is typed.
func TestConvertWritesTheDefinitionAndTheRestBeside(t *testing.T) {
	dir := t.TempDir()
	trust := filepath.Join(dir, "root.crt")
	definition, err := filepath.Abs("../../ecs/testdata/orders.json")
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	if code := run(t.Context(), []string{"init", "--trust-domain", "prod.example", "--data-dir", data}); code != exitOK {
		t.Fatalf("init: %d", code)
	}
	root, err := os.ReadFile(filepath.Join(data, "ca", "root.crt"))
	if err == nil {
		err = os.WriteFile(trust, root, 0o600)
	}
	if err != nil {
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
		!strings.Contains(beside, "note: the application listens on 127.0.0.1") || !strings.Contains(beside, "lines: 11 written") {
		t.Errorf("convert writes\n%s\nand\n%s", out, beside)
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
