package redirect_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"signet.example/redirect"
	"signet.example/test/parts"
)

// ofAppMesh are the rules as App Mesh's were by default, with users of their own.
func ofAppMesh() redirect.Rules {
	return redirect.Rules{
		EgressPort: 15001, IngressPort: 15000, AppPorts: []uint16{8080, 9090}, IgnoreUIDs: []uint32{1337},
		IgnorePorts: []uint16{22}, IgnoreAddresses: []netip.Prefix{netip.MustParsePrefix("10.231.0.9/32"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/33")},
	}
}

func TestRulesAreWrittenAsNftReadsThem(t *testing.T) {
	const want = `table inet signet {
	chain output {
		type nat hook output priority -100; policy accept;
		meta l4proto != tcp return
		fib daddr type local return
		meta skuid 1337 return
		ip daddr 169.254.0.0/16 return
		ip6 daddr fe80::/10 return
		ip6 daddr fd00:ec2::/32 return
		ip daddr 10.231.0.9 return
		ip daddr 192.0.2.0/24 return
		ip6 daddr 2001:db8::/33 return
		tcp dport 22 return
		redirect to :15001
	}
	chain prerouting {
		type nat hook prerouting priority -100; policy accept;
		meta l4proto != tcp return
		fib daddr type != local return
		fib saddr type local return
		tcp dport 8080 redirect to :15000
		tcp dport 9090 redirect to :15000
	}
}
`
	if got := ofAppMesh().String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	r := redirect.Rules{EgressPort: 15001, IgnoreGIDs: []uint32{7}, OnlyUIDs: []uint32{1000, 1001}, IPv4Only: true}
	for _, line := range []string{"meta nfproto ipv6 return", "meta skgid 7 return", "meta skuid 1000 redirect to :15001", "meta skuid 1001 redirect to :15001\n\t}\n}"} {
		if !strings.Contains(r.String(), line) {
			t.Errorf("%q is not in:\n%s", line, r)
		}
	}
	if strings.Contains(r.String(), "\t\tredirect") || strings.Contains(r.String(), "prerouting") {
		t.Errorf("others are redirected, too:\n%s", r)
	}
}

func TestRulesThatWouldLeadAProxyToItselfAreRefused(t *testing.T) {
	for what, change := range map[string]func(*redirect.Rules){
		"no way out":                      func(r *redirect.Rules) { r.EgressPort = 0 },
		"no way in":                       func(r *redirect.Rules) { r.IngressPort = 0 },
		"one port for both":               func(r *redirect.Rules) { r.IngressPort = r.EgressPort },
		"the way out as application":      func(r *redirect.Rules) { r.AppPorts = []uint16{15001} },
		"the way in as application":       func(r *redirect.Rules) { r.AppPorts = []uint16{15000} },
		"nobody is left alone":            func(r *redirect.Rules) { r.IgnoreUIDs = nil },
		"redirected and left alone, both": func(r *redirect.Rules) { r.OnlyUIDs = []uint32{1337} },
		"more than the kernel takes":      func(r *redirect.Rules) { *r = ofManyPorts(1024) },
	} {
		r := ofAppMesh()
		if change(&r); r.Validate() == nil {
			t.Errorf("%s: not refused", what)
		}
	}
	if err := ofAppMesh().Validate(); err != nil {
		t.Error(err)
	}
}

// ofManyPorts has so many, and one user beside them.
func ofManyPorts(n uint16) redirect.Rules {
	r := redirect.Rules{EgressPort: 15001, IngressPort: 15000, IgnoreUIDs: []uint32{1337}}
	for i := range n {
		r.AppPorts = append(r.AppPorts, 20000+i)
	}
	return r
}

func TestRulesAreTheKernelsAsTheyAreWanted(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	check := func(r redirect.Rules, want ...string) {
		t.Helper()
		got, err := redirect.Check(r)
		if err != nil || strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	up := func(r redirect.Rules) {
		t.Helper()
		if err := redirect.Up(r); err != nil {
			t.Fatal(err)
		}
		check(r)
	}
	down := func(want bool) {
		t.Helper()
		if was, err := redirect.Down(); err != nil || was != want {
			t.Errorf("%t, %v, want %t", was, err, want)
		}
	}
	full := ofAppMesh()
	const none = "there is no table inet signet: nothing is redirected"
	check(full, none)
	down(false)
	up(full)
	up(full) // changes nothing
	up(ofManyPorts(1023))
	up(full)
	out := full
	out.AppPorts = nil
	check(out, "chain prerouting is there, and not wanted")
	other := full
	other.EgressPort, other.IgnorePorts = 15002, nil
	check(other, "chain output: rule 10 is another than: redirect to :15002", "chain output has 1 more at its end")
	up(other)
	check(full, "chain output: rule 10 is another than: tcp dport 22 return", "chain output: rule 11 is missing: redirect to :15001")
	some := redirect.Rules{EgressPort: 15001, OnlyUIDs: []uint32{1000}, IgnoreGIDs: []uint32{1337}, IPv4Only: true}
	up(some)
	check(full, "chain output: rule 2 is another than: fib daddr type local return", "chain output: rule 3 is another than: meta skuid 1337 return",
		"chain output: rule 4 is another than: ip daddr 169.254.0.0/16 return", "chain output: rule 5 is another than: ip6 daddr fe80::/10 return",
		"chain output: rule 6 is another than: ip6 daddr fd00:ec2::/32 return", "chain output: rule 7 is another than: ip daddr 10.231.0.9 return",
		"chain output: rule 8 is another than: ip daddr 192.0.2.0/24 return", "chain output: rule 9 is missing: ip6 daddr 2001:db8::/33 return",
		"chain output: rule 10 is missing: tcp dport 22 return", "chain output: rule 11 is missing: redirect to :15001", "chain prerouting is missing")

	// Others' tables are nobody's business here, whatever they are called in another family.
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []*nftables.Table{{Family: nftables.TableFamilyINet, Name: "signets"}, {Family: nftables.TableFamilyIPv4, Name: redirect.Table}} {
		c.AddChain(&nftables.Chain{Table: c.AddTable(other), Name: "output"})
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	up(full)
	down(true)
	down(false)
	check(full, none)
	if left, err := c.ListTables(); err != nil || len(left) != 2 {
		t.Errorf("%d tables are left, want the 2 of others: %v", len(left), err)
	}
}

func TestWhoHasNoNetAdminIsToldWhatIsMissing(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	parts.AsUser(t, 1000, func() {
		_, down := redirect.Down()
		_, check := redirect.Check(ofAppMesh())
		for _, err := range []error{redirect.Up(ofAppMesh()), down, check} {
			if !errors.Is(err, redirect.ErrNotAllowed) {
				t.Errorf("%v", err)
			}
		}
	})
}

// answers starts a server that says its name to whoever connects.
func answers(t *testing.T, at, name string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, name) // who went away needs no answer
			_ = c.Close()
		}
	}()
}

// who answers there; "" for nobody.
func who(at string) string {
	c, err := net.DialTimeout("tcp", at, 2*time.Second)
	if err != nil {
		return ""
	}
	defer func() { _ = c.Close() }()
	name, _ := io.ReadAll(io.LimitReader(c, 64))
	return string(name)
}

func TestConnectionsAreLedWhereTheRulesSay(t *testing.T) {
	if !parts.Hosts(t, t.Name()) {
		return
	}
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	ip("ip", "addr", "add", "2001:db8:1::1/64", "dev", "wire", "nodad")
	ip("ip", "route", "add", "default", "via", parts.AnotherHost)
	ip("ip", "-6", "route", "add", "default", "dev", "wire")
	// The other host has them all, and nobody listens there.
	for _, at := range []string{"203.0.113.7/32", "10.231.0.9/24", "192.0.2.77/32", "169.254.170.2/32", "2001:db9::7/128", "2001:db8:1::2/64"} {
		ip(append(strings.Fields(parts.OnAnotherHost()), "ip", "addr", "add", at, "dev", "wire", "nodad")...)
	}
	// It calls one more by this host, as containers behind a bridge do.
	ip(append(strings.Fields(parts.OnAnotherHost()), "ip", "route", "add", "198.51.100.7", "via", parts.ThisHost)...)
	for at, name := range map[string]string{
		"127.0.0.1:15001": "way out", "[::1]:15001": "way out", "0.0.0.0:15000": "way in", "0.0.0.0:8080": "application", "0.0.0.0:7070": "another",
	} {
		answers(t, at, name)
	}
	if err := redirect.Up(ofAppMesh()); err != nil {
		t.Fatal(err)
	}
	expect := func(what, at, want string) {
		t.Helper()
		if got := who(at); got != want {
			t.Errorf("%s: %s is answered by %q, want %q", what, at, got, want)
		}
	}
	expect("another host", "203.0.113.7:80", "way out")
	expect("the application's port elsewhere", parts.AnotherHost+":8080", "way out")
	expect("over IPv6", "[2001:db9::7]:80", "way out")
	expect("a port that is left alone", parts.AnotherHost+":22", "")
	expect("an address that is left alone", "10.231.0.9:80", "")
	expect("addresses that are left alone", "192.0.2.77:80", "")
	expect("IPv6 addresses that are left alone", "[2001:db8:1::2]:80", "")
	expect("the platform", "169.254.170.2:80", "")
	expect("its own address", parts.ThisHost+":8080", "application")
	expect("loopback", "127.0.0.1:8080", "application")
	parts.AsUser(t, 1337, func() { expect("the proxy itself", parts.AnotherHost+":8080", "") })
	parts.AsUser(t, 1000, func() { expect("another user", parts.AnotherHost+":8080", "way out") })
	parts.FromAnotherHost(t, func() {
		expect("from another host", parts.ThisHost+":8080", "way in")
		expect("from another host, a port that is not the application's", parts.ThisHost+":7070", "another")
		expect("from another host, by this one to a third", "198.51.100.7:8080", "")
	})
	if err := redirect.Up(redirect.Rules{EgressPort: 15001, OnlyUIDs: []uint32{1000}, IPv4Only: true}); err != nil {
		t.Fatal(err)
	}
	expect("whoever is not named", "10.231.0.9:80", "")
	parts.AsUser(t, 1000, func() {
		expect("who is named", "203.0.113.7:80", "way out")
		expect("who is named, over IPv6", "[2001:db9::7]:80", "")
	})
	parts.FromAnotherHost(t, func() { expect("what came in", parts.ThisHost+":8080", "application") })
	if _, err := redirect.Down(); err != nil {
		t.Fatal(err)
	}
	parts.AsUser(t, 1000, func() { expect("when it is down", parts.AnotherHost+":80", "") })
}
