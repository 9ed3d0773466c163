package mesh

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"signet.example/proxy"
)

// ListenerIngress are callers without a certificate that are known by where they are: a load
// balancer, or services that have not moved. A listener that takes plaintext takes it from
// them, and believes what they say of the caller before them; they have no identity.
type ListenerIngress struct {
	// Name is what policies know them by.
	Name string `yaml:"name" json:"name" check:"required len=1..63 pattern=namespace"`
	// Ranges are addresses as 10.0.1.0/24 or 10.0.1.7, of which each is in one list alone.
	Ranges []string `yaml:"ranges" json:"ranges" check:"required items=1..64 each.len=2..43"`
	// Passes names what else than X-Forwarded-For, -Proto and -Port they set by themselves,
	// or take from callers: kinds of [proxy.WithheldHeaders], and [proxy.UserHeaders] where they
	// have users log in. No other caller may say it.
	Passes []string `yaml:"passes,omitempty" json:"passes,omitempty" check:"items=1..3"`
	// HealthCheckPath is answered to them whatever the policy says, where it is not that of
	// the listener's own health check, which is in any case.
	HealthCheckPath string `yaml:"healthCheckPath,omitempty" json:"healthCheckPath,omitempty" check:"len=1..1024 pattern=path"`
}

// ingressPasses are the kinds that an ingress may pass.
var ingressPasses = []string{proxy.UnsafeAddressHeaders, proxy.UnsafeHostHeaders, proxy.UnsafeUserHeaders}

// Ingress is a ListenerIngress.
type Ingress struct {
	Name   string
	Ranges []netip.Prefix
	Passes []string
	// HealthCheckPath is "" where none but the listener's own is answered.
	HealthCheckPath string
}

// ingress checks what is said of one listener.
func (ru *ruler) ingress(path string, list []ListenerIngress) {
	names := map[string]bool{}
	var before []netip.Prefix
	for i, in := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if names[in.Name] {
			ru.fail(at+".name", "%q is the name of another one of this listener", in.Name)
		}
		names[in.Name] = true
		for j, text := range in.Ranges {
			at := fmt.Sprintf("%s.ranges[%d]", at, j)
			r, problem := parseRange(text)
			if problem != "" {
				ru.fail(at, "%q %s", text, problem)
				continue
			}
			if k := slices.IndexFunc(before, r.Overlaps); k >= 0 {
				ru.fail(at, "%s and %s have addresses in common: each may be in one range only", text, before[k])
			}
			before = append(before, r)
		}
		for j, kind := range in.Passes {
			if !slices.Contains(ingressPasses, kind) || slices.Contains(in.Passes[:j], kind) {
				ru.fail(fmt.Sprintf("%s.passes[%d]", at, j), "%q is not one of %s, each once", kind, strings.Join(ingressPasses, ", "))
			}
		}
	}
}

// parseRange reads a range, or one address; it says what is wrong with it.
func parseRange(text string) (r netip.Prefix, problem string) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		r = netip.PrefixFrom(a, a.BitLen())
	} else if r, err = netip.ParsePrefix(text); err != nil {
		return r, "is neither a range such as 10.0.1.0/24 nor an address"
	}
	switch {
	case r.Addr().Is4In6():
		return r, "is IPv4 in the form of IPv6: write it as IPv4"
	case r.Bits() == 0:
		return r, "is every address: whoever calls could say for whom; name the load balancer's subnets"
	case r != r.Masked():
		return r, "has bits behind its length; did you mean " + r.Masked().String() + "?"
	}
	return r, ""
}

func resolveIngress(list []ListenerIngress) []Ingress {
	var out []Ingress
	for _, in := range list {
		one := Ingress{Name: in.Name, Passes: in.Passes, HealthCheckPath: in.HealthCheckPath}
		for _, text := range in.Ranges {
			if r, problem := parseRange(text); problem == "" {
				one.Ranges = append(one.Ranges, r)
			}
		}
		out = append(out, one)
	}
	return out
}
