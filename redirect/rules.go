package redirect

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"signet.example/proxy"
)

// Ports and user of App Mesh's, which the platform's own redirection has, too.
const (
	DefaultEgressPort  = proxy.DefaultEgressPort
	DefaultIngressPort = proxy.DefaultIngressPort
	DefaultUID         = proxy.DefaultUID
)

// Table is the name of the table, of the family inet, that is ours alone.
const Table = "signet"

// Rules are what is redirected in one network namespace.
type Rules struct {
	// EgressPort is where connections that are made here are led to, on loopback.
	EgressPort uint16
	// IngressPort is where connections from other hosts for AppPorts are led to. Without
	// AppPorts nothing is.
	IngressPort uint16
	AppPorts    []uint16
	// IgnoreUIDs and IgnoreGIDs are whose connections are left alone: those of the proxy
	// itself, which would be led back to it without end, and of its agent.
	IgnoreUIDs, IgnoreGIDs []uint32
	// OnlyUIDs are the users whose connections alone are redirected; empty for all.
	OnlyUIDs []uint32
	// IgnorePorts and IgnoreAddresses are destinations that are left alone, beside those of
	// this network namespace, its links and the platform, which always are.
	IgnorePorts     []uint16
	IgnoreAddresses []netip.Prefix
	// IPv4Only leaves IPv6 alone.
	IPv4Only bool
}

// mostGiven bounds the ports, users and destinations that are given: all rules go to the kernel in one
// step, in which it can take so many (buffers), and the first packet of a connection passes each.
const mostGiven = 1024

// platform is what answers for each host by itself: metadata, credentials, time. Who asks there
// asks for himself, and not through a proxy.
var platform = []netip.Prefix{
	netip.MustParsePrefix("169.254.0.0/16"), // RFC 3927; of ECS 169.254.170.2, of EC2 169.254.169.254
	netip.MustParsePrefix("fe80::/10"),      // RFC 4291 2.5.6
	netip.MustParsePrefix("fd00:ec2::/32"),  // the user guide of EC2
}

// Validate refuses rules by which a proxy would be led to itself, or nobody to it.
func (r Rules) Validate() error {
	switch {
	case r.EgressPort == 0:
		return errors.New("the port of the way out (egress) is missing")
	case len(r.AppPorts) > 0 && r.IngressPort == 0:
		return errors.New("the application's ports are given, and no port (ingress) to which they are redirected")
	case len(r.AppPorts) > 0 && r.IngressPort == r.EgressPort:
		return fmt.Errorf("port %d cannot be for what goes out and for what comes in", r.EgressPort)
	case slices.Contains(r.AppPorts, r.IngressPort), slices.Contains(r.AppPorts, r.EgressPort):
		return errors.New("a port of the proxy's is among the application's ports: it would be led to itself")
	case len(r.IgnoreUIDs) == 0 && len(r.IgnoreGIDs) == 0 && len(r.OnlyUIDs) == 0:
		return errors.New("the user or group of the proxy is missing, whose own connections are left alone: they would be led back to it without end")
	}
	if n := r.given(); n > mostGiven {
		return fmt.Errorf("%d ports, users, groups and addresses are given, and the rules can be for %d: leave some out, or give ranges of addresses", n, mostGiven)
	}
	for _, uid := range r.OnlyUIDs {
		if slices.Contains(r.IgnoreUIDs, uid) {
			return fmt.Errorf("user %d is to be redirected, and is left alone", uid)
		}
	}
	return nil
}

func (r Rules) given() int {
	return len(r.AppPorts) + len(r.IgnorePorts) + len(r.IgnoreUIDs) + len(r.IgnoreGIDs) + len(r.OnlyUIDs) + len(r.IgnoreAddresses)
}

// String is the table as nft(8) reads it.
func (r Rules) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", Table)
	for _, c := range r.chains() {
		fmt.Fprintf(&b, "\tchain %s {\n\t\ttype nat hook %s priority %d; policy accept;\n", c.name, c.name, *c.priority)
		for _, rule := range c.rules {
			fmt.Fprintf(&b, "\t\t%s\n", rule.text)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// chains are those of the table. Each is named for its hook.
func (r Rules) chains() []chain {
	all := []chain{outgoing(r.outgoing())}
	if len(r.AppPorts) > 0 {
		all = append(all, incoming(r.incoming()))
	}
	return all
}

// outgoing are the rules for connections that are made here, in order: the first that fits decides.
func (r Rules) outgoing() []statement {
	rules := r.considered()
	rules = append(rules, leave(destinationHere()))
	for _, uid := range r.IgnoreUIDs {
		rules = append(rules, leave(ofUser(uid)))
	}
	for _, gid := range r.IgnoreGIDs {
		rules = append(rules, leave(ofGroup(gid)))
	}
	for _, p := range slices.Concat(platform, r.IgnoreAddresses) {
		rules = append(rules, leave(toAddresses(p)))
	}
	for _, p := range r.IgnorePorts {
		rules = append(rules, leave(toPort(p)))
	}
	if len(r.OnlyUIDs) == 0 {
		return append(rules, lead(r.EgressPort))
	}
	for _, uid := range r.OnlyUIDs {
		rules = append(rules, lead(r.EgressPort, ofUser(uid)))
	}
	return rules
}

// incoming are the rules for connections from other hosts to this one: a host that forwards for
// containers has theirs, too, to ports of any host.
func (r Rules) incoming() []statement {
	rules := append(r.considered(), leave(destinationElsewhere()), leave(sourceHere()))
	for _, p := range r.AppPorts {
		rules = append(rules, lead(r.IngressPort, toPort(p)))
	}
	return rules
}

// considered leaves alone what is no connection to be redirected at all.
func (r Rules) considered() []statement {
	rules := []statement{leave(noTCP())}
	if r.IPv4Only {
		rules = append(rules, leave(overIPv6()))
	}
	return rules
}
