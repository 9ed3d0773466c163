package main

import (
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"signet.example/test/parts"
)

// rulesBy are the rules of a command line and an environment, as nft reads them.
func rulesBy(t *testing.T, args string, environ ...string) (rules string, on bool, err error) {
	t.Helper()
	c := &cobra.Command{Use: "up"}
	flags := redirectFlags(c)
	if err := c.ParseFlags(strings.Fields(args)); err != nil {
		t.Fatal(err)
	}
	r, on, err := flags.rules(c, environ)
	return r.String(), on, err
}

func TestARedirectionIsReadAsAppMeshsContainerReadIt(t *testing.T) {
	// As the controller of App Mesh writes them, and the flags that mean the same.
	byEnv, on, err := rulesBy(t, "", "APPMESH_START_ENABLED=1", "APPMESH_IGNORE_UID=1338", "APPMESH_IGNORE_GID=", "APPMESH_ENVOY_INGRESS_PORT=15010", "APPMESH_ENVOY_EGRESS_PORT=15011",
		"APPMESH_APP_PORTS=9090, 8080,8080", "APPMESH_EGRESS_IGNORED_IP=169.254.169.254,192.0.2.0/24", "APPMESH_EGRESS_IGNORED_PORTS=22", "APPMESH_ENABLE_IPV6=0", "HOME=/root")
	if err != nil || !on {
		t.Fatal(on, err)
	}
	byFlags, _, err := rulesBy(t, "--ignore-uid 1338 --ingress-port 15010 --egress-port 15011 --app-port 8080 --app-port 9090 --ignore-address 169.254.169.254,192.0.2.0/24 --ignore-port 22 --ipv4-only")
	if err != nil || byFlags != byEnv {
		t.Errorf("%v\nby flags:\n%s\nby variables:\n%s", err, byFlags, byEnv)
	}
	for _, line := range []string{"meta skuid 1338 return", "tcp dport 22 return", "ip daddr 169.254.169.254 return", "ip daddr 192.0.2.0/24 return", "\tredirect to :15011", "tcp dport 9090 redirect to :15010", "meta nfproto ipv6 return"} {
		if !strings.Contains(byEnv, line) {
			t.Errorf("no %q in:\n%s", line, byEnv)
		}
	}
	won, _, err := rulesBy(t, "--egress-port 15021 --ignore-uid 7", "APPMESH_ENVOY_EGRESS_PORT=15011", "APPMESH_IGNORE_UID=1338", "APPMESH_ENABLE_IPV6=1")
	if err != nil || !strings.Contains(won, "redirect to :15021") || !strings.Contains(won, "skuid 7 ") || strings.Contains(won, "1338") || strings.Contains(won, "nfproto") {
		t.Errorf("a flag does not win: %v\n%s", err, won)
	}
	if _, on, err := rulesBy(t, "", "APPMESH_START_ENABLED=0"); on || err != nil {
		t.Errorf("started although it is off: %v", err)
	}
}

func TestWhatARedirectionCannotObeyIsRefusedByName(t *testing.T) {
	for _, refused := range []struct{ args, env, want string }{
		{"", "APPMESH_DNS_ENABLED=1", "APPMESH_DNS_ENABLED=1: of App Mesh's environment"},
		{"", "APPMESH_START_ENABLED=yes", "APPMESH_START_ENABLED=yes: want 0 or 1"},
		{"", "APPMESH_ENABLE_IPV6=true", "APPMESH_ENABLE_IPV6=true: want 0 or 1"},
		{"", "APPMESH_APP_PORTS=80 90", "APPMESH_APP_PORTS=80 90: want whole numbers with commas"},
		{"", "APPMESH_APP_PORTS=http", "APPMESH_APP_PORTS=http: want whole numbers with commas"},
		{"", "APPMESH_IGNORE_UID=x", "APPMESH_IGNORE_UID=x: want whole numbers with commas"},
		{"", "APPMESH_ENVOY_EGRESS_PORT=70000", "APPMESH_ENVOY_EGRESS_PORT=70000: want a whole number from 0 to 65535"},
		{"", "APPMESH_EGRESS_IGNORED_IP=metadata", `got "metadata"`},
		{"", "APPMESH_APP_PORTS=15000", "led to itself"},
		{"--app-port 0", "", "--app-port: 0 is out of range"},
		{"--ignore-port 65536", "", "--ignore-port: 65536 is out of range"},
		{"--ignore-uid 4294967296", "", "--ignore-uid: 4294967296 is out of range"},
		{"--ignore-address fe80::1%eth0", "", "fe80::1%eth0"},
		{"--only-uid 1337", "", "user 1337"},
	} {
		_, _, err := rulesBy(t, refused.args, refused.env)
		if err == nil || !strings.Contains(err.Error(), refused.want) || exitCode(err) != exitUsage || strings.Contains(err.Error(), "strconv") {
			t.Errorf("%s %s: %v, want %q", refused.args, refused.env, err, refused.want)
		}
	}
}

