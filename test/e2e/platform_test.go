package e2e

import (
	"os/exec"
	"strings"

	"signet.example/test/parts"
)

// proxyConfiguration is what a task's platform redirects: ECS leads connections of its network
// namespace to its proxy by rules of the kernel, which nobody in the task has the right to make.
type proxyConfiguration struct {
	Properties []struct {
		Name  string `yaml:"Name"`
		Value string `yaml:"Value"`
	} `yaml:"ProxyConfigurationProperties"`
}

// flagsOfRedirect are those of `signet redirect` that its properties are.
var flagsOfRedirect = map[string]string{
	"IgnoredUID": "--ignore-uid", "AppPorts": "--app-port", "ProxyIngressPort": "--ingress-port", "ProxyEgressPort": "--egress-port",
	"EgressIgnoredIPs": "--ignore-address", "EgressIgnoredPorts": "--ignore-port",
}

// redirects reports whether anything is redirected.
func (p proxyConfiguration) redirects() bool { return len(p.Properties) > 0 }

// redirect does what the platform does for a task that is redirected, as root of its network namespace: up, down or check.
func (k *task) redirect(do string) {
	k.t.Helper()
	if !k.platform.redirects() {
		return
	}
	words := append(strings.Fields(parts.OnHost(k.host)), k.image.signet, "redirect", do)
	for _, p := range k.platform.Properties {
		if p.Value != "" && do != "down" {
			words = append(words, flagsOfRedirect[p.Name], p.Value)
		}
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
