package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http/httpproxy"
	"golang.org/x/sync/errgroup"

	"signet.example/api"
	"signet.example/authz/jwt"
	"signet.example/internal/durable"
	"signet.example/internal/plain"
	"signet.example/internal/watched"
)

const (
	jwksDeadline = 5 * time.Second
	jwksMaxBytes = 1 << 20
	jwksRetry    = 10 * time.Second // after a failure, unless the refresh is sooner
	jwksParallel = 4
	keysPatience = 3 * time.Second // of whoever applies an issuer
)

// issuerKeys is what was last fetched for one JWTIssuer.
type issuerKeys struct {
	URL     string    `json:"url"`
	JWKS    []byte    `json:"jwks"`
	Fetched time.Time `json:"fetched"`

	next time.Time // when to fetch again
	err  string    // of the last attempt
	left []error   // keys of the set that are not used
}

// issuers keeps the public keys of end-user token issuers. Only the server
// fetches: agents and proxies need no way out, and what they trust is one thing.
// The last good keys are kept over failures and restarts; an issuer whose keys
// were never there is served without any, so that its tokens are refused: were
// it left out and no other there, tokens would not be looked at at all.
//
// Decision (A18): the URL was written by an operator over the admin socket, so a
// literal loopback or private address in it is meant. An address that a name
// resolves to is not: one of this host or of a metadata service (inside) is
// refused at the dial, or before a proxy is asked, as are redirects to another host.
type issuers struct {
	path     string
	model    func() *model
	changed  func()
	log      *slog.Logger
	clock    func() time.Time
	renew    watched.Signal
	failures *prometheus.CounterVec // by issuer

	saving sync.Mutex // held while the file is written; taken before mu

	mu   sync.Mutex             // guards keys and what they lead to
	keys map[string]*issuerKeys // by issuer
}

// load reads the last good keys; a file that cannot be read is only a cache lost.
func (i *issuers) load() error {
	b, err := os.ReadFile(i.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	keys := map[string]*issuerKeys{}
	if err == nil {
		err = json.Unmarshal(b, &keys)
	}
	if err != nil {
		return fmt.Errorf("last known issuer keys: %w", err)
	}
	for name, k := range keys {
		if k == nil || jwt.CheckKeys(k.JWKS) != nil {
			delete(keys, name)
		}
	}
	i.keys = keys
	return nil
}

// run fetches keys as they come due until ctx ends.
func (i *issuers) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-i.renew:
		case <-timer.C:
		}
		timer.Reset(i.refresh(ctx))
	}
}

// refresh fetches what is due, and returns in how long the next is.
func (i *issuers) refresh(ctx context.Context) time.Duration {
	var g errgroup.Group
	g.SetLimit(jwksParallel)
	list := i.model().issuers
	i.forget(list)
	for _, is := range list {
		if is.JWKSURL == "" || !i.due(is) {
			continue
		}
		g.Go(func() error {
			jwks, left, err := fetchJWKS(ctx, is.JWKSURL)
			i.learn(ctx, is, jwks, left, err)
			return nil
		})
	}
	_ = g.Wait() // learn has recorded each failure
	next := time.Hour
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, k := range i.keys {
		if !k.next.IsZero() {
			next = min(next, max(k.next.Sub(i.clock()), 100*time.Millisecond))
		}
	}
	return next
}

func (i *issuers) due(is jwt.Issuer) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	k := i.keys[is.Name]
	return k == nil || k.URL != is.JWKSURL || !k.next.After(i.clock())
}

// forget drops what the model no longer has.
func (i *issuers) forget(list []jwt.Issuer) {
	urls := map[string]string{}
	for _, is := range list {
		urls[is.Name] = is.JWKSURL
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for name, k := range i.keys {
		if urls[name] != k.URL { // keys of another URL vouch for nothing here
			delete(i.keys, name)
		}
	}
}

func (i *issuers) learn(ctx context.Context, is jwt.Issuer, jwks []byte, left []error, err error) {
	if i.learned(ctx, is, jwks, left, err) {
		i.save(ctx)
	}
}

// learned reports whether the keys that are served have changed.
func (i *issuers) learned(ctx context.Context, is jwt.Issuer, jwks []byte, left []error, err error) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	failures := i.failures.WithLabelValues(is.Name) // there from the first time, so that its first increase shows
	k := i.keys[is.Name]
	if k == nil || k.URL != is.JWKSURL {
		k = &issuerKeys{URL: is.JWKSURL}
		i.keys[is.Name] = k
	}
	if err != nil {
		k.err, k.next = plain.Text(err.Error()), i.clock().Add(min(is.Refresh, jwksRetry))
		failures.Inc()
		i.log.WarnContext(ctx, "issuer keys not fetched; the last good ones stay", slog.String("issuer", is.Name), slog.Any("err", err))
		return false
	}
	if lost := errorTexts(left); !slices.Equal(lost, errorTexts(k.left)) && len(lost) > 0 {
		i.log.WarnContext(ctx, "keys of the issuer's set are not used", slog.String("issuer", is.Name), slog.Any("left", lost))
	}
	k.left = left
	same := string(k.JWKS) == string(jwks)
	k.JWKS, k.Fetched, k.err, k.next = jwks, i.clock(), "", i.clock().Add(is.Refresh)
	if same {
		return false
	}
	i.changed()
	return true
}

