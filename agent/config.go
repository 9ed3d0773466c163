package agent

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/agent/dns"
	"signet.example/agent/files"
	"signet.example/agent/join"
	"signet.example/agent/local"
	"signet.example/agent/readonly"
	"signet.example/agent/tlsfiles"
	"signet.example/attestation/ecstask"
	"signet.example/attestation/nodes"
	"signet.example/internal/child"
	"signet.example/internal/manifest"
	"signet.example/proxy"
)

// Config is the agent's configuration: one YAML file, decoded strictly by cmd,
// or none. Every field has a working zero value except Server and the join
// token of the first start.
type Config struct {
	// Server is the control plane's agent address, host:port.
	Server string `yaml:"server"`
	// Mode is what is attested of who comes to the sockets: processes of a host, or one
	// task as a whole. Default ModeHost.
	Mode Mode `yaml:"mode"`
	// TrustDomain that the server must belong to; learned from the join where empty.
	TrustDomain string `yaml:"trust_domain"`
	// TokenFile holds the join token, "-" is standard input. Where it is empty,
	// the environment's SIGNET_TOKEN is read.
	TokenFile string `yaml:"token_file"`
	// Join is by which evidence of its own this host joins, where it has no token.
	Join nodes.HostConfig `yaml:"join"`
	// Trust is a file with the trust domain's root, in PEM: whom a host believes that
	// joins without a token. A token brings the root's pin with it, and must agree.
	Trust string `yaml:"trust"`
	// TrustPEM is the same as text, where there are no files.
	TrustPEM string `yaml:"trust_pem"`
	// DataDir holds what this host is known by after a restart: its host key, agent
	// id and root set. No other host may have a copy. Default /var/lib/signet-agent
	// for root, else signet-agent under XDG_STATE_HOME or ~/.local/state.
	DataDir string `yaml:"data_dir"`
	// SocketDir holds the sockets that workloads and proxies talk to, and what
	// the agent generates for its proxies. Default /run/signet.
	SocketDir string `yaml:"socket_dir"`
	// Metrics is where /metrics and /healthz listen, without authentication: an
	// address that others reach is warned of. Empty turns them off; DefaultConfig has
	// 127.0.0.1:9465. Port 0 takes a free one, which addresses.json in SocketDir has.
	Metrics string `yaml:"metrics"`
	// Envoy is the program that supervised proxies run. Default "envoy" from PATH.
	Envoy string `yaml:"envoy"`
	// AccessLogDir is the folder in which proxies may write the access logs that
	// the mesh declares, beside their own output. Default: none.
	AccessLogDir string `yaml:"access_log_dir"`
	// DrainTime is how long a stopping proxy goes on, and at most as long again while a
	// proxy that calls it may still do so. Default 5s.
	DrainTime time.Duration `yaml:"drain_time"`
	// DrainRequests is how long, after that, it may take to answer what is in flight.
	// Default 15s, App Mesh's default timeout of a request.
	DrainRequests time.Duration `yaml:"drain_requests"`
	// StopTimeout is when a task's containers are killed that were told to stop. Default 30s,
	// in a task.
	StopTimeout time.Duration `yaml:"stop_timeout"`
	// Authz is about the process that decides.
	Authz AuthzOptions `yaml:"authz"`
	// RefuseLegacyPeers has the agent serve nobody on a kernel before 6.5, which
	// holds local peers by pid and not by the process itself (attestation.ModeLegacy).
	RefuseLegacyPeers bool `yaml:"refuse_legacy_peers"`
	// IgnoreECSMetadata has a task ask ECS nothing of itself: it has no selectors by that.
	IgnoreECSMetadata bool         `yaml:"ignore_ecs_metadata"`
	platform          ecstask.Task `yaml:"-"`
	// ProxyUser is the user of proxies that name none: a name, a uid or uid:gid.
	// Default: the agent's own, unless that is root.
	ProxyUser string `yaml:"proxy_user"`
	// Proxies that the agent starts and supervises.
	Proxies []Proxy `yaml:"proxies"`
	// AppMesh is where an Envoy is that App Mesh's own agent starts: its bootstrap does not say.
	AppMesh proxy.Where `yaml:"app_mesh"`

	// Files is where identities may be kept in files, and whose. Default: nowhere.
	Files  files.Config `yaml:"files"`
	owners []child.User `yaml:"-"` // of Files

	// DNS is the agent's name server. Default: none.
	DNS dns.Config `yaml:"dns"`
	// LogLevel is debug, info, warn or error; the flag and the environment win.
	LogLevel string `yaml:"log_level"`

	// Reload, where it is set, runs as long as the agent does. It calls apply, by one
	// goroutine at a time, with a configuration that was read again: a refused one
	// changes nothing.
	Reload func(ctx context.Context, apply func(Config) error) `yaml:"-"`
	// Version is what `signet get agents` shows.
	Version string `yaml:"-"`
	// Executable is the signet program, re-executed as `signet authz`. Default: the running one.
	Executable string `yaml:"-"`
}

