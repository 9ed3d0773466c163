package docs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"signet.example/test/frozen"
	"signet.example/test/parts"
)

// shopService is a row of the page's table: a service of the shop, where it is, and whom it calls.
type shopService struct {
	name, host string
	old, new   netip.Addr
	calls      []string
}

// inside is the loopback address of a task whose address is a: its application, the way out
// of its proxy and App Mesh's admin interface are there.
func inside(a netip.Addr) string { return fmt.Sprintf("127.0.0.%d", a.As4()[3]) }

// shop reads the page's table.
func shop(t *testing.T, page string) []shopService {
	t.Helper()
	var all []shopService
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ([abc]) \\| ([0-9.]+) \\| ([0-9.]+) \\|(.*)\\|$").FindAllStringSubmatch(page, -1) {
		s := shopService{name: m[1], host: m[2], old: netip.MustParseAddr(m[3]), new: netip.MustParseAddr(m[4])}
		for _, c := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(m[5], -1) {
			s.calls = append(s.calls, c[1])
		}
		all = append(all, s)
	}
	if len(all) != 12 {
		t.Fatalf("the page's table has %d services", len(all))
	}
	return all
}

// spec is the service as App Mesh's users have it.
func (s shopService) spec() string {
	text := "apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualNode\nmetadata: {name: " + s.name + "}\nspec:\n" +
		"  listeners:\n    - portMapping: {port: 8080, protocol: http}\n      healthCheck: {protocol: http, path: /up, intervalMillis: 5000, timeoutMillis: 2000, healthyThreshold: 2, unhealthyThreshold: 2}\n" +
		"  serviceDiscovery: {dns: {hostname: " + s.name + ".shop.internal}}\n"
	for i, callee := range s.calls {
		if i == 0 {
			text += "  backends:\n"
		}
		text += "    - virtualService: {virtualServiceRef: {name: " + callee + "}}\n"
	}
	if s.name == "web" { // the load balancer calls it, and nobody of the mesh
		return text
	}
	return text + "---\napiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: " + s.name + "}\n" +
		"spec: {awsName: " + s.name + ".shop.internal, provider: {virtualNode: {virtualNodeRef: {name: " + s.name + "}}}}\n"
}

// frozen is the configuration that App Mesh's last answer left in the service's Envoy, at its old address.
func (s shopService) frozen() map[string]any {
	backends := map[string]string{}
	for _, callee := range s.calls {
		backends[callee] = callee + ".shop.internal"
	}
	return frozen.Node{Name: s.name, At: s.old.String(), Inside: inside(s.old), Backends: backends}.Bootstrap()
}

// TestTheCommandsOfThePageOfTheDayDoWhatItSays runs the page on three hosts, where the twelve services of
// its table are as App Mesh left them: each with an Envoy that nobody configures any more. What calls
// meanwhile, without a retry, sees no failure.
func TestTheCommandsOfThePageOfTheDayDoWhatItSays(t *testing.T) {
	signet, envoy := parts.Signet(t), parts.Envoy(t)
	for _, tool := range []string{"bash", "git", "curl", "python3"} {
		parts.Program(t, tool)
	}
	if !parts.SeveralHosts(t, t.Name(), 3) {
		return
	}
	page := read(t, "docs", "MIGRATE.md")
	services := shop(t, page)
	dir := shopFiles(t, services)
	steps := tutorial(strings.NewReplacer("scp -q token b:mesh/", "cp token ../b/", "scp -q token c:mesh/", "cp token ../c/").Replace(page))
	last := slices.IndexFunc(steps, func(s step) bool { return strings.Contains(s.script, "bind web\n") })
	if last < 0 {
		t.Fatal("no step of the page moves web, the last one")
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, c := range []shopCaller{
		{t, dir, "web", "10.231.0.129", len(steps)}, // the load balancer: behind web is the whole shop
		{t, dir, "stock", parts.ThisHost, last},     // a neighbour that has not moved
	} {
		wg.Go(func() { c.run(ctx) })
	}
	out := runScript(t, shopScript(services, steps, dir, last), filepath.Join(dir, "bin"), filepath.Dir(signet), filepath.Dir(envoy))
	cancel()
	wg.Wait()
	checkPrinted(t, steps, out)
}

// shopFiles is a folder with what the shop had before the page begins.
func shopFiles(t *testing.T, services []shopService) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, mode os.FileMode, content []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, mode)); err != nil {
			t.Fatal(err)
		}
	}
	var names string
	calls := map[string][]string{}
	write("specs/shop.yaml", 0o600, []byte("apiVersion: appmesh.k8s.aws/v1beta2\nkind: Mesh\nmetadata: {name: shop}\nspec: {}\n"))
	for _, s := range services {
		envoy, err := json.Marshal(s.frozen())
		if err != nil {
			t.Fatal(err)
		}
		write(s.name+".json", 0o600, envoy)
		write("specs/"+s.name+".yaml", 0o600, []byte(s.spec()))
		names += fmt.Sprintf("%s %s\n", s.name, s.old)
		calls[s.name] = append([]string{}, s.calls...)
	}
	text, err := json.Marshal(calls)
	if err != nil {
		t.Fatal(err)
	}
	write("bin/calls.json", 0o600, text)
	for _, program := range []string{"app", "name"} {
		write("bin/"+program, 0o700, []byte(read(t, "test", "docs", "testdata", "shop", program)))
	}
	write("names", 0o600, []byte(names))
	write("resolv.conf", 0o600, []byte("nameserver "+parts.ThisHost+"\n"))
	// This process and its children are in a mount namespace of their own.
	if err := unix.Mount(filepath.Join(dir, "resolv.conf"), "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	parts.Nameserver(t, netip.MustParseAddrPort(parts.ThisHost+":53"), func(name string, q dnsmessage.Type) (netip.Addr, bool) {
		addr, err := address(dir, strings.TrimSuffix(name, ".shop.internal."))
		return addr, err == nil || q != dnsmessage.TypeA
	})
	return dir
}

