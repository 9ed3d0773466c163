package cli

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"signet.example/test/parts"
)

// mostAtStart is what a package of ours may allocate before main begins, in bytes: every command
// waits for all of it, and most use little. A regular expression with large bounds takes hundreds
// of kilobytes, and a millisecond; one that few need is made when it is.
const mostAtStart = 250 << 10

func TestNoPackageOfOursMakesMuchBeforeACommandBegins(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), parts.Signet(t), "version")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	inits := regexp.MustCompile(`(?m)^init (signet\.example/\S+) .* ([0-9]+) bytes, [0-9]+ allocs$`).FindAllStringSubmatch(string(out), -1)
	if len(inits) < 5 {
		t.Fatalf("the runtime names %d packages of ours: %s", len(inits), out)
	}
	for _, m := range inits {
		if n, err := strconv.Atoi(m[2]); err != nil || n > mostAtStart {
			t.Errorf("%s allocates %s bytes before main begins, %d at most", m[1], m[2], mostAtStart)
		}
	}
}