// AuthzOptions is about the authz process.
type AuthzOptions struct {
	// User it runs as: a name, a uid or uid:gid. Default: the agent's own.
	User string `yaml:"user"`
	// UID and GID are another way to say it.
	UID *uint32     `yaml:"uid"`
	GID *uint32     `yaml:"gid"`
	as  *child.User // of these; nil is the agent's own
	// MemoryLimit in MiB that its collector keeps it under. Default 512.
	MemoryLimit int64 `yaml:"memory_limit"`
}

// Proxy is one Envoy that the agent runs for a virtual node or gateway.
type Proxy struct {
	// Name is the proxy's own; a Binding knows it by the selector signet:proxy:<name>. In a
	// task by default the name of its virtual node or gateway.
	Name        string `yaml:"name"`
	Mesh        string `yaml:"mesh"`
	VirtualNode string `yaml:"virtual_node"`
	// VirtualGateway stands in the place of VirtualNode. There is no application behind
	// a gateway: App and Egress… are left out.
	VirtualGateway string `yaml:"virtual_gateway"`
	// User that this Envoy runs as, another than authz's. Default: ProxyUser.
	User string      `yaml:"user"`
	as   *child.User // of User; nil is the agent's own
	// Bind is the IP address of its listeners, a loopback or host address other
	// than App: both serve the same ports. In a task by default the task's own.
	Bind string `yaml:"bind"`
	// App is the IP address of the application behind it, or unix:/folder/{port}.sock
	// where it listens on a Unix socket for each port. Default 127.0.0.1.
	App string `yaml:"app"`
	// Egress is where the application sends its own calls, ADDRESS:PORT or
	// unix:/path. Whoever can connect there calls as this proxy, so that it is a
	// loopback address: Bind by default where that is one, else 127.0.0.1; port 15001.
	Egress string `yaml:"egress"`
	// EgressMode is that of a Unix socket: "0660", the default, for the proxy's user
	// and the group of the socket's folder, or "0600".
	EgressMode string `yaml:"egress_mode"`
	// EgressPort is the port of the default Egress, instead of Egress.
	EgressPort int `yaml:"egress_port"`
	// EgressOpen lets Egress be an address that other hosts reach, which is warned
	// of. Who calls from there is let out only by applications: [anyone].
	EgressOpen bool `yaml:"egress_open"`
	// ServiceAddresses has the application find each backend at its service's own loopback
	// address, too, where the mesh gives services some. Egress is then no Unix socket.
	ServiceAddresses bool `yaml:"service_addresses"`
	// Capture is what reaches it by redirection (`signet redirect`, or proxyConfiguration of
	// ECS). Default: nothing.
	Capture proxy.Capture `yaml:"capture"`
	// Concurrency is the number of Envoy's workers. Default 2.
	Concurrency int `yaml:"concurrency"`
	// TLSDirs are the folders of this host from which the proxy may have the certificates,
	// keys and authorities that its mesh names by their files. Default: none.
	TLSDirs []tlsfiles.Dir `yaml:"tls_dirs"`
	// Admin is the Unix socket of Envoy's admin interface, under SocketDir.
	// Default <SocketDir>/proxies/<name>/admin.sock.
	Admin string `yaml:"admin"`
	// AdminReadOnly is an address of loopback and a port, as 127.0.0.1:9901, App Mesh's, where three paths
	// of it can be read (package readonly). Default: none.
	AdminReadOnly string `yaml:"admin_read_only"`
}

