package envoy

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// admin speaks to one Envoy's admin interface over its Unix socket.
type admin struct{ client *http.Client }

func newAdmin(socket string) *admin {
	return &admin{&http.Client{
		Timeout: 2 * time.Second,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			},
			// The admin interface of a restarted Envoy is another one.
			DisableKeepAlives: true,
		},
	}}
}

// maxAdminAnswer is more than /certs has with a thousand certificates.
const maxAdminAnswer = 8 << 20

func (a *admin) do(ctx context.Context, method, path string) ([]byte, error) {
	status, body, err := a.ask(ctx, method, path)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("envoy %s: %d %s", path, status, http.StatusText(status))
	}
	return body, err
}

// ask returns whatever is answered.
func (a *admin) ask(ctx context.Context, method, path string) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://envoy"+path, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read only
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAdminAnswer+1))
	if err == nil && len(body) > maxAdminAnswer {
		err = fmt.Errorf("its answer is longer than %d bytes", maxAdminAnswer)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("envoy %s: %w", path, err)
	}
	return resp.StatusCode, body, nil
}

// get is what a reader of the proxy's asks, whatever is answered.
func (a *admin) get(ctx context.Context, path string) (status int, body []byte, err error) {
	return a.ask(ctx, http.MethodGet, path)
}

// ready is nil once Envoy has warmed all that it was sent.
func (a *admin) ready(ctx context.Context) error {
	_, err := a.do(ctx, http.MethodGet, "/ready")
	return err
}

// version is Envoy's, such as "1.40.0".
func (a *admin) version(ctx context.Context) (string, error) {
	body, err := a.do(ctx, http.MethodGet, "/server_info")
	if err != nil {
		return "", err
	}
	var info struct {
		Version string `json:"version"`
	}
	if err := json.Unmarshal(body, &info); err != nil {
		return "", fmt.Errorf("envoy /server_info: %w", err)
	}
	return cmp.Or(versionIn(info.Version), info.Version), nil
}

// serials are the serial numbers, in hexadecimal, of the certificates that Envoy
// serves with a SPIFFE ID.
func (a *admin) serials(ctx context.Context, spiffeID string) ([]string, error) {
	body, err := a.do(ctx, http.MethodGet, "/certs")
	if err != nil {
		return nil, err
	}
	var certs struct {
		Certificates []struct {
			Chain []struct {
				Serial string `json:"serial_number"`
				SANs   []struct {
					URI string `json:"uri"`
				} `json:"subject_alt_names"`
			} `json:"cert_chain"`
		} `json:"certificates"`
	}
	if err := json.Unmarshal(body, &certs); err != nil {
		return nil, fmt.Errorf("envoy /certs: %w", err)
	}
	var serials []string
	for _, c := range certs.Certificates {
		if len(c.Chain) > 0 && len(c.Chain[0].SANs) > 0 && c.Chain[0].SANs[0].URI == spiffeID {
			serials = append(serials, strings.TrimLeft(strings.ToLower(c.Chain[0].Serial), "0"))
		}
	}
	return serials, nil
}

// discourage has Envoy close each connection with the answer that it gives on it: who
// comes back by another one is let in.
func (a *admin) discourage(ctx context.Context) error {
	_, err := a.do(ctx, http.MethodPost, "/healthcheck/fail")
	return err
}

// shut has Envoy take no more connections from outside, and go on with those that it
// has. The application's way out stays: an answer may need it.
func (a *admin) shut(ctx context.Context) error {
	_, err := a.do(ctx, http.MethodPost, "/drain_listeners?inboundonly")
	return err
}

// flight is what Envoy has begun for others and not ended.
type flight struct{ requests, connections int }

// inFlight is what it has: requests without a complete answer, by those that Envoy took from
// clients (the admin interface's own are left out), and connections of tcp that go on to the
// application. Those are counted behind it: Envoy has no number of them before.
func (a *admin) inFlight(ctx context.Context) (flight, error) {
	const requests, connections = `http\..*\.downstream_rq_active`, `cluster\.cds_ingress_.*_tcp_[0-9]+\.upstream_cx_active`
	var open flight
	err := a.gauges(ctx, requests+"|"+connections, func(name string, n int) {
		switch {
		case strings.HasPrefix(name, "cluster."):
			open.connections += n
		case !strings.HasPrefix(name, "http.admin."):
			open.requests += n
		}
	})
	return open, err
}

// calls is how many requests, and connections of tcp, Envoy has taken from others.
func (a *admin) calls(ctx context.Context) (int, error) {
	all := 0
	err := a.gauges(ctx, `http\.ingress.*\.downstream_rq_total|tcp\.ingress.*\.downstream_cx_total`, func(_ string, n int) { all += n })
	return all, err
}

// callingOut is how many connections the application has to the way out.
func (a *admin) callingOut(ctx context.Context) (int, error) {
	open := 0
	err := a.gauges(ctx, `(http|tcp)\.egress.*\.downstream_cx_active`, func(_ string, n int) { open += n })
	return open, err
}

// gauges calls do with each number that has such a name.
func (a *admin) gauges(ctx context.Context, names string, do func(name string, n int)) error {
	body, err := a.do(ctx, http.MethodGet, "/stats?filter="+url.QueryEscape("^("+names+")$"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(body)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		n, err := strconv.Atoi(value)
		if !ok || err != nil {
			return fmt.Errorf("envoy /stats: not a gauge: %.100q", line)
		}
		do(name, n)
	}
	return nil
}