// save remembers the keys for a restart. mu is not held over the disk: views are
// made with it.
func (i *issuers) save(ctx context.Context) {
	i.saving.Lock() // the newest is written last
	defer i.saving.Unlock()
	good := map[string]*issuerKeys{}
	i.mu.Lock()
	for name, k := range i.keys {
		if len(k.JWKS) > 0 {
			kept := *k
			good[name] = &kept
		}
	}
	i.mu.Unlock()
	if err := durable.WriteJSON(i.path, good); err != nil {
		i.log.WarnContext(ctx, "issuer keys not remembered", slog.Any("err", err))
	}
}

// keyWarnings tells of issuers whose keys cannot be fetched now: each is asked once,
// within keysPatience.
func keyWarnings(ctx context.Context, list []jwt.Issuer) []string {
	ctx, cancel := context.WithTimeout(ctx, keysPatience)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(jwksParallel)
	warnings := make([]string, len(list))
	for n, is := range list {
		if is.JWKSURL == "" {
			continue
		}
		g.Go(func() error {
			if _, _, err := fetchJWKS(ctx, is.JWKSURL); err != nil {
				warnings[n] = fmt.Sprintf("JWTIssuer %s: its keys cannot be fetched now, and its tokens are refused as long as there are none: %s", is.Name, plain.Text(err.Error()))
			}
			return nil
		})
	}
	_ = g.Wait() // each failure is a warning
	return slices.DeleteFunc(warnings, func(w string) bool { return w == "" })
}

// noKeys is a key set by which every token is refused.
var noKeys = []byte(`{"keys":[]}`)

// resources are all issuers, as agents are told.
func (i *issuers) resources(m *model) []*api.JWTIssuer {
	i.mu.Lock()
	defer i.mu.Unlock()
	var list []*api.JWTIssuer
	for _, is := range m.issuers {
		jwks := is.JWKS
		if is.JWKSURL != "" {
			jwks = noKeys
			if k := i.keys[is.Name]; k != nil && k.URL == is.JWKSURL && len(k.JWKS) > 0 {
				jwks = k.JWKS
			}
		}
		list = append(list, &api.JWTIssuer{Name: is.Name, Issuer: is.Issuer, Audiences: is.Audiences, AudienceClaim: is.AudienceClaim, Jwks: jwks})
	}
	return list
}

// failure is of the last fetch; fetched is when the keys in use were, if ever.
type failure struct {
	err     string
	fetched time.Time
}

// failing lists the issuers whose last fetch failed.
func (i *issuers) failing() map[string]failure {
	i.mu.Lock()
	defer i.mu.Unlock()
	out := map[string]failure{}
	for name, k := range i.keys {
		if k.err != "" {
			out[name] = failure{k.err, k.Fetched}
		}
	}
	return out
}

func errorTexts(errs []error) []string {
	var list []string
	for _, err := range errs {
		list = append(list, plain.Text(err.Error()))
	}
	return list
}

// losing lists the issuers whose set has keys that are not used.
func (i *issuers) losing() map[string][]error {
	i.mu.Lock()
	defer i.mu.Unlock()
	out := map[string][]error{}
	for name, k := range i.keys {
		if len(k.left) > 0 {
			out[name] = k.left
		}
	}
	return out
}

// fetchJWKS gets a key set, and what of it cannot be used (RFC 7517 5: it is ignored).
func fetchJWKS(ctx context.Context, raw string) (jwks []byte, left []error, err error) {
	u, err := url.Parse(raw)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, nil, fmt.Errorf("%q is not an http or https URL", plain.Text(raw))
	}
	ctx, cancel := context.WithTimeout(ctx, jwksDeadline)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Accept", "application/json")
	proxy, err := jwksProxy(ctx, u)
	if err != nil {
		return nil, nil, err
	}
	client := jwksClient(u, proxy)
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read to the end or given up: nothing to lose
	if resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("GET %s: %s", u.Redacted(), resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, jwksMaxBytes+1))
	if err != nil {
		return nil, nil, fmt.Errorf("GET %s: %w", u.Redacted(), err)
	}
	if len(body) > jwksMaxBytes {
		return nil, nil, fmt.Errorf("GET %s: more than %d bytes", u.Redacted(), jwksMaxBytes)
	}
	jwks, left, err = jwt.UsableKeys(body)
	if err != nil {
		return nil, nil, fmt.Errorf("GET %s: %w", u.Redacted(), err)
	}
	return jwks, left, nil
}

