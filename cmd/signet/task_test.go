package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// Whoever configures a task by its environment has no file whose keys they would know.
func TestWhatIsWrongWithATaskIsSaidOfTheVariableThatSaysIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.yaml")
	if err := os.WriteFile(file, []byte("server: mesh\nproxies: [{mesh: shop, virtual_node: web, bind: banana}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		environ, args string
		want          []string // how the lines of the error begin
	}{
		"what is read":      {"SIGNET_DRAIN_TIME=soon", "", []string{`SIGNET_DRAIN_TIME: "soon" is not a duration`}},
		"what is validated": {"SIGNET_SERVER=mesh SIGNET_PROXY_BIND=banana SIGNET_DATA_DIR=d APPMESH_RESOURCE_ARN=mesh/shop/virtualNode/web", "", []string{"SIGNET_SERVER: want host:port", "SIGNET_DATA_DIR: want an absolute path", "SIGNET_PROXY_BIND: want an IP address"}},
		"App Mesh's":        {"SIGNET_SERVER=m:1 APPMESH_RESOURCE_ARN=mesh/shop/virtualNode/web ENVOY_CONCURRENCY=-1", "", []string{"ENVOY_CONCURRENCY: want at least 1"}},
		"what is missing":   {"APPMESH_RESOURCE_ARN=mesh/shop/virtualNode/web", "", []string{"server (SIGNET_SERVER): is missing"}},
		"what follows":      {"SIGNET_SERVER=m:1 SIGNET_DRAIN_TIME=1m", "", []string{"stop_timeout (SIGNET_STOP_TIMEOUT): 30s is less than"}},
		"a flag's":          {"SIGNET_SERVER=m:1", "--server mesh", []string{"--server: want host:port"}},
		"the file's":        {"SIGNET_DRAIN_TIME=1s", "--config " + file, []string{file + ":1:9: server: want host:port", file + ":2:49: proxies[0].bind: want an IP address"}},
		"the level":         {"SIGNET_SERVER=m:1 SIGNET_LOG_LEVEL=loud", "", []string{"SIGNET_LOG_LEVEL: want debug"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, one := range os.Environ() { // what is empty is not there
				if key, _, _ := strings.Cut(one, "="); strings.HasPrefix(key, "SIGNET_") {
					t.Setenv(key, "")
				}
			}
			for one := range strings.FieldsSeq(x.environ) {
				key, value, _ := strings.Cut(one, "=")
				t.Setenv(key, value)
			}
			c := &cobra.Command{Use: "task"}
			flags := addAgentFlags(c)
			flags.task = true
			if err := c.ParseFlags(strings.Fields(x.args)); err != nil {
				t.Fatal(err)
			}
			if err := readEnv(c); err != nil {
				t.Fatal(err)
			}
			_, err := flags.read()
			if err == nil {
				t.Fatal("nothing is wrong")
			}
			said := "\n" + err.Error()
			for _, want := range x.want {
				if !strings.Contains(said, "\n"+want) {
					t.Errorf("it says %s\nwant %s", said, want)
				}
			}
		})
	}
}

func TestAnAgentThatCrashesIsStartedAgainAndOneThatIsRefusedIsNot(t *testing.T) {
	for code, again := range map[int]bool{exitOK: false, exitFailed: true, exitUsage: false, exitUnreachable: true, exitDenied: false, 137: true} {
		if _, ok := startAgain()(code, time.Minute); ok != again {
			t.Errorf("exit code %d: %t", code, ok)
		}
	}
	ask := startAgain()
	for n := 1; n < mostCrashes; n++ {
		if pause, ok := ask(exitFailed, time.Second); !ok || pause <= 0 {
			t.Errorf("crash %d: %s, %t", n, pause, ok)
		}
	}
	if _, ok := ask(exitFailed, time.Second); ok {
		t.Error("it crashes for ever")
	}
	ask = startAgain()
	for range 3 * mostCrashes {
		if _, ok := ask(exitFailed, time.Hour); !ok {
			t.Error("a crash an hour ends it")
		}
	}
}
