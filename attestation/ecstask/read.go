package ecstask

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"

	"signet.example/internal/retry"
	"signet.example/internal/watched"
)

// Variable is the one of the environment in which ECS says where the endpoint is.
const Variable = "ECS_CONTAINER_METADATA_URI_V4"

const (
	each       = 2 * time.Second
	altogether = 10 * time.Second
	mostAnswer = 256 << 10
)

// asking spreads the tries: the endpoint of a host is one for all of its tasks, and limits them.
var asking = retry.Policy{First: 200 * time.Millisecond, Most: 2 * time.Second, Jitter: 0.5}

// endpoint is the one address at which ECS serves metadata; for whom the place is emulated there is loopback.
var endpoint = netip.MustParseAddr("169.254.170.2")

// Read asks the endpoint that the environment names, and returns the zero Task where it names
// none. It tries again for ten seconds; an error is about the last try, and begins with the variable.
func Read(ctx context.Context) (Task, error) {
	base := os.Getenv(Variable)
	if base == "" {
		return Task{}, nil
	}
	if err := checkURL(base); err != nil {
		return Task{}, fmt.Errorf("%s: %w", Variable, err)
	}
	ctx, cancel := context.WithTimeout(ctx, altogether)
	defer cancel()
	for tries := (retry.Tries{Policy: asking}); ; {
		t, err := read(ctx, base)
		if err == nil {
			return t, nil
		}
		if !watched.Sleep(ctx, tries.Failed(0, err)) {
			return Task{}, fmt.Errorf("%s: %w", Variable, err)
		}
	}
}

// checkURL accepts the endpoint's, and nobody else's: the answer is believed as far as this
// process is, and nobody beyond this host is asked by what an image has in its environment.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return errors.New("it is not a URL")
	}
	a, err := netip.ParseAddr(u.Hostname())
	if err != nil || u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || (a != endpoint && !a.IsLoopback()) {
		return fmt.Errorf("%.80q is not at the endpoint of ECS, http://%s/v4/…, or on loopback", s, endpoint)
	}
	return nil
}

func read(ctx context.Context, base string) (Task, error) {
	// No proxy of the environment is asked, and no connection is kept.
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       each,
	}
	ofContainer, err := get(ctx, client, base)
	if err != nil {
		return Task{}, err
	}
	ofTask, err := get(ctx, client, base+"/task")
	if err != nil {
		return Task{}, err
	}
	return Parse(ofContainer, ofTask)
}

func get(ctx context.Context, client *http.Client, at string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil) //nolint:gosec // checkURL has the one address that it may be
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req) //nolint:gosec // as above
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // it was read, or is not wanted
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %d", at, resp.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", at, err)
	case len(text) > mostAnswer:
		return nil, fmt.Errorf("%s answers more than %d bytes", at, mostAnswer)
	}
	return text, nil
}
