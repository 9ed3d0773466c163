package docs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"signet.example/test/parts"
)

// TestTheUnitOfTheAgentsPageIsGood has systemd read the unit, and the agent the
// file that the page gives it.
func TestTheUnitOfTheAgentsPageIsGood(t *testing.T) {
	signet, analyze, page := parts.Signet(t), parts.Program(t, "systemd-analyze"), read(t, "docs", "AGENT.md")
	units, files := block(page, "ini"), block(page, "yaml")
	if len(units) != 1 || len(files) != 1 {
		t.Fatalf("%d units and %d configurations", len(units), len(files))
	}
	unit := units[0]
	set := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^(\w+)=(.*)$`).FindAllStringSubmatch(unit, -1) {
		set[m[1]] = append(set[m[1]], strings.Fields(m[2])...)
	}
	granted := []string{"CAP_SYS_PTRACE", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"}
	for _, key := range []string{"AmbientCapabilities", "CapabilityBoundingSet"} {
		if !slices.Equal(set[key], granted) {
			t.Errorf("%s=%v, want %v", key, set[key], granted)
		}
	}
	// systemd's default ends every process of the unit at once.
	if !slices.Equal(set["KillMode"], []string{"mixed"}) {
		t.Errorf("KillMode=%v", set["KillMode"])
	}
	if stop, err := time.ParseDuration(set["TimeoutStopSec"][0]); err != nil || stop < 40*time.Second {
		t.Errorf("TimeoutStopSec=%v, too short for drain_time, drain_requests and the end of Envoy", set["TimeoutStopSec"])
	}

	dir := t.TempDir()
	config := filepath.Join(dir, "agent.yaml")
	// The users of the page are not on this machine; those of the numbers are nobody's.
	me := strconv.Itoa(os.Getuid())
	text := strings.NewReplacer("signet-envoy", me, "{user: signet-authz}", "{}", "10.0.0.7", "127.0.0.7", "/var/lib/signet-agent", filepath.Join(dir, "data")).Replace(files[0])
	text += fmt.Sprintf("envoy: %s\nsocket_dir: %s\nmetrics: 127.0.0.1:0\n", parts.Envoy(t), filepath.Join(dir, "run"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	check := exec.CommandContext(t.Context(), signet, "agent", "--config", config, "--check")
	check.Env = append(os.Environ(), "SIGNET_TOKEN_FILE=-") // made when it is used
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("the configuration of the page: %v: %s", err, out)
	}
	// Users and programs of the page are made by its reader: those here stand for them.
	text = strings.NewReplacer("User=signet-agent", "User="+me, "/usr/local/bin/signet", signet).Replace(unit)
	path := filepath.Join(dir, "signet-agent.service")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", path).CombinedOutput()
	if err != nil || strings.Contains(string(out), "signet-agent.service") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// TestTheUnitOfTheAgentsPageLetsWriteWhatItsFileNames compares the folders of the
// page's configuration with those that its unit leaves writable.
func TestTheUnitOfTheAgentsPageLetsWriteWhatItsFileNames(t *testing.T) {
	page := read(t, "docs", "AGENT.md")
	unit, file := block(page, "ini")[0], block(page, "yaml")[0]
	var writable []string
	for key, root := range map[string]string{"StateDirectory": "/var/lib/", "RuntimeDirectory": "/run/", "ReadWritePaths": ""} {
		for _, m := range regexp.MustCompile(`(?m)^`+key+`=(.*)$`).FindAllStringSubmatch(unit, -1) {
			for name := range strings.FieldsSeq(m[1]) {
				writable = append(writable, root+strings.TrimPrefix(name, "-"))
			}
		}
	}
	named := regexp.MustCompile(`(?m)^(\w+_dir): (.*)$`).FindAllStringSubmatch(file, -1)
	if !slices.ContainsFunc(named, func(m []string) bool { return m[1] == "access_log_dir" }) {
		t.Error("the page's configuration has no access_log_dir")
	}
	for _, m := range named {
		if !slices.Contains(writable, m[2]) {
			t.Errorf("%s %s is read-only under the unit, which leaves %q writable", m[1], m[2], writable)
		}
	}
}

// TestEachPlaceOfAnApplicationIsTriedOrSaidToBeUntried: a row of the table of who calls
// out names a test, or says that it has none.
func TestEachPlaceOfAnApplicationIsTriedOrSaidToBeUntried(t *testing.T) {
	_, section, found := strings.Cut(read(t, "docs", "AGENT.md"), "\n## Who calls out, by where the application runs\n")
	section, _, _ = strings.Cut(section, "\n## ")
	rows := pieces(section, true)
	if !found || len(rows) < 10 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		if last := row.cells[len(row.cells)-1]; !testName.MatchString(last) && !strings.HasPrefix(last, "untried") {
			t.Errorf("%q: want a test, or untried, got %q", row.cells[0], last)
		}
	}
}
