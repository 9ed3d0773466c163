package xdstest

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/mesh/graphtest"
	"signet.example/proxy"
	"signet.example/xds"
)

// Case is one golden view: a mesh.yaml whose leading comments say whose view it
// is and what else the translator is told:
//
//	# view: front                                    (or, for a gateway: # gateway: edge)
//	# registered: orders 8080 10.0.0.7:8080          (or ... unhealthy)
//	# managed: orders
//	# strict: front
//	# lifetime: 1h
//	# app: unix:/run/front/{port}.sock
//	# egress: unix:/run/front-out/egress.sock
//	# service-addresses: true
//	# capture: egress 15001                          (or ingress 15000, ipv6 1)
type Case struct {
	Name string
	Mesh string
	Node string
	// Gateway: Node is a virtual gateway.
	Gateway bool
	Input   xds.Input
	Shape   proxy.Shape
}

// TrustDomain is that of every case.
var TrustDomain = spiffeid.RequireTrustDomainFromString("test.example")

// Shape is that of every golden case.
var Shape = proxy.Shape{
	Bind: "127.0.0.2", App: "127.0.0.1", Egress: EgressOn("127.0.0.2"),
	AuthzSocket: "/run/signet/authz.sock", WayoutSocket: "/run/signet/wayout.sock", EnvoyVersion: "1.40.0", Proxy: "one", Answers: true, Underscores: true,
}

// Load reads the case in dir.
func Load(t testing.TB, dir string) Case {
	t.Helper()
	file := filepath.Join(dir, "mesh.yaml")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	g := graphtest.Graph(t, file, content)
	c := Case{
		Name: filepath.Base(dir), Mesh: g.Meshes()[0], Shape: Shape,
		Input: xds.Input{Graph: g, TrustDomain: TrustDomain, PolicyRevision: "5f0c2a"},
	}
	if err := c.directives(content); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return c
}

// Ref is what the view is of.
func (c Case) Ref() proxy.Ref { return proxy.For(c.Mesh, c.Node, c.Gateway) }

// directives reads the comments before the first manifest.
func (c *Case) directives(content []byte) error {
	var (
		registered = map[string][]xds.Endpoint{}
		managed    = map[string]bool{}
		strict     = map[string]bool{}
	)
	for s := bufio.NewScanner(bytes.NewReader(content)); s.Scan() && strings.HasPrefix(s.Text(), "#"); {
		key, value, ok := strings.Cut(strings.TrimSpace(strings.TrimPrefix(s.Text(), "#")), ": ")
		if !ok || strings.Contains(key, " ") {
			continue // prose
		}
		var err error
		switch key {
		case "view", "gateway":
			c.Node, c.Gateway = value, key == "gateway"
			c.Shape.Suit(c.Ref())
		case "registered":
			err = register(registered, strings.Fields(value))
		case "managed":
			managed[value] = true
		case "strict":
			strict[value] = true
		case "lifetime":
			c.Input.SVIDLifetime, err = time.ParseDuration(value)
		case "app":
			c.Shape.App = value
		case "egress":
			c.Shape.Egress, err = proxy.ParseEgress(value, "")
		case "service-addresses":
			c.Shape.ServiceAddresses, err = strconv.ParseBool(value)
		case "capture":
			err = capture(&c.Shape.Capture, strings.Fields(value))
		default:
			err = fmt.Errorf("directive %q", key)
		}
		if err != nil {
			return err
		}
	}
	c.Input.Endpoints = func(node proxy.Ref, port uint32) []xds.Endpoint { return registered[key(node.Name, port)] }
	c.Input.Managed = func(node proxy.Ref) bool { return managed[node.Name] }
	c.Input.Strict = func(node proxy.Ref) bool { return strict[node.Name] }
	return nil
}

func capture(c *proxy.Capture, f []string) error {
	if len(f) != 2 {
		return fmt.Errorf("capture: want what, number")
	}
	n, err := strconv.ParseUint(f[1], 10, 16)
	switch f[0] {
	case "egress":
		c.Egress = uint16(n)
	case "ingress":
		c.Ingress = uint16(n)
	case "ipv6":
		c.IPv6 = n == 1
	}
	return err
}

func register(into map[string][]xds.Endpoint, f []string) error {
	if len(f) < 3 {
		return fmt.Errorf("registered: want node, port, address:port")
	}
	i := strings.LastIndex(f[2], ":")
	port, err := strconv.ParseUint(f[2][i+1:], 10, 16)
	if err != nil {
		return err
	}
	listener, err := strconv.ParseUint(f[1], 10, 16)
	if err != nil {
		return err
	}
	k := key(f[0], uint32(listener))
	into[k] = append(into[k], xds.Endpoint{Address: f[2][:i], Port: uint32(port), Healthy: len(f) == 3})
	return nil
}

func key(node string, port uint32) string { return node + ":" + strconv.FormatUint(uint64(port), 10) }

// EgressOn is an outbound listener of the usual port.
func EgressOn(host string) proxy.Egress {
	return proxy.Egress{AddrPort: netip.AddrPortFrom(netip.MustParseAddr(host), proxy.DefaultEgressPort)}
}