const (
	defaultMetrics  = "127.0.0.1:9465"
	defaultDrain    = 5 * time.Second
	defaultRequests = 15 * time.Second
	defaultAuthzMiB = 512
)

// DefaultConfig is what a configuration file is read over. It has what an empty
// value would not mean; withDefaults fills the rest.
func DefaultConfig() Config { return Config{Metrics: defaultMetrics} }

// withDefaults fills what was left out.
func (c Config) withDefaults() Config {
	c.Mode = cmp.Or(c.Mode, ModeHost)
	c.DataDir = cmp.Or(c.DataDir, c.Mode.dataDir())
	c.SocketDir = cmp.Or(c.SocketDir, local.SocketDir)
	c.Envoy = cmp.Or(c.Envoy, "envoy")
	c = c.withStop()
	c.DrainTime = cmp.Or(c.DrainTime, defaultDrain)
	c.DrainRequests = cmp.Or(c.DrainRequests, defaultRequests)
	c.Authz.MemoryLimit = cmp.Or(c.Authz.MemoryLimit, c.Mode.authzMiB())
	proxies := make([]Proxy, len(c.Proxies))
	for i, p := range c.Proxies {
		p.User = cmp.Or(p.User, c.ProxyUser)
		if c.Mode.task() {
			p.Name = cmp.Or(p.Name, p.VirtualNode, p.VirtualGateway)
		}
		if p.VirtualGateway == "" {
			p.App = cmp.Or(p.App, "127.0.0.1")
		}
		p.Concurrency = cmp.Or(p.Concurrency, 2)
		p.Admin = cmp.Or(p.Admin, filepath.Join(c.SocketDir, proxiesDir, p.Name, "admin.sock"))
		proxies[i] = p
	}
	c.Proxies = proxies
	return c
}