func TestAValueOfAFlagIsRefusedInWordsOfItsUser(t *testing.T) {
	for args, want := range map[string]string{
		"redirect up --ignore-uid x":             "--ignore-uid x: want whole numbers with commas between them",
		"redirect up --egress-port 70000":        "--egress-port 70000: want a whole number from 0 to 65535",
		"redirect up --ipv4-only=yes":            "--ipv4-only yes: want true or false",
		"agent stop --wait 5":                    "--wait 5: want a duration such as 30s, 10m or 1h",
		`redirect up --ignore-address 10.0.0.1"`: `--ignore-address 10.0.0.1": want texts with commas`,
	} {
		out, code := ran(t, args)
		if code != exitUsage || !strings.Contains(out, "signet: "+want) || strings.Contains(out, "strconv") || strings.Contains(out, "time: ") {
			t.Errorf("%s: exit code %d: %s", args, code, out)
		}
	}
}

func TestACommandOfTheRedirectionSaysWhatItDidAndWhatItLacks(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	expect := func(args string, code int, want ...string) {
		t.Helper()
		out, got := ran(t, args)
		if got != code {
			t.Errorf("%s: exit code %d, want %d:\n%s", args, got, code, out)
		}
		for _, line := range want {
			if !strings.Contains(out, line) {
				t.Errorf("%s: no %q in:\n%s", args, line, out)
			}
		}
	}
	const nobody = "nobody listens at 127.0.0.1:15001"
	expect("redirect check --app-port 8080", exitDifferent, "there is no table inet signet", nobody, "nobody listens at 127.0.0.1:15000")
	expect("redirect up --app-port 8080 --dry-run", exitOK, "table inet signet {")
	expect("redirect check", exitDifferent, "there is no table inet signet")
	expect("redirect up --app-port 8080", exitOK, "redirected: what goes out to port 15001, what comes in for 8080 to port 15000", "note: "+nobody)
	expect("redirect check --app-port 8080", exitDifferent, nobody)
	listen := func(uid int, at string) net.Listener {
		t.Helper()
		var l net.Listener
		var err error
		parts.AsUser(t, uid, func() { l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", at) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	listen(1337, "127.0.0.1:15001")
	for _, taken := range []string{"0.0.0.0:15000", parts.ThisHost + ":15000"} {
		stranger := listen(1000, taken)
		const given = "user 1000 listens at port 15000, and is none of --ignore-uid: it is given what comes in"
		expect("redirect check --app-port 8080", exitDifferent, given)
		expect("redirect up --app-port 8080", exitOK, "warning: "+given)
		_ = stranger.Close()
	}
	listen(1337, "0.0.0.0:15000")
	stranger := listen(1000, "[::1]:15001")
	expect("redirect check --app-port 8080", exitDifferent, "user 1000 listens at port 15001, and is none of --ignore-uid: it is given what goes out")
	_ = stranger.Close()
	expect("redirect check --app-port 8080", exitOK, "as it should be")
	if out, _ := ran(t, "redirect up --app-port 8080"); strings.Contains(out, "note: ") || strings.Contains(out, "warning: ") {
		t.Errorf("all is as it should be: %s", out)
	}
	expect("redirect check --app-port 8081", exitDifferent, "chain prerouting: rule 4 is another than: tcp dport 8081 redirect to :15000")
	const open = "warning: IPv6 is left alone"
	if out, _ := ran(t, "redirect up --app-port 8080 --ipv4-only"); strings.Contains(out, open) {
		t.Errorf("there is no IPv6: %s", out)
	}
	if out, err := exec.CommandContext(t.Context(), parts.Program(t, "ip"), strings.Fields("addr add 2001:db8:1::1/64 dev wire nodad")...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	expect("redirect up --app-port 8080 --ipv4-only", exitOK, open, "2001:db8:1::1/64")
	expect("redirect check --app-port 8080 --ipv4-only", exitOK, open)
	if out, _ := ran(t, "redirect up --app-port 8080"); strings.Contains(out, open) {
		t.Errorf("it is redirected: %s", out)
	}
	// Of a group nobody sees whether a listener has it.
	expect("redirect up --ignore-uid 7 --ignore-gid 1337", exitOK)
	expect("redirect check --ignore-uid 7 --ignore-gid 1337", exitOK, "as it should be")
	expect("redirect down", exitOK, "nothing is redirected any more")
	expect("redirect down", exitOK, "nothing was redirected")
	parts.AsUser(t, 1000, func() { expect("redirect up", exitDenied, "CAP_NET_ADMIN", "hint: ") })
}

// ran is what a command line writes, and its exit code.
func ran(t *testing.T, args string) (string, int) {
	t.Helper()
	var out strings.Builder
	root := newRoot()
	root.SetArgs(strings.Fields(args))
	root.SetOut(&out)
	root.SetErr(&out)
	code := execute(t.Context(), root)
	return out.String(), code
}
