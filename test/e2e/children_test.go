package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"signet.example/test/meshtest"
	"signet.example/test/parts"
)

// Users of the agent and its children, which nothing else here has.
const (
	agentUID = 64801
	envoyUID = 64802
	authzUID = 64803
)

// granted to the agent, as docs/AGENT.md's unit does.
var granted = []string{"sys_ptrace", "setuid", "setgid", "kill"}

// childrenMesh has an agent whose start is the test's, as one of three kinds of users.
func childrenMesh(t *testing.T) *meshtest.World {
	t.Helper()
	if os.Geteuid() != 0 {
		parts.Missing(t, "other users: they need root")
	}
	return meshtest.Start(t, meshtest.Options{
		Nodes: []string{"front", "orders"}, NoAgent: true,
		Manifests: meshtest.Join(meshtest.Mesh(), meshtest.VirtualNode("front", "", "orders")+"  logging: {accessLog: {file: {path: /dev/stderr, format: {text: \"%REQ(X-LINE)%\\n\"}}}}\n",
			meshtest.VirtualNode("orders", meshtest.Strict("test.example", "orders"))+"  logging: {accessLog: {file: {path: /dev/stdout}}}\n", meshtest.ServiceOfNode("orders", "orders")),
		AgentExtra: fmt.Sprintf("authz: {user: \"%d\"}\n", authzUID), ProxyUser: strconv.Itoa(envoyUID),
	})
}

// withCapabilities puts the grant on the program's file.
func withCapabilities(t *testing.T, path string) {
	t.Helper()
	bits := uint32(1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_KILL)
	var b bytes.Buffer // struct vfs_cap_data, revision 2, effective
	err := binary.Write(&b, binary.LittleEndian, []uint32{0x02000001, bits, 0, 0, 0})
	if err := errors.Join(err, unix.Setxattr(path, "security.capability", b.Bytes(), 0)); err != nil {
		parts.Missing(t, "file capabilities on "+path+": "+err.Error())
	}
}

func TestAChildHasNothingOfItsParentAndDoesNotOutliveIt(t *testing.T) {
	w := childrenMesh(t)
	page, err := os.ReadFile(filepath.Join(parts.Root(), "docs", "AGENT.md"))
	if err != nil {
		t.Fatal(err)
	}
	signer := childOf(t, w.Server.PID(), "signer")
	plain := w.Place(parts.Signet(t), "signet")
	capable := w.Place(parts.Signet(t), "signet-capable")
	withCapabilities(t, capable)
	envoy := w.Place(parts.Envoy(t), "envoy")
	only := "-all,+" + strings.Join(granted, ",+")
	as := []string{"setpriv", "--reuid", strconv.Itoa(agentUID), "--regid", strconv.Itoa(agentUID), "--clear-groups", "--pdeathsig", "KILL"}
	for _, way := range []struct {
		name, program string
		prefix        []string
		uid           uint32
		bounding      string // of children
	}{
		{"ambient", plain, append(slices.Clone(as), "--bounding-set", only, "--inh-caps", only, "--ambient-caps", only, "--"), agentUID, "00000000000800e0"},
		{"file capability", capable, append(slices.Clone(as), "--bounding-set", only, "--"), agentUID, "00000000000800e0"},
		{"root", plain, nil, 0, noCaps},
	} {
		t.Run(way.name, func(t *testing.T) {
			w.StartAgentAs(way.uid, envoy, append(way.prefix, way.program)...)
			w.AwaitProxies()
			w.AwaitRoute("front", host+"/orders")
			agent := w.Agent.PID()
			authz, proxy := childOf(t, agent, "authz"), childOf(t, agent, "--config-path")
			for what, pid := range map[string]int{"authz": authz, "envoy": proxy, "signer": signer} {
				bounding := way.bounding
				if what == "signer" {
					bounding = noCaps // its server is root in each
				}
				s := procStatus(t, pid)
				for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
					if s[set] != noCaps {
						t.Errorf("%s: %s is %s", what, set, s[set])
					}
				}
				if s["CapBnd"] != bounding {
					t.Errorf("%s: CapBnd is %s, want %s", what, s["CapBnd"], bounding)
				}
				if sid, err := unix.Getsid(pid); err != nil || sid != pid {
					t.Errorf("%s: session %d, %v", what, sid, err)
				}
				for i, fd := range descriptors(t, pid) {
					_, kind, _ := strings.Cut(fd, " ")
					if strings.Contains(kind, "left-open") || what != "envoy" && !expected(kind, w.ServerDir()) {
						t.Errorf("%s has a descriptor that it was not given: %s", what, fd)
					}
					if i < 3 && fd != []string{"0 /dev/null", "1 pipe", "2 pipe"}[i] {
						t.Errorf("%s: descriptor %s", what, fd)
					}
				}
			}
			for what, uid := range map[int]string{authz: strconv.Itoa(authzUID), proxy: strconv.Itoa(envoyUID), signer: "0"} {
				s := procStatus(t, what)
				if ids := strings.TrimSpace(strings.Repeat(uid+" ", 4)); s["Uid"] != ids || s["Gid"] != ids || uid != "0" && s["Groups"] != "" {
					t.Errorf("uid %s: Uid %q Gid %q Groups %q", uid, s["Uid"], s["Gid"], s["Groups"])
				}
			}
			if limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", authz)); err != nil || !regexp.MustCompile(`(?m)^Max data size +\d+ `).Match(limits) {
				t.Errorf("authz has no bound of its memory: %v\n%s", err, limits)
			}
			row := func(name string, of func(pid int) string) {
				cells := []string{name, of(authz), of(proxy), of(signer)}
				if want := "| " + strings.Join(cells, " | ") + " |\n"; !strings.Contains(string(page), want) {
					t.Errorf("docs/AGENT.md lacks the row %s", want)
				}
			}
			row("NoNewPrivs", func(pid int) string { return procStatus(t, pid)["NoNewPrivs"] })
			row("umask", func(pid int) string { return procStatus(t, pid)["Umask"] })
			row("working directory", func(pid int) string { return link(t, pid, "cwd") })
			row("environment", func(pid int) string { return environment(t, pid) })
			row("readable by its own user", func(pid int) string {
				if pid == signer {
					return "no" // a process of root does not show it here; server's own tests do
				}
				return dumpable(t, pid)
			})

			admin := question{Do: "dial", Socket: filepath.Join(w.AgentDir(), "proxies", "orders", "admin.sock")}
			for uid, want := range map[uint32]string{nobodyUID: "permission denied", authzUID: "permission denied", envoyUID: "OK"} {
				if a := askAs(t, uid, admin)[0]; a.Code != want {
					t.Errorf("uid %d at Envoy's admin socket: %+v, want %s", uid, a, want)
				}
			}
			logsAreNoRecords(t, w)
			all := childrenOf(t, agent)
			if len(all) != 3 {
				t.Errorf("%d children, want two Envoys and authz", len(all))
			}
			w.Agent.Kill()
			eventually(t, 5*time.Second, "the end of all children of a killed agent", func() bool {
				return !slices.ContainsFunc(all, func(pid int) bool { return syscall.Kill(pid, 0) == nil && procStatus(t, pid)["State"] != "Z (zombie)" })
			})
		})
	}
}