// Validate reports everything that is wrong with c after defaults, each error
// beginning with the key it is about.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs manifest.Errors
	refuse := func(key, format string, args ...any) {
		errs = append(errs, &manifest.Error{Field: key, Msg: fmt.Sprintf(format, args...)})
	}
	lacks := func(key, format string, args ...any) {
		errs = append(errs, &manifest.Error{Field: key, Msg: fmt.Sprintf(format, args...), Lacks: key})
	}
	if _, port, err := net.SplitHostPort(c.Server); c.Server == "" {
		lacks("server", "is missing: the server's address, host:port")
	} else if err != nil || port == "" {
		refuse("server", "want host:port, got %q", c.Server)
	}
	if c.TrustDomain != "" {
		if _, err := spiffeid.TrustDomainFromString(c.TrustDomain); err != nil {
			refuse("trust_domain", "%v", err)
		}
	}
	c.Mode.validate(c, refuse)
	if err := c.AppMesh.Validate(); err != nil {
		refuse("app_mesh", "%v", err)
	}
	c.validateJoin(refuse, lacks)
	if field, err := c.DNS.Validate(); err != nil {
		refuse("dns."+field, "%v", err)
	}
	c.Files.Validate(func(key, format string, args ...any) { refuse("files."+key, format, args...) }, c.DataDir, c.SocketDir)
	if host, _, err := net.SplitHostPort(c.Metrics); c.Metrics != "" && (err != nil || host == "") {
		refuse("metrics", "want host:port, got %q: 127.0.0.1 is for this host alone, 0.0.0.0 for everyone who reaches it", c.Metrics)
	}
	if !filepath.IsAbs(c.DataDir) {
		refuse("data_dir", "want an absolute path, got %q", c.DataDir)
	}
	if !filepath.IsAbs(c.SocketDir) {
		refuse("socket_dir", "want an absolute path, got %q", c.SocketDir)
	}
	if s := filepath.Join(c.SocketDir, workloadSocket); len(s) > proxy.MaxSocketPath {
		refuse("socket_dir", "%q is longer than a socket's path may be (%d)", s, proxy.MaxSocketPath)
	}
	if c.AccessLogDir != "" && !proxy.ValidLogDir(c.AccessLogDir) {
		refuse("access_log_dir", "want the absolute path of a folder for logs, without . and .., got %q", c.AccessLogDir)
	}
	if err := new(slog.Level).UnmarshalText([]byte(cmp.Or(c.LogLevel, "info"))); err != nil {
		refuse("log_level", "want debug, info, warn or error, got %q", c.LogLevel)
	}
	if c.DrainTime < 0 {
		refuse("drain_time", "is negative")
	}
	if c.DrainRequests < 0 {
		refuse("drain_requests", "is negative")
	}
	c.validateStop(refuse)
	if c.Authz.MemoryLimit < 32 {
		refuse("authz.memory_limit", "want at least 32 (MiB), got %d", c.Authz.MemoryLimit)
	}
	if c.Authz.User != "" && (c.Authz.UID != nil || c.Authz.GID != nil) {
		refuse("authz.user", "is given beside authz.uid or authz.gid: leave one of them out")
	}
	names, egress := map[string]bool{}, map[proxy.Egress]string{}
	for i, p := range c.Proxies {
		key := fmt.Sprintf("proxies[%d]", i)
		if p.Name != "" && names[p.Name] {
			refuse(key+".name", "%q is there twice", p.Name)
		}
		names[p.Name] = true
		for _, o := range c.Proxies[:i] {
			if sameAddress(o.Bind, p.Bind) && o.ref() == p.ref() {
				refuse(key+".bind", "proxies %q and %q are both %s on %s: each would get a part of the calls on the same ports; give one another address",
					o.Name, p.Name, p.ref().String(), p.Bind)
			}
		}
		if at, err := p.egress(); err == nil && at != (proxy.Egress{}) {
			if other, taken := egress[at]; taken {
				refuse(key+".egress", "proxies %q and %q have the same one, %s: calls of one would leave as the other; give one another egress, or egress_port", other, p.Name, at)
			}
			egress[at] = p.Name
		}
		if p.AdminReadOnly != "" && slices.ContainsFunc(c.Proxies[:i], func(o Proxy) bool { return o.AdminReadOnly == p.AdminReadOnly }) {
			refuse(key+".admin_read_only", "%s is another proxy's: give each a port of its own", p.AdminReadOnly)
		}
		for _, field := range []struct{ key, value string }{{"name", p.Name}, {"mesh", p.Mesh}, {"virtual_node", cmp.Or(p.VirtualNode, p.VirtualGateway)}, {"bind", p.Bind}} {
			if field.value == "" && (field.key != "bind" || !c.Mode.task()) {
				lacks(key+"."+field.key, "is missing")
			}
		}
		for j, d := range p.TLSDirs {
			if err := d.Validate(c.DataDir, c.SocketDir); err != nil {
				refuse(fmt.Sprintf("%s.tls_dirs[%d]", key, j), "%v", err)
			}
		}
		p.validate(c.SocketDir, func(field, format string, args ...any) {
			refuse(key+"."+field, format, args...)
		})
	}
	return errs.OrNil()
}

// ways are by what the host is to join.
func (c Config) ways() join.Ways {
	return join.Ways{TokenFile: c.TokenFile, Own: c.Join, Trust: c.Trust, TrustPEM: c.TrustPEM}
}

// validateJoin checks by what the host is to join.
func (c Config) validateJoin(refuse, lacks func(key, format string, args ...any)) {
	switch own := c.Join.Given(); {
	case c.Trust != "" && c.TrustPEM != "":
		refuse("trust_pem", "is given beside trust: leave one of them out")
	case own == "":
	case c.TokenFile != "":
		refuse("join."+own, "is given beside token_file: leave one of them out")
	case c.Trust == "" && c.TrustPEM == "":
		lacks("trust", "is missing: it names the file with the trust domain's root, which a host that joins without a token has from nowhere else")
	}
}

func sameAddress(a, b string) bool {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	return errX == nil && errY == nil && x.Unmap() == y.Unmap()
}

