package envoy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"signet.example/api"
	"signet.example/internal/plain"
)

// classicalShown is how long connections without a post-quantum key exchange are
// a finding after the last one.
const classicalShown = 5 * time.Minute

// The sides of a proxy's TLS, as the metric's label.
const (
	sideCallers = "callers" // who connected to it
	sideCalled  = "called"  // whom it connected to
)

// keyExchanges is what an Envoy has counted of its TLS handshakes, by the name of
// each counter. Only each by itself never falls: listeners and clusters go.
type keyExchanges map[string]counter

type counter struct {
	exchange
	n uint64
}

type exchange struct {
	side    string
	quantum bool
}

func (x exchange) label() string {
	if x.quantum {
		return "post_quantum"
	}
	return "classical"
}

// exchangeLine: listener.<address>.ssl.curves.X25519: 3, or cluster.<name>….
var exchangeLine = regexp.MustCompile(`^(listener|cluster)\..*\.ssl\.curves\.([A-Za-z0-9_-]+): ([0-9]{1,19})$`)

// counters asks for those of all listeners and clusters, and for how often Envoy could not write to
// a file, of which it has access logs alone.
func (a *admin) counters(ctx context.Context) (counted keyExchanges, unwritten uint64, err error) {
	const failed = "filesystem.write_failed"
	body, err := a.do(ctx, "GET", "/stats?usedonly&filter="+url.QueryEscape(`\.ssl\.curves\.|^`+failed+`$`))
	if err != nil {
		return nil, 0, err
	}
	counted = keyExchanges{}
	for line := range strings.Lines(string(body)) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), failed+": "); ok {
			unwritten, _ = strconv.ParseUint(text, 10, 64) // longer than any counter: 0
			continue
		}
		m := exchangeLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		n, err := strconv.ParseUint(m[3], 10, 64)
		if err != nil {
			continue // longer than any counter
		}
		x := exchange{side: sideCallers, quantum: m[2] == tls.X25519MLKEM768.String()}
		if m[1] == "cluster" {
			x.side = sideCalled
		}
		counted[strings.TrimSuffix(m[0], ": "+m[3])] = counter{x, n}
	}
	return counted, unwritten, nil
}

// classical is what is remembered of one proxy's handshakes.
type classical struct {
	mu   sync.Mutex
	seen keyExchanges // by the Envoy that runs now
	// last is when there was a classical one, by side; count how many there have
	// been since the agent started.
	last  map[string]time.Time
	count map[string]uint64
}

// begin forgets the counters of the Envoy before: the next one counts from 0.
func (c *classical) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = nil
}

// note takes what an Envoy says now, and hands on what is new. A counter that went
// with its listener or cluster, and is back, counts from 0.
func (c *classical) note(at time.Time, counted keyExchanges, add func(exchange, uint64)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil {
		c.last, c.count = map[string]time.Time{}, map[string]uint64{}
	}
	for name, now := range counted {
		x, n, before := now.exchange, now.n, c.seen[name].n
		if n < before {
			before = 0
		}
		if n == before {
			continue
		}
		add(x, n-before)
		if !x.quantum {
			c.last[x.side] = at
			c.count[x.side] += n - before
		}
	}
	c.seen = counted
}

// findings are for `signet check`, of a proxy by name.
func (c *classical) findings(now time.Time, proxy string) []*api.AgentFinding {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []*api.AgentFinding
	for _, side := range []struct{ name, words string }{
		{sideCallers, "connections of callers"}, {sideCalled, "connections to services that it calls"},
	} {
		if last, ok := c.last[side.name]; ok && now.Sub(last) < classicalShown {
			list = append(list, &api.AgentFinding{
				Kind: api.AgentFinding_CLASSICAL_KEY_EXCHANGE.Enum(),
				Text: fmt.Sprintf("proxy %s: %d %s without X25519MLKEM768 so far, the last at %s", proxy, c.count[side.name], side.words, plain.UTC(last)),
			})
		}
	}
	return list
}

// readCounters reads what Envoy has counted.
func (e *envoy) readCounters(ctx context.Context) {
	counted, unwritten, err := e.admin.counters(ctx)
	if err != nil {
		return // it is asked again
	}
	if n := unwritten - e.unwritten; unwritten > e.unwritten {
		e.logsLost(ctx, n, errors.New("envoy counts it in filesystem.write_failed: look at the room and the permissions where the access logs of its virtual node go (access_log_dir)"))
	}
	e.unwritten = unwritten
	e.classical.note(time.Now(), counted, func(x exchange, n uint64) {
		e.config.Metrics.handshakes.WithLabelValues(e.proxy.Name, x.side, x.label()).Add(float64(n))
	})
}
