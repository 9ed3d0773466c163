package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"signet.example/agent"
)

// What went wrong is known by its type: a message that happens to have the words of
// another mistake is not taken for it.
func TestAHintIsGivenByTheKindOfAnErrorAndNotByItsWords(t *testing.T) {
	for text, c := range map[string]struct {
		err  error
		hint string
	}{
		"a token that is none":      {errorOf(t, func(c *agent.Config) { c.TokenFile = write(t, "no token at all") }), "make a token"},
		"no token":                  {errorOf(t, func(*agent.Config) {}), ""}, // the message says it
		"a folder of that name":     {fmt.Errorf("read /srv/token-shop/agent.yaml: %w", os.ErrPermission), ""},
		"unknown command, it seems": {errors.New("unknown command of the repository"), ""},
	} {
		hint := ""
		if e, ok := errors.AsType[*exitError](agentHint(agent.Config{}, c.err)); ok {
			hint = e.hint
		}
		if (hint == "") != (c.hint == "") || !strings.Contains(hint, c.hint) {
			t.Errorf("%s: %v: hint %q", text, c.err, hint)
		}
		if code := exitCode(c.err); code != exitFailed {
			t.Errorf("%s: exit code %d", text, code)
		}
	}
}

// What is between the braces comes from others: a program that reads it must not be misled,
// nor a terminal.
func TestAnErrorForProgramsIsOneLineOfJSON(t *testing.T) {
	var out bytes.Buffer
	failureOf("signet apply", hinted(errors.New("a.yaml:1: \"x\" <b>\nb.yaml:2: \x1b[31mred\x00"), "mend them")).printJSON(&out)
	var got struct{ Error failure }
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, &out)
	}
	if n := strings.Count(out.String(), "\n"); n != 1 || strings.ContainsAny(out.String(), "\x1b\x00") {
		t.Errorf("%d lines: %q", n, out.String())
	}
	if lines := strings.Split(got.Error.Message, "\n"); len(lines) != 2 || lines[0] != `a.yaml:1: "x" <b>` || got.Error.Hint != "mend them" || got.Error.ExitCode != exitFailed {
		t.Errorf("%+v", got.Error)
	}
}

func TestARefusedHostIsToldOfTheMeansByWhichItJoins(t *testing.T) {
	var byCertificate agent.Config
	byCertificate.Join.X509PoP.Certificate = "/host.pem"
	for hint, cfg := range map[string]agent.Config{"make a token": {}, "a certificate for another key": byCertificate} {
		e, ok := errors.AsType[*exitError](agentHint(cfg, status.Error(codes.PermissionDenied, "agent x is banned")))
		if !ok || e.code != exitDenied || !strings.Contains(e.hint, hint) {
			t.Errorf("want a hint of %s: %v", hint, e)
		}
	}
}

func TestALogHasTheMistakesOfAConfigurationWithoutItsLines(t *testing.T) {
	cfg := agent.DefaultConfig()
	file, err := readConfig(write(t, "servre: a\nproxy_usr: b\n"), &cfg)
	if err == nil {
		err = file.check(cfg.Validate())
	}
	if err == nil || !strings.Contains(err.Error(), "^") {
		t.Fatalf("the terminal's error has no lines: %v", err)
	}
	if text := brief(err).Error(); strings.Contains(text, "^") || strings.Contains(text, "| ") || !strings.Contains(text, "servre") || !strings.Contains(text, "proxy_usr") {
		t.Errorf("the log's error: %s", text)
	}
}

func errorOf(t *testing.T, change func(*agent.Config)) error {
	t.Helper()
	t.Setenv("SIGNET_TOKEN", "")
	cfg := agent.DefaultConfig()
	cfg.DataDir, cfg.SocketDir, cfg.Server, cfg.Metrics = t.TempDir(), t.TempDir(), "127.0.0.1:1", ""
	if err := os.Chmod(cfg.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	change(&cfg)
	err := agent.Check(context.Background(), cfg)
	if err == nil {
		t.Fatal("a host without a good token is ready to join")
	}
	return err
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestALogHasErrorsWithoutTheWordsOfGRPC(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		c, out := newServer(), new(strings.Builder)
		c.SetContext(t.Context()) // the log is flushed at the end of any command
		c.SetErr(out)
		if err := c.Flags().Set("log-format", format); err != nil {
			t.Fatal(err)
		}
		log, err := logOf(c)
		if err != nil {
			t.Fatal(err)
		}
		log.With(slog.Any("before", status.Error(codes.Unavailable, "first"))).
			Info("upstream stream ended", slog.Any("err", fmt.Errorf("ask: %w", status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial unix /s: refused"`))))
		if said := out.String(); strings.Contains(said, "rpc error") || strings.Contains(said, "desc =") || !strings.Contains(said, "first") || !strings.Contains(said, "ask: dial unix /s: refused") {
			t.Errorf("%s: %s", format, said)
		}
	}
}