// ref is what the proxy runs for.
func (p Proxy) ref() proxy.Ref {
	return proxy.For(p.Mesh, cmp.Or(p.VirtualGateway, p.VirtualNode), p.VirtualGateway != "")
}

// egress is where the outbound listener listens, the zero Egress of a gateway, which has none.
func (p Proxy) egress() (proxy.Egress, error) {
	if p.VirtualGateway != "" {
		return proxy.Egress{}, nil
	}
	if p.Egress != "" {
		return proxy.ParseEgress(p.Egress, p.EgressMode)
	}
	return proxy.EgressPort(p.Bind, uint16(cmp.Or(p.EgressPort, int(p.Capture.Egress), proxy.DefaultEgressPort))), nil //nolint:gosec // validateEgress
}

func (p Proxy) validateEgress(refuse func(field, format string, args ...any)) {
	at, err := p.egress()
	if err == nil {
		err = at.Validate(p.EgressOpen)
	}
	switch {
	case p.Egress != "" && p.EgressPort != 0:
		refuse("egress_port", "egress is %s and has a port already: leave egress_port out", p.Egress)
	case p.EgressPort < 0 || p.EgressPort > math.MaxUint16:
		refuse("egress_port", "want 1 to 65535, got %d", p.EgressPort)
	case p.Egress == "" && p.EgressMode != "":
		refuse("egress_mode", "is for an egress on a Unix socket, and there is none")
	case err != nil:
		refuse("egress", "%v", err)
	case p.ServiceAddresses && at.Socket != "":
		refuse("service_addresses", "egress is %s, whose mode says who may call out; an address has none: give egress a loopback address, or leave service_addresses out", at)
	}
}

// validateGateway refuses what is of an application.
func (p Proxy) validateGateway(refuse func(field, format string, args ...any)) {
	if p.VirtualNode != "" {
		refuse("virtual_gateway", "is given beside virtual_node: a proxy runs for one of them")
	}
	for _, field := range []struct {
		key   string
		given bool
	}{
		{"app", p.App != ""},
		{"egress", p.Egress != ""},
		{"egress_mode", p.EgressMode != ""},
		{"egress_port", p.EgressPort != 0},
		{"egress_open", p.EgressOpen},
		{"service_addresses", p.ServiceAddresses},
		{"capture", p.Capture != proxy.Capture{}},
	} {
		if field.given {
			refuse(field.key, "is of a virtual node: there is no application behind a virtual gateway; leave it out")
		}
	}
}

func (p Proxy) validate(socketDir string, refuse func(field, format string, args ...any)) {
	if p.Name != "" && !proxy.ValidName(p.Name) {
		refuse("name", "want 1 to 63 letters, digits, '.', '_' or '-', got %q", p.Name)
	}
	if _, err := netip.ParseAddr(p.Bind); p.Bind != "" && err != nil {
		refuse("bind", "want an IP address, got %q", p.Bind)
	}
	if p.VirtualGateway != "" {
		p.validateGateway(refuse)
	} else {
		if _, err := proxy.ParsePlace(p.App); err != nil {
			refuse("app", "%v", err)
		}
		if p.Bind == p.App {
			refuse("bind", "%s is the application's address too: the proxy would call itself", p.Bind)
		}
		p.validateEgress(refuse)
		if at, err := p.egress(); err == nil {
			if err := (proxy.Shape{Egress: at, Capture: p.Capture}).ValidCapture(); err != nil {
				refuse("capture", "%v", err)
			}
		}
	}
	if err := readonly.ValidAddress(p.AdminReadOnly); p.AdminReadOnly != "" && err != nil {
		refuse("admin_read_only", "%v", err)
	}
	if p.Concurrency < 1 {
		refuse("concurrency", "want at least 1, got %d", p.Concurrency)
	}
	rel, err := filepath.Rel(socketDir, p.Admin)
	switch {
	case err != nil || rel == ".." || strings.HasPrefix(rel, "../"):
		refuse("admin", "%q is not under socket_dir %q", p.Admin, socketDir)
	case len(p.Admin) > proxy.MaxSocketPath:
		refuse("admin", "%q is longer than a socket's path may be (%d)", p.Admin, proxy.MaxSocketPath)
	}
}