// insideRanges are addresses where no issuer is, beyond those that netip.Addr
// tells of, and where clouds serve metadata. The private ranges of IPv4 are not
// among them: an issuer of one's own is found there by its name.
var insideRanges = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),        // RFC 1122: this host
	netip.MustParsePrefix("100.64.0.0/10"),    // RFC 6598: shared by a provider's customers; 100.100.100.200 is a metadata service
	netip.MustParsePrefix("192.0.0.0/24"),     // RFC 6890: protocol assignments; 192.0.0.192 is a metadata service
	netip.MustParsePrefix("198.18.0.0/15"),    // RFC 2544: benchmarks
	netip.MustParsePrefix("240.0.0.0/4"),      // RFC 1112: reserved, with the broadcast address
	netip.MustParsePrefix("168.63.129.16/32"), // a metadata service
	netip.MustParsePrefix("fc00::/7"),         // RFC 4193: unique local; fd00:ec2::254 and others are metadata services
	netip.MustParsePrefix("fec0::/10"),        // RFC 3879: what site-local was
	netip.MustParsePrefix("100::/64"),         // RFC 6666: discarded
}

// embedded are ranges of IPv6 in which an IPv4 address lies, and at which byte.
var embedded = []struct {
	netip.Prefix
	at int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12},   // RFC 6052: NAT64
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12}, // RFC 8215: NAT64 of a network's own
	{netip.MustParsePrefix("2002::/16"), 2},       // RFC 3056: 6to4
	{netip.MustParsePrefix("::/96"), 12},          // RFC 4291 2.5.5.1: IPv4-compatible
}

// inside reports whether an address leads into this host, to a metadata service,
// or to where no issuer can be, also in the forms that translators of addresses know.
func inside(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	if ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast() {
		return true
	}
	for _, r := range insideRanges {
		if r.Contains(ip) {
			return true
		}
	}
	for _, e := range embedded {
		if e.Contains(ip) {
			b := ip.As16()
			return inside(netip.AddrFrom4([4]byte(b[e.at : e.at+4])))
		}
	}
	return false
}

// meantInside reports whether the operator wrote an address, or localhost, so that
// it may be one of inside; a link-local one is never meant.
func meantInside(u *url.URL) bool {
	literal, err := parseAddr(u.Hostname())
	return err == nil && !literal.IsLinkLocalUnicast() && !literal.IsUnspecified() || u.Hostname() == "localhost"
}

// refusedInside is the error for an address that an issuer's URL leads to; nil if it may.
func refusedInside(u *url.URL, a netip.Addr) error {
	if meantInside(u) || !inside(a) {
		return nil
	}
	return fmt.Errorf("%s is not an address that an issuer's name may lead to: write it as the address in jwksURL where it is meant", a)
}

// numberRE matches hosts that old resolvers read as an IPv4 address.
var numberRE = regexp.MustCompile(`(?i)(^|\.)([0-9]+|0x[0-9a-f]*)\.?$`)

// jwksProxy is the proxy that the environment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY) has
// for a URL; nil for none. With a proxy it is the proxy that resolves the name, so
// that what the name leads to is looked at here first, as far as this host can:
// a name that only the proxy knows is the proxy's to judge.
func jwksProxy(ctx context.Context, u *url.URL) (*url.URL, error) {
	proxy, err := httpproxy.FromEnvironment().ProxyFunc()(u)
	if err != nil {
		return nil, errors.New("HTTPS_PROXY or HTTP_PROXY in the server's environment is not a URL") // the error would repeat it with its password
	}
	if proxy == nil {
		return nil, nil
	}
	addrs := []netip.Addr{}
	if literal, err := parseAddr(u.Hostname()); err == nil {
		addrs = append(addrs, literal)
	} else if numberRE.MatchString(u.Hostname()) {
		return nil, fmt.Errorf("%q in jwksURL is an address in a form that a proxy may read as one of its own host: write it as a.b.c.d", plain.Text(u.Hostname()))
	} else if found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname()); err == nil {
		addrs = found
	}
	for _, a := range addrs {
		if err := refusedInside(u, a); err != nil {
			return nil, err
		}
	}
	return proxy, nil
}

// jwksClient reaches the host that the operator wrote, and no other, by the proxy
// if there is one: where that is, the server's environment says, and it may be this host.
func jwksClient(u, proxy *url.URL) *http.Client {
	dialer := &net.Dialer{Timeout: jwksDeadline, Control: func(_, address string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if proxy != nil {
			return nil
		}
		return refusedInside(u, a.Addr())
	}}
	return &http.Client{
		Timeout: jwksDeadline,
		Transport: &http.Transport{
			Proxy:       http.ProxyURL(proxy), // none if nil: what the environment says was asked once
			DialContext: dialer.DialContext, TLSHandshakeTimeout: jwksDeadline,
			ResponseHeaderTimeout: jwksDeadline, MaxResponseHeaderBytes: 64 << 10,
			DisableKeepAlives: true, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > 3 || req.URL.Host != u.Host || req.URL.Scheme != u.Scheme {
				return fmt.Errorf("redirect to %s is not followed", req.URL.Redacted())
			}
			return nil
		},
	}
}
