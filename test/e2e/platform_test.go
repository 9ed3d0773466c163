package e2e

import (
	"os/exec"
	"strings"

	"signet.example/test/parts"
)

// redirect does what the platform does for a task that is redirected, as root of its network namespace: up, down or check.
func (k *task) redirect(do string) {
	k.t.Helper()
	if !k.platform.Redirects() {
		return
	}
	words := append(strings.Fields(parts.OnHost(k.host)), k.image.signet, "redirect", do)
	if do != "down" {
		words = append(words, k.platform.Flags()...)
	}
	if out, err := exec.CommandContext(k.t.Context(), words[0], words[1:]...).CombinedOutput(); err != nil {
		k.t.Errorf("redirect %s: %v: %s", do, err, out)
	}
}

// routed has everything that a host calls go to this one: what is redirected needs a way that it could have taken.
func (k *task) routed() {
	k.t.Helper()
	words := strings.Fields(parts.OnHost(k.host) + " ip route replace default via " + parts.ThisHost)
	if out, err := exec.CommandContext(k.t.Context(), words[0], words[1:]...).CombinedOutput(); err != nil {
		k.t.Errorf("%v: %s", err, out)
	}
}
