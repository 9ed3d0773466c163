package server

import (
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"signet.example/attestation/nodes"
	"signet.example/identity"
	"signet.example/internal/manifest"
	"signet.example/server/cloudmap"
	"signet.example/server/signer"
)

// Config is the server's configuration, decoded strictly from one YAML file over
// DefaultConfig. Every key has a working default except data_dir.
type Config struct {
	// TrustDomain must be the one the CA was made for; empty takes the CA's.
	TrustDomain string `yaml:"trust_domain" json:"trust_domain"`
	// DataDir is what `signet init` made: store, sockets, and the CA unless
	// Signer is elsewhere.
	DataDir string `yaml:"data_dir" json:"data_dir"`
	// Listen is the TCP address that agents connect to. Port 0 takes a free one.
	Listen string `yaml:"listen" json:"listen"`
	// Metrics is the address of /metrics, /healthz and /readyz; empty turns them
	// off. It must be a loopback address: there is no authentication on it.
	Metrics string `yaml:"metrics" json:"metrics"`
	// AdminSocket is the operator's Unix socket, <data_dir>/admin.sock by default.
	AdminSocket string `yaml:"admin_socket" json:"admin_socket"`
	// PasswordFile opens the CA's key files, <data_dir>/password by default.
	PasswordFile string `yaml:"password_file" json:"password_file"`
	// Signer is the socket, unix:/path, of a signer that is a service of its own
	// user. Empty has the server start one as its child, which is as safe as the
	// server itself.
	Signer string `yaml:"signer" json:"signer"`
	// SignerUser, a name or a uid, must be at the other end of that socket, or
	// root. Whoever is taken for the signer is the certificate authority.
	SignerUser string `yaml:"signer_user" json:"signer_user"`
	// AcceptLog is the one refusal of the signer's issuance log that the operator
	// accepts, for one start: it is a flag and no key of the file.
	AcceptLog string `yaml:"-" json:"-"`
	// Name is the last segment of this server's SPIFFE ID, "server" by default.
	Name string `yaml:"name" json:"name"`
	// Lifetimes of what is issued.
	Lifetimes Lifetimes `yaml:"lifetimes" json:"lifetimes"`
	// EndpointGrace is how long the endpoints of an agent that went away are
	// still served: an agent or server restart is not a reason to cut traffic.
	EndpointGrace time.Duration `yaml:"endpoint_grace" json:"endpoint_grace"`
	// RequirePostQuantum names the meshes whose proxies refuse a TLS connection
	// without X25519MLKEM768, in either direction.
	RequirePostQuantum []string `yaml:"require_post_quantum" json:"require_post_quantum"`
	// PolicyGit is how to log in at private policy repositories.
	PolicyGit []PolicyGit `yaml:"policy_git" json:"policy_git"`
	// CloudMap is the AWS Cloud Map that is asked for instances of virtual nodes of which
	// no agent registers an endpoint. Without a region none is.
	CloudMap cloudmap.Where `yaml:"cloud_map" json:"cloud_map"`
	// Join is by which evidence of their own hosts may join, beside join tokens.
	Join nodes.Config `yaml:"join" json:"join"`
	// Retention of what would else only grow.
	Retention Retention `yaml:"retention" json:"retention"`
}

// Retention says how long rows of the store are kept. What goes leaves a row in
// the audit trail.
type Retention struct {
	// Audit is for the audit trail, and for join tokens that ended.
	Audit time.Duration `yaml:"audit" json:"audit"`
	// Changes is for old versions of applied objects. The objects stay.
	Changes time.Duration `yaml:"changes" json:"changes"`
}

// minRetention is long enough for whoever looks on the next day.
const minRetention = 24 * time.Hour

// Lifetimes of certificates, counted from issuance.
type Lifetimes struct {
	// SVID of a workload whose entry names no ttl.
	SVID time.Duration `yaml:"svid" json:"svid"`
	// Agent is that of agents' own SVIDs.
	Agent time.Duration `yaml:"agent" json:"agent"`
}

// Bounds of a lifetime: below, nobody can renew in time; above, it is no
// short-lived certificate any more and the signer refuses it.
const (
	minLifetime = 5 * time.Second
	maxLifetime = 24 * time.Hour
)

// anyTrustDomain stands where a name is tried that none decides about.
var anyTrustDomain = spiffeid.RequireTrustDomainFromString("example.org")

var nameRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// DefaultConfig has every default filled in except DataDir and what follows from it.
func DefaultConfig() Config {
	return Config{
		Listen:        "127.0.0.1:8443",
		Metrics:       "127.0.0.1:9464",
		Name:          "server",
		Lifetimes:     Lifetimes{SVID: time.Hour, Agent: time.Hour},
		EndpointGrace: time.Minute,
		Retention:     Retention{Audit: 400 * 24 * time.Hour, Changes: 30 * 24 * time.Hour},
	}
}

// Complete fills in what follows from other keys and every default that is still
// empty, but Metrics, where empty means off.
func (c Config) Complete() Config {
	d := DefaultConfig()
	fill := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	c.CloudMap = c.CloudMap.Complete()
	fill(&c.Listen, d.Listen)
	fill(&c.Name, d.Name)
	if c.DataDir != "" {
		fill(&c.AdminSocket, filepath.Join(c.DataDir, "admin.sock"))
		if c.Signer == "" {
			fill(&c.PasswordFile, signer.Folder(c.DataDir).Password())
		}
	}
	for _, f := range []struct{ at, def *time.Duration }{
		{&c.Lifetimes.SVID, &d.Lifetimes.SVID},
		{&c.Lifetimes.Agent, &d.Lifetimes.Agent},
		{&c.EndpointGrace, &d.EndpointGrace},
		{&c.Retention.Audit, &d.Retention.Audit},
		{&c.Retention.Changes, &d.Retention.Changes},
	} {
		if *f.at == 0 {
			*f.at = *f.def
		}
	}
	return c
}

