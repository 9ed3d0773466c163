//go:build bench

package bench

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"signet.example/test/parts"
)

// TestBenchDayOne measures from the start of `signet dev` in an empty folder to
// the line that it prints when a call between two services was answered over
// mTLS: authority, server, agent, proxies, applications and policies made anew.
func TestBenchDayOne(t *testing.T) {
	const runs = 3
	var first, said []time.Duration
	for range runs {
		a, s := dayOne(t)
		first, said = append(first, a), append(said, s)
	}
	report(t, "Day one", []row{
		{"`signet dev` started → first call answered over mTLS, p50 of 3", seconds(percentile(first, 0.5)), "SPIRE, fresh → first SVID: 5.0-10.2 s (measured apart)", "", "≤ 10 s"},
		{"the slowest of 3", seconds(percentile(first, 0.99)), "", "", "≤ 10 s"},
		{"the same by its own clock, p50", seconds(percentile(said, 0.5)), "", "", ""},
	})
}

// dayOne runs the demo to its end; it fails if a call of its table differs.
func dayOne(t *testing.T) (first, said time.Duration) {
	t.Helper()
	dir := socketDir(t)
	cmd := exec.CommandContext(t.Context(), parts.Signet(t), "dev", "--once", "--envoy", parts.Envoy(t))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	log := filepath.Join(dir, "log")
	file, err := os.Create(log)
	must(t, err)
	defer func() { _ = file.Close() }() // the child's words, told on failure
	cmd.Stderr = file
	out, err := cmd.StdoutPipe()
	must(t, err)
	began := time.Now()
	must(t, cmd.Start())
	for lines := bufio.NewScanner(out); lines.Scan(); {
		_, rest, ok := strings.Cut(lines.Text(), " services, ")
		if ok && first == 0 {
			first = time.Since(began)
			var s float64
			if _, err := fmt.Sscanf(rest, "%f s after the start", &s); err == nil {
				said = time.Duration(s * float64(time.Second))
			}
		}
	}
	if err := cmd.Wait(); err != nil || first == 0 {
		content, _ := os.ReadFile(log)
		t.Fatalf("signet dev --once: %v, first answer after %s\n%s", err, first, content)
	}
	return first, said
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
