package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"signet.example/api"
)

func TestEveryMistakeOfAConfigurationFileIsToldAtOnceWithItsPlace(t *testing.T) {
	for what, row := range map[string]struct {
		command *cobra.Command
		args    []string
		file    string
		want    []string
	}{
		"the server's": {
			command: newServer(),
			file:    "data_dir: /d\nlisten: nonsense\nmetrics: 10.77.0.1:9464\nlifetimes: {svid: 5x, agent: 1s}\nsignr: unix:/s\nsigner_user: x\nretention:\n  audit: 1h\n",
			want:    []string{"f.yaml:2:9: listen", "f.yaml:3:10: metrics", "f.yaml:4:19: lifetimes.svid", "f.yaml:4:30: lifetimes.agent", "f.yaml:5:1: signr", "f.yaml:8:10: retention.audit"},
		},
		"the agent's": {
			command: newAgent(),
			file:    "trst: /root.pem\nserver: nonsense\ndata_dir: /d\njoin: {x509pop: {certificate: /c, key: /k}}\nproxies:\n- {name: web, mesh: shop, bind: banana, concurrency: two}\n",
			want:    []string{"f.yaml:1:1: trst", "f.yaml:2:9: server", "f.yaml:6:4: proxies[0].virtual_node", "f.yaml:6:33: proxies[0].bind", "f.yaml:6:54: proxies[0].concurrency"},
		},
		"the signer's": {
			command: newSigner(),
			file:    "data_dir: [/d]\nserver_usr: signet\n",
			want:    []string{"f.yaml: listen", "f.yaml:1:11: data_dir", "f.yaml:2:1: server_usr"},
		},
		"one whose flag is wrong": {
			command: newServer(), args: []string{"--listen", "nonsense"},
			file: "data_dir: /d\nlisten: 127.0.0.1:0\nmetrics: nonsense\n",
			want: []string{"--listen", "f.yaml:3:10: metrics"},
		},
	} {
		path := filepath.Join(t.TempDir(), "f.yaml")
		if err := os.WriteFile(path, []byte(row.file), 0o600); err != nil {
			t.Fatal(err)
		}
		row.command.SetArgs(append(row.args, "--config", path, "--check"))
		row.command.SetOut(new(bytes.Buffer))
		row.command.SetErr(new(bytes.Buffer))
		row.command.SilenceErrors, row.command.SilenceUsage = true, true
		err := row.command.ExecuteContext(t.Context())
		if err == nil {
			t.Errorf("%s: nothing is wrong", what)
			continue
		}
		var got []string
		for _, m := range regexp.MustCompile(`(?m)^((?:f\.yaml\S*: |)[-a-z]\S+): `).FindAllStringSubmatch(strings.ReplaceAll(err.Error(), filepath.Dir(path)+"/", ""), -1) {
			got = append(got, m[1])
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s:\ngot  %q\nwant %q\n%v", what, got, row.want, err)
		}
	}
}

func TestNumbersOf64BitsOfAnAnswerAreTexts(t *testing.T) {
	var out bytes.Buffer
	if err := showMessage(&out, "json", &api.ApplyResponse{Revision: 5}); err != nil || !strings.Contains(out.String(), `"revision": "5"`) {
		t.Errorf("%v: %s", err, out.String())
	}
}

func TestYAMLHasNothingThatATerminalObeys(t *testing.T) {
	for text, want := range map[string]string{
		`{"a": "plain", "b": 1}`:      "a: plain\nb: 1\n",
		`{"a": "x[2Jy\u001b[2J"}`:     `{"a": "x[2Jy\u001b[2J"}`,
		`{"\u009b2J": "a\tb", "c":1}`: `{"\u009b2J": "a\tb", "c":1}`,
	} {
		if out, err := toYAML([]byte(text)); err != nil || string(out) != want {
			t.Errorf("%s: %q, %v", text, out, err)
		}
	}
}
