package envoytest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Load is an open-loop load: requests start when they are due, however long
// the ones before take, so that a stall shows as failures and not as a pause.
// With CatchUp a stall shows as requests that are late.
type Load struct {
	// URL is what is asked for; Host, if set, is the Host header.
	URL, Host string
	// Header is added to each request.
	Header http.Header
	// Rate is requests per second.
	Rate int
	// NewConnections is the share of requests that open their own connection;
	// the rest is on keep-alive.
	NewConnections float64
	// Slow is the share of requests that the backend holds for SlowFor (by
	// ?ms=, as Backend understands it); it keeps requests in flight over changes.
	Slow    float64
	SlowFor time.Duration
	// TLS, if set, is used for https URLs.
	TLS *tls.Config
	// Proxy, if set, is asked in http_proxy form (absolute request URI).
	Proxy *url.URL
	// Transport, if set, carries the requests: NewConnections, TLS and Proxy are its matter then.
	Transport http.RoundTripper
	// Request, if set, makes the n-th request in the place of a GET of URL.
	Request func(ctx context.Context, n int) (*http.Request, error)
	// Timeout bounds a request; 0 means 10 s.
	Timeout time.Duration
	// MaxInFlight bounds how many requests are under way; 0 means 256. What
	// is due beyond that is counted as Skipped: a generator that collapses
	// under its own backlog tells nothing about the one it asks.
	MaxInFlight int
	// CatchUp has what is due beyond MaxInFlight wait until there is room, in the place of being
	// skipped: the load falls behind where the host stands still, and makes up for it.
	CatchUp bool
	// Check, if set, says why an answer is a failure, or "". Unset: any status
	// but 200 is.
	Check func(status int, h http.Header, body string) string
}

// mostKept is how many connections are kept alive, and how many there are of those: a request
// that finds none free waits for one. With one of its own for each that waits, a stall of half
// a second would become as many new connections, each dearer than a request, and last.
const mostKept = 256

// maxReason bounds what is kept of a failure.
const maxReason = 120

// Run is a load that is under way.
type Run struct {
	load   Load
	keep   *http.Client
	fresh  *http.Client
	cancel context.CancelFunc
	all    sync.WaitGroup
	flight atomic.Int64

	mu     sync.Mutex
	report Report
}

// Report is what a load saw.
type Report struct {
	Sent, Failed int
	// Skipped were due while MaxInFlight requests were under way.
	Skipped int
	// Behind is how many waited to be sent, at most at one time.
	Behind int
	// Reasons counts failures by what went wrong.
	Reasons map[string]int
	// Failures are each of them, in the order in which they ended.
	Failures []Failure
	// Bodies counts answers by their first 40 bytes.
	Bodies map[string]int

	took []time.Duration
}

// Failure is a request that failed.
type Failure struct {
	Began, Ended time.Time
	Why          string
}

// Start begins the load; it goes on until Stop or until ctx ends.
func (l Load) Start(ctx context.Context) *Run {
	if l.Timeout == 0 {
		l.Timeout = 10 * time.Second
	}
	if l.MaxInFlight == 0 {
		l.MaxInFlight = 256
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &Run{load: l, cancel: cancel, report: Report{Reasons: make(map[string]int), Bodies: make(map[string]int)}}
	r.keep, r.fresh = l.client(false), l.client(true)
	r.all.Go(func() { r.pace(ctx) })
	return r
}

// client makes an HTTP client with or without keep-alive.
func (l Load) client(single bool) *http.Client {
	tr := &http.Transport{
		DisableKeepAlives: single, MaxIdleConnsPerHost: mostKept, TLSClientConfig: l.TLS,
		DialContext: (&net.Dialer{Timeout: l.Timeout}).DialContext,
	}
	if !single {
		tr.MaxConnsPerHost = mostKept
	}
	if l.Proxy != nil {
		tr.Proxy = http.ProxyURL(l.Proxy)
	}
	var by http.RoundTripper = tr
	if l.Transport != nil {
		by = l.Transport
	}
	return &http.Client{Timeout: l.Timeout, Transport: by, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// pace starts each request when it is due, or when there is room for it.
func (r *Run) pace(ctx context.Context) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	start := time.Now()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			due := int(now.Sub(start).Seconds() * float64(r.load.Rate))
			for n < due && r.begin(ctx, n) {
				n++
			}
			r.behind(due - n)
		}
	}
}

// behind notes how many wait to be sent.
func (r *Run) behind(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Behind = max(r.report.Behind, n)
}

