package k8spsat

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"signet.example/attestation/platform"
	"signet.example/identity"
	"signet.example/internal/private"
)

const (
	maxClusters = 16 // each has keys by which a token may have to be verified
	maxAccounts = 256
	maxKeys     = 1 << 20 // bytes of a file of keys
)

// Config is the server's end, as configured. Without clusters the method is off.
type Config struct {
	Clusters []Cluster `yaml:"clusters" json:"clusters"`
	// AgentsPerServiceAccount is how many agents may be there at a time that joined by one service
	// account; 5,000 where it is not given.
	AgentsPerServiceAccount int `yaml:"agents_per_service_account" json:"agents_per_service_account"`
}

// Cluster is a cluster of Kubernetes whose pods may join.
type Cluster struct {
	// Name is by what selectors name it.
	Name string `yaml:"name" json:"name"`
	// Issuer is the API server's --service-account-issuer, as tokens have it.
	Issuer string `yaml:"issuer" json:"issuer"`
	// KeysURL is where its key set is fetched; KeysFile is it in a file, read at the start.
	KeysURL  string `yaml:"keys_url" json:"keys_url"`
	KeysFile string `yaml:"keys_file" json:"keys_file"`
	// ServiceAccounts whose pods may join, as namespace/name.
	ServiceAccounts []string `yaml:"service_accounts" json:"service_accounts"`
}

// Most is how many agents a service account may have.
func (c Config) Most() int { return cmp.Or(c.AgentsPerServiceAccount, platform.DefaultAgents) }

// Takes returns why pods with these selectors are not let in any more that joined once: their
// service account is not named now.
func (c Config) Takes(selectors []string) error {
	cluster, account, _ := strings.Cut(strings.TrimPrefix(Principal(selectors), accountSelector), "/")
	if slices.ContainsFunc(c.Clusters, func(k Cluster) bool { return k.Name == cluster && slices.Contains(k.ServiceAccounts, account) }) {
		return nil
	}
	return fmt.Errorf("its service account %s is not among those of its cluster in join.%s.clusters of the server", identity.Abbreviate(account), Name)
}

// Issuers are those of the clusters. Files of keys are read now.
func (c Config) Issuers() ([]platform.Issuer, error) {
	var list []platform.Issuer
	for i, k := range c.Clusters {
		keys, err := k.keys()
		if err != nil {
			return nil, fmt.Errorf("clusters[%d].%w", i, err)
		}
		list = append(list, platform.Issuer{Name: "join." + Name + ":" + k.Name, URL: k.Issuer, Keys: k.KeysURL, JWKS: keys})
	}
	return list, nil
}

// Open checks the configuration; nil where the method is off. An error begins with the key.
func (c Config) Open(s platform.Server) (*Verifier, error) {
	if err := platform.CheckAgents(c.AgentsPerServiceAccount); err != nil {
		return nil, fmt.Errorf("agents_per_service_account: %w", err)
	}
	if len(c.Clusters) == 0 {
		return nil, nil
	}
	if n := len(c.Clusters); n > maxClusters {
		return nil, fmt.Errorf("clusters: %d of them: at most %d", n, maxClusters)
	}
	v := &Verifier{clusters: map[string]Cluster{}, server: s}
	for i, k := range c.Clusters {
		if err := k.check(); err != nil {
			return nil, fmt.Errorf("clusters[%d].%w", i, err)
		}
		if _, twice := v.clusters[k.Issuer]; twice {
			return nil, fmt.Errorf("clusters[%d].issuer: it is another cluster's, too: give each API server a --service-account-issuer of its own", i)
		}
		if slices.ContainsFunc(c.Clusters[:i], func(o Cluster) bool { return o.Name == k.Name }) {
			return nil, fmt.Errorf("clusters[%d].name: %s is there twice", i, k.Name)
		}
		v.clusters[k.Issuer] = k
	}
	var err error
	v.issuers, err = c.Issuers()
	return v, err
}

// Labels of DNS, as namespaces and clusters have; names of objects, which have points, too; uids.
var (
	labelRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	nameRE  = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
	uidRE   = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

func (k Cluster) check() error {
	if !labelRE.MatchString(k.Name) {
		return fmt.Errorf("name: %q: want up to 63 letters, digits and hyphens, such as prod", k.Name)
	}
	if k.Issuer == "" || len(k.Issuer) > 2048 || !identity.Printable(k.Issuer) {
		return fmt.Errorf("issuer: %s: want what the cluster's tokens have as iss: `kubectl get --raw /.well-known/openid-configuration` has it", identity.Abbreviate(k.Issuer))
	}
	if (k.KeysURL == "") == (k.KeysFile == "") {
		return errors.New("keys_url: want either it or keys_file: `kubectl get --raw /openid/v1/jwks` prints what belongs in the file")
	}
	if err := checkURL(k.KeysURL); k.KeysURL != "" && err != nil {
		return fmt.Errorf("keys_url: %w", err)
	}
	if n := len(k.ServiceAccounts); n == 0 || n > maxAccounts {
		return fmt.Errorf("service_accounts: %d of them: want 1 to %d, as namespace/name: whose pods may join", n, maxAccounts)
	}
	for i, a := range k.ServiceAccounts {
		if namespace, name, _ := strings.Cut(a, "/"); !labelRE.MatchString(namespace) || !nameRE.MatchString(name) {
			return fmt.Errorf("service_accounts[%d]: %q: want namespace/name, such as shop/web", i, a)
		}
	}
	return nil
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return fmt.Errorf("%q: want the URL of the cluster's key set, such as https://oidc.eks.eu-west-1.amazonaws.com/id/…/keys", s)
	}
	a, _ := netip.ParseAddr(u.Hostname())
	if u.Scheme != "https" && (u.Scheme != "http" || !a.IsLoopback()) {
		return fmt.Errorf("%q: it must be https: who sits on the wire would write the keys", s)
	}
	return nil
}

// keys reads the file of keys, nil where they are fetched.
func (k Cluster) keys() ([]byte, error) {
	if k.KeysFile == "" {
		return nil, nil
	}
	// Whoever can change it says who pods are.
	if err := private.Guarded(k.KeysFile, private.Self()); err != nil {
		return nil, fmt.Errorf("keys_file: %w", err)
	}
	f, err := os.Open(k.KeysFile)
	if err != nil {
		return nil, fmt.Errorf("keys_file: %w", err)
	}
	defer func() { _ = f.Close() }() // read only
	text, err := io.ReadAll(io.LimitReader(f, maxKeys+1))
	if err != nil {
		return nil, fmt.Errorf("keys_file: %w", err)
	}
	if n := len(text); n == 0 || n > maxKeys {
		return nil, fmt.Errorf("keys_file: %s: %d bytes: want 1 to %d", k.KeysFile, n, maxKeys)
	}
	return text, nil
}