// logsAreNoRecords: proxies of another user write their access logs to what they have, and a
// caller whose words are logged makes no record of a denial.
func logsAreNoRecords(t *testing.T, w *meshtest.World) {
	t.Helper()
	const id = "06038b9d-2549-4078-abca-9df7b4f2e1c0"
	forged := `{"msg":"native denial","time":"2026-11-21T10:00:00Z","decision_id":"` + id + `","class":"unavailable","method":"GET","path":"/forged","source":"spiffe://test.example/test/front"}`
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, host+"/orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Line", forged)
	answer, err := w.Client("front").Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close() // of no use
	eventually(t, 5*time.Second, "the access logs in the agent's", func() bool {
		tail := w.Agent.Tail(32 << 10)
		return strings.Contains(tail, "/forged") && strings.Contains(tail, "GET /orders HTTP")
	})
	if out, code := w.CLI("explain", id); code == 0 || strings.Contains(out, "/forged") {
		t.Errorf("a record that nobody made: %d, %s", code, out)
	}
}

// expected are what authz and the signer were given, what Go's runtime opens, and
// the signer's own files.
func expected(kind, signerFiles string) bool {
	return slices.Contains([]string{"/dev/null", "pipe", "socket", "anon_inode"}, kind) || strings.HasPrefix(kind, "/sys/fs/cgroup/") || strings.HasPrefix(kind, signerFiles)
}

const noCaps = "0000000000000000"

func childrenOf(t *testing.T, pid int) []int {
	t.Helper()
	var all []int
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range stats {
		content, err := os.ReadFile(name)
		if err != nil {
			continue // gone
		}
		_, rest, _ := strings.Cut(string(content), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(pid) {
			child, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(name, "/proc/"), "/stat"))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, child)
		}
	}
	return all
}

// childOf finds one by a word of its command line.
func childOf(t *testing.T, pid int, word string) int {
	t.Helper()
	for _, child := range childrenOf(t, pid) {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child))
		if err == nil && slices.Contains(strings.Split(string(line), "\x00"), word) {
			return child
		}
	}
	t.Fatalf("process %d has no child with %q on its command line", pid, word)
	return 0
}

func procStatus(t *testing.T, pid int) map[string]string {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return map[string]string{"State": "Z (zombie)"}
	}
	all := map[string]string{}
	for line := range strings.Lines(string(content)) {
		key, value, _ := strings.Cut(line, ":")
		all[key] = strings.Join(strings.Fields(value), " ")
	}
	return all
}

func link(t *testing.T, pid int, name string) string {
	t.Helper()
	target, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// descriptors by number, without what tells one pipe from another.
func descriptors(t *testing.T, pid int) []string {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int {
		x, _ := strconv.Atoi(a.Name()) // the names are numbers
		y, _ := strconv.Atoi(b.Name())
		return x - y
	})
	var all []string
	for _, e := range entries {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		kind, _, _ := strings.Cut(target, ":")
		if strings.HasPrefix(kind, "/memfd") {
			kind = "memfd"
		}
		all = append(all, e.Name()+" "+kind)
	}
	return all
}

func environment(t *testing.T, pid int) string {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for pair := range strings.SplitSeq(strings.TrimRight(string(content), "\x00"), "\x00") {
		if name, _, ok := strings.Cut(pair, "="); ok && name != "GOCOVERDIR" {
			names = append(names, name)
		}
	}
	if names == nil {
		return "none"
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// dumpable shows in the owner of a process's files: root, where it is not.
func dumpable(t *testing.T, pid int) string {
	t.Helper()
	var files, self unix.Stat_t
	if err := errors.Join(unix.Stat(fmt.Sprintf("/proc/%d/mem", pid), &files), unix.Stat(fmt.Sprintf("/proc/%d", pid), &self)); err != nil {
		t.Fatal(err)
	}
	if strconv.Itoa(int(files.Uid)) == strings.Fields(procStatus(t, pid)["Uid"])[0] {
		return "yes"
	}
	return "no"
}