// begin starts the n-th request, or skips it where too many are under way; false where it is to wait.
func (r *Run) begin(ctx context.Context, n int) bool {
	if r.flight.Load() >= int64(r.load.MaxInFlight) { // pace alone adds to it
		if r.load.CatchUp {
			return false
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.report.Skipped++
		return true
	}
	r.flight.Add(1)
	r.all.Go(func() {
		defer r.flight.Add(-1)
		r.request(ctx, n)
	})
	return true
}

// request sends the n-th request and notes how it went.
func (r *Run) request(ctx context.Context, n int) {
	// A request that has begun is finished: ctx ends only the pace.
	req, err := r.load.make(context.WithoutCancel(ctx), n)
	if err != nil {
		r.note(0, "request: "+err.Error(), "")
		return
	}
	maps.Copy(req.Header, r.load.Header)
	if share(n, r.load.Slow, 7) {
		q := req.URL.Query()
		q.Set("ms", fmt.Sprint(r.load.SlowFor.Milliseconds()))
		req.URL.RawQuery = q.Encode()
	}
	client := r.keep
	if share(n, r.load.NewConnections, 3) {
		client = r.fresh
	}
	start := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		r.note(time.Since(start), classify(err), "")
		return
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	took := time.Since(start)
	if err != nil {
		r.note(took, "body: "+classify(err), "")
		return
	}
	r.note(took, r.load.check(resp, string(body)), string(body))
}

func (l Load) make(ctx context.Context, n int) (*http.Request, error) {
	if l.Request != nil {
		return l.Request(ctx, n)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.URL, nil)
	if err == nil {
		req.Host = l.Host
	}
	return req, err
}

// share picks a fraction of all requests, spread evenly; different strides
// make two choices independent.
func share(n int, fraction float64, stride int) bool {
	return float64((n*stride)%100) < fraction*100
}

func (l Load) check(resp *http.Response, body string) string {
	if l.Check != nil {
		return l.Check(resp.StatusCode, resp.Header, body)
	}
	if resp.StatusCode == http.StatusOK {
		return ""
	}
	return fmt.Sprintf("%d %s %s", resp.StatusCode, resp.Header.Get("x-envoy-flags"), strings.TrimSpace(body))
}

// note counts one request.
func (r *Run) note(took time.Duration, failure, body string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Sent++
	r.report.took = append(r.report.took, took)
	if failure != "" {
		r.report.Failed++
		failure = failure[:min(len(failure), maxReason)]
		r.report.Reasons[failure]++
		r.report.Failures = append(r.report.Failures, Failure{time.Now().Add(-took), time.Now(), failure})
		return
	}
	r.report.Bodies[body[:min(len(body), 40)]]++
}

// Stop ends the load, waits for what is in flight, and reports.
func (r *Run) Stop() Report {
	r.cancel()
	r.all.Wait()
	r.keep.CloseIdleConnections()
	r.fresh.CloseIdleConnections()
	return r.Report()
}

// Counts are how many requests have been answered, or have failed, so far, and how many of them failed.
func (r *Run) Counts() (sent, failed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.report.Sent, r.report.Failed
}

// Report is what the load has seen so far.
func (r *Run) Report() Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep := r.report
	rep.Reasons, rep.Bodies, rep.took = maps.Clone(rep.Reasons), maps.Clone(rep.Bodies), slices.Sorted(slices.Values(rep.took))
	rep.Failures = slices.Clone(rep.Failures)
	return rep
}

// Quantile is the time that the fraction q of all requests stayed within.
func (r Report) Quantile(q float64) time.Duration {
	if len(r.took) == 0 {
		return 0
	}
	return r.took[min(len(r.took)-1, int(q*float64(len(r.took))))]
}

// String is a line for a test's log.
func (r Report) String() string {
	s := fmt.Sprintf("%d requests, %d failed, %d skipped, at most %d behind, p50 %v, p99 %v, max %v",
		r.Sent, r.Failed, r.Skipped, r.Behind, r.Quantile(0.5), r.Quantile(0.99), r.Quantile(1))
	for _, why := range slices.Sorted(maps.Keys(r.Reasons)) {
		s += fmt.Sprintf("\n  %5d x %s", r.Reasons[why], why)
	}
	return s
}

// classify names an error without addresses, so that equal failures count together.
func classify(err error) string {
	var timeout net.Error
	var alert tls.AlertError
	switch {
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET):
		return "connection reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "EOF"
	case errors.As(err, &alert):
		return "tls: " + alert.Error()
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return err.Error()
}
