package issuers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"

	"signet.example/authz/jwt"
	"signet.example/internal/plain"
)

const (
	deadline = 5 * time.Second
	maxBytes = 1 << 20
)

// Fetch gets a key set, and what of it cannot be used (RFC 7517 5: it is ignored).
func Fetch(ctx context.Context, raw string) (jwks []byte, left []error, err error) {
	body, err := get(ctx, raw, "application/json")
	if err != nil {
		return nil, nil, err
	}
	jwks, left, err = jwt.UsableKeys(body)
	if err != nil {
		return nil, nil, fmt.Errorf("GET %s: %w", plain.Text(raw), err)
	}
	return jwks, left, nil
}

// statusError is an answer that is not 200.
type statusError struct {
	url, status string
	code        int
}

// Error implements error.
func (e *statusError) Error() string { return fmt.Sprintf("GET %s: %s", e.url, e.status) }

// get fetches what is at an URL, whole.
func get(ctx context.Context, raw, accept string) ([]byte, error) {
	u, err := url.Parse(raw)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("%q is not an http or https URL", plain.Text(raw))
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	proxy, err := proxyOf(ctx, u)
	if err != nil {
		return nil, err
	}
	client := clientOf(u, proxy)
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read to the end or given up: nothing to lose
	if resp.StatusCode != http.StatusOK {
		return nil, &statusError{u.Redacted(), resp.Status, resp.StatusCode}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", u.Redacted(), err)
	}
	if len(body) > maxBytes {
		return nil, fmt.Errorf("GET %s: more than %d bytes", u.Redacted(), maxBytes)
	}
	return body, nil
}

// numberRE matches hosts that old resolvers read as an IPv4 address.
var numberRE = regexp.MustCompile(`(?i)(^|\.)([0-9]+|0x[0-9a-f]*)\.?$`)

// proxyOf is the proxy that the environment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY) has
// for a URL; nil for none. With a proxy it is the proxy that resolves the name, so
// that what the name leads to is looked at here first, as far as this host can:
// a name that only the proxy knows is the proxy's to judge.
func proxyOf(ctx context.Context, u *url.URL) (*url.URL, error) {
	proxy, err := httpproxy.FromEnvironment().ProxyFunc()(u)
	if err != nil {
		return nil, errors.New("HTTPS_PROXY or HTTP_PROXY in the server's environment is not a URL") // the error would repeat it with its password
	}
	if proxy == nil {
		return nil, nil
	}
	addrs := []netip.Addr{}
	if literal, err := literalOf(u.Hostname()); err == nil {
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

// clientOf reaches the host that the operator wrote, and no other, by the proxy
// if there is one: where that is, the server's environment says, and it may be this host.
func clientOf(u, proxy *url.URL) *http.Client {
	dialer := &net.Dialer{Timeout: deadline, Control: func(_, address string, _ syscall.RawConn) error {
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
		Timeout: deadline,
		Transport: &http.Transport{
			Proxy:       http.ProxyURL(proxy), // none if nil: what the environment says was asked once
			DialContext: dialer.DialContext, TLSHandshakeTimeout: deadline,
			ResponseHeaderTimeout: deadline, MaxResponseHeaderBytes: 64 << 10,
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