// address is where the name of a service leads now.
func address(dir, service string) (netip.Addr, error) {
	names, err := os.ReadFile(filepath.Join(dir, "names"))
	if err != nil {
		return netip.Addr{}, err
	}
	for line := range strings.Lines(string(names)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == service {
			return netip.ParseAddr(f[1])
		}
	}
	return netip.Addr{}, fmt.Errorf("the name of %s leads nowhere", service)
}

// shopScript starts the shop as it was, and then does what the page says. After each step it waits for
// calls that began after it.
func shopScript(services []shopService, steps []step, dir string, last int) string {
	script := &strings.Builder{}
	on := func(host, commands string) {
		if n := strings.Index("abc", host) + 1; n > 1 {
			commands = fmt.Sprintf("(cd ../%s; %s bash -euo pipefail <<'END OF %[1]s'\n%[3]s\nEND OF %[1]s\n)\n", host, parts.OnHost(n), commands)
		}
		script.WriteString(commands)
	}
	fmt.Fprintf(script, "mkdir a b c; cp -r %s/specs a/specs; cd a; ip addr add 10.231.0.129/24 dev wire\n", dir)
	for _, s := range services {
		on(s.host, fmt.Sprintf("ip addr add %s/24 dev wire; ip addr add %s/24 dev wire\napp %s %s > /dev/null 2>&1 &\n", s.old, s.new, s.name, inside(s.old))+
			fmt.Sprintf("envoy --disable-hot-restart --concurrency 1 -l error -c %s/%s.json > /dev/null 2>&1 &\n", dir, s.name))
	}
	reach := func(step int) {
		fmt.Fprintf(script, "echo %d > %s/step\n", step, dir)
		for callee, until := range map[string]int{"web": len(steps), "stock": last} {
			if step == until {
				fmt.Fprintf(script, "until [ -e %s/%s.done ]; do sleep 0.05; done\n", dir, callee)
			}
		}
	}
	script.WriteString("until curl -sf http://web.shop.internal:8080/ > /dev/null; do sleep 0.2; done\n")
	for i, s := range steps {
		fmt.Fprintf(script, "\necho '@@@ %d'\n", i)
		reach(i)
		on(strings.TrimPrefix(s.script, "# on ")[:1], s.script)
		for callee, until := range map[string]int{"web": len(steps), "stock": last} {
			if i < until {
				fmt.Fprintf(script, "n=$(wc -c < %[1]s/%[2]s.calls)\nuntil [ \"$(wc -c < %[1]s/%[2]s.calls)\" -gt $((n + 1)) ]; do sleep 0.05; done\n", dir, callee)
			}
		}
	}
	reach(len(steps))
	return script.String()
}

// shopCaller calls a service where its name leads, from an address, until a step of the page.
type shopCaller struct {
	t            *testing.T
	dir          string
	callee, from string
	until        int
}

// run calls until then, or until ctx ends. A call that fails is an error of the step in which it does; each that
// does not is a byte more in a file of its own.
func (c shopCaller) run(ctx context.Context) {
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.from), 0))}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: dialer.DialContext}}
	defer client.CloseIdleConnections()
	done, err := os.Create(filepath.Join(c.dir, c.callee+".calls"))
	if err != nil {
		c.t.Error(err)
		return
	}
	defer func() { _ = done.Close() }() // nobody reads it any more
	for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		text, err := os.ReadFile(filepath.Join(c.dir, "step"))
		now, parseErr := strconv.Atoi(strings.TrimSpace(string(text)))
		if errors.Join(err, parseErr) != nil {
			continue // the shop is not open yet
		}
		if now >= c.until { // what comes now is not for this caller
			if err := os.WriteFile(filepath.Join(c.dir, c.callee+".done"), nil, 0o600); err != nil {
				c.t.Error(err)
			}
			return
		}
		if err := c.call(ctx, client); err != nil && ctx.Err() == nil {
			c.t.Errorf("in step %d, a call to %s: %v", now, c.callee, err)
		}
		_, _ = done.WriteString(".") // a call that is missing stops the page
	}
}

func (c shopCaller) call(ctx context.Context, client *http.Client) error {
	at, err := address(c.dir, c.callee)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at.String()+":8080/", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return err
}

// What the page's shop has not is said beside it: a gateway, a service of tcp, a router, another path of
// health checks, by which its waits would not end.
func TestThePageOfTheDaySaysHowWhatItsShopHasNotMoves(t *testing.T) {
	page := read(t, "docs", "MIGRATE.md")
	for _, want := range []string{"`virtualGateway: NAME`", "`virtual_gateway`", "`VirtualGatewayOptions`", "`signet routes NAME:PORT --from CALLER`", "**A router with weights**", "Health checks by another path", "**A wait that does not end**"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in it", want)
		}
	}
}