// signer is where the signer is.
func (c Config) signer() signer.Where {
	return signer.Where{Socket: c.Signer, User: c.SignerUser, DataDir: c.DataDir, PasswordFile: c.PasswordFile}
}

// requiresPostQuantum reports whether proxies of a mesh refuse other key exchanges.
func (c Config) requiresPostQuantum(mesh string) bool {
	return slices.Contains(c.RequirePostQuantum, mesh)
}

// Validate reports everything that is wrong with a completed configuration.
func (c Config) Validate() error {
	var errs manifest.Errors
	bad := func(key, format string, args ...any) {
		errs = append(errs, &manifest.Error{Field: key, Msg: fmt.Sprintf(format, args...)})
	}
	lacks := func(lacking, key, format string, args ...any) {
		errs = append(errs, &manifest.Error{Field: key, Msg: fmt.Sprintf(format, args...), Lacks: lacking})
	}
	if c.DataDir == "" {
		lacks("data_dir", "data_dir", "missing: name the directory that `signet init` made")
	}
	if c.TrustDomain != "" {
		if _, err := spiffeid.TrustDomainFromString(c.TrustDomain); err != nil {
			bad("trust_domain", "%v", err)
		}
	}
	if why := badAddress(c.Listen); why != "" {
		bad("listen", "%q: %s; want ADDRESS:PORT, such as 127.0.0.1:8443 for this host alone, or :8443 for all of its addresses", c.Listen, why)
	}
	if c.Metrics != "" && !loopbackAddress(c.Metrics) {
		bad("metrics", "%q is not an address of the loopback interface, and the endpoint has no authentication", c.Metrics)
	}
	if path, ok := strings.CutPrefix(c.Signer, "unix:"); c.Signer != "" && (!ok || !filepath.IsAbs(path)) {
		bad("signer", "%q: want unix: and an absolute path", c.Signer)
	}
	if c.Signer != "" && c.PasswordFile != "" {
		bad("password_file", "it is for the signer alone, which has a configuration of its own")
	}
	if c.Signer != "" && c.SignerUser == "" {
		lacks("signer_user", "signer_user", "missing: name the user that the signer runs as, or any user could be taken for it")
	}
	if c.Signer == "" && c.SignerUser != "" {
		lacks("signer", "signer_user", "it needs the key signer, which names the socket of the signer whose user is checked")
	}
	if !nameRE.MatchString(c.Name) {
		bad("name", "%q: lower-case letters, digits and dashes, at most 63", c.Name)
	}
	for _, l := range []struct {
		key string
		d   time.Duration
	}{{"lifetimes.svid", c.Lifetimes.SVID}, {"lifetimes.agent", c.Lifetimes.Agent}} {
		if l.d < minLifetime || l.d > maxLifetime {
			bad(l.key, "%s is not between %s and %s", l.d, minLifetime, maxLifetime)
		}
	}
	for i, mesh := range c.RequirePostQuantum {
		if _, err := identity.ForVirtualNode(anyTrustDomain, mesh, "node"); err != nil {
			bad(fmt.Sprintf("require_post_quantum[%d]", i), "%q is not the name of a mesh: %v", mesh, err)
		}
	}
	for _, r := range []struct {
		key string
		d   time.Duration
	}{{"retention.audit", c.Retention.Audit}, {"retention.changes", c.Retention.Changes}} {
		if r.d < minRetention {
			bad(r.key, "%s is less than %s", r.d, minRetention)
		}
	}
	for i, g := range c.PolicyGit {
		if err := g.validate(); err != nil {
			bad(fmt.Sprintf("policy_git[%d]", i), "%v", err)
		}
	}
	if key, why := c.CloudMap.Validate(); key != "" {
		bad("cloud_map."+key, "%s", why)
	}
	if c.EndpointGrace < 0 {
		bad("endpoint_grace", "%s is negative", c.EndpointGrace)
	}
	return errs.OrNil()
}

// badAddress is why nothing could listen on host:port, on whatever machine; "" for nothing.
func badAddress(hostport string) string {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return strings.TrimPrefix(err.Error(), "address "+hostport+": ")
	}
	if n, err := strconv.Atoi(port); port == "" || err == nil && (n < 0 || n > 65535) {
		return fmt.Sprintf("%q is no port", port)
	}
	if _, err := parseAddr(host); err != nil && strings.Trim(host, "0123456789.") == "" && host != "" {
		return fmt.Sprintf("%q is no address", host) // nor a name that could be looked up
	}
	return ""
}

// loopbackAddress reports whether host:port is an address of this machine's own.
func loopbackAddress(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return false
	}
	a, err := parseAddr(host)
	return err == nil && a.IsLoopback()
}

// dataDir names the files under Config.DataDir, in one place.
type dataDir string

func (d dataDir) store() string     { return filepath.Join(string(d), "store.db") }
func (d dataDir) addresses() string { return filepath.Join(string(d), "addresses.json") }
func (d dataDir) endpoints() string { return filepath.Join(string(d), "endpoints.json") }
func (d dataDir) awaited() string   { return filepath.Join(string(d), "awaited.json") }
func (d dataDir) issuers() string   { return filepath.Join(string(d), "issuers.json") }
func (d dataDir) cloudMap() string  { return filepath.Join(string(d), "cloudmap.json") }
func (d dataDir) refused() string   { return filepath.Join(string(d), "refused.json") }
func (d dataDir) git() string       { return filepath.Join(string(d), "git") }
