package readonly

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"signet.example/internal/retry"
	"signet.example/internal/scrape"
	"signet.example/internal/watched"
)

// The paths that there are.
const (
	readyPath = "/ready"
	infoPath  = "/server_info"
	statsPath = "/stats/prometheus"
)

// Ask asks the admin interface of an Envoy. It can be called from any goroutine, and ends in
// seconds. An error is why there is no answer, for people to read.
type Ask func(ctx context.Context, path string) (status int, body []byte, err error)

// Config is one proxy's. Every field is needed.
type Config struct {
	// Address is where it is served (ValidAddress).
	Address string
	Ask     Ask
	Log     *slog.Logger
}

// ValidAddress refuses what is not an address of loopback and a port: whoever reaches it can read.
func ValidAddress(text string) error {
	at, err := netip.ParseAddrPort(text)
	switch {
	case err != nil || at.Port() == 0:
		return fmt.Errorf("want an address of loopback and a port, such as 127.0.0.1:9901, got %q", text)
	case !at.Addr().Unmap().IsLoopback():
		return fmt.Errorf("%s is not of loopback, and whoever reaches it can read without authentication: want 127.0.0.1:%d; for other hosts there is the key metrics", at.Addr(), at.Port())
	}
	return nil
}

// Run serves it until ctx ends. While somebody else has the address it tries again.
func Run(ctx context.Context, c Config) {
	tries := retry.Tries{Policy: retry.Policy{First: time.Second, Most: 10 * time.Second, Settled: time.Minute}}
	page := newHandler(ctx, c)
	for ctx.Err() == nil {
		begun := time.Now()
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Address)
		if err == nil {
			err = scrape.Serve(ctx, l, page, c.Log)
		}
		if ctx.Err() != nil {
			return
		}
		pause := tries.Failed(time.Since(begun), err)
		c.Log.WarnContext(ctx, "read-only admin is not served", slog.String("address", c.Address), slog.Any("err", err), slog.Duration("pause", pause))
		if !watched.Sleep(ctx, pause) {
			return
		}
	}
}

// handler answers requests.
type handler map[string]*kept

func newHandler(ctx context.Context, c Config) handler {
	asked := func(path string, age time.Duration, read func(status int, body []byte) (answer, error)) *kept {
		return &kept{age: age, get: func() answer {
			status, body, err := c.Ask(ctx, path)
			if err == nil {
				var a answer
				if a, err = read(status, body); err == nil {
					return a
				}
			}
			c.Log.DebugContext(ctx, "read-only admin: no answer", slog.String("path", path), slog.Any("err", err))
			return answer{status: http.StatusServiceUnavailable, kind: plain, body: []byte("Envoy does not answer: the agent's log and `signet proxies` say why\n")}
		}}
	}
	sums := newSums()
	return handler{
		readyPath: asked(readyPath, briefly, func(status int, body []byte) (answer, error) { return answer{status, plain, body}, nil }),
		infoPath:  asked(infoPath, briefly, readInfo),
		statsPath: asked(statsPath+"?usedonly&filter="+filter(), keep, func(status int, body []byte) (answer, error) {
			if status != http.StatusOK {
				return answer{}, fmt.Errorf("%s: %d", statsPath, status)
			}
			return answer{http.StatusOK, prometheus, sums.page(body)}, nil
		}),
	}
}

// ServeHTTP implements http.Handler.
func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const there = "there is GET " + readyPath + ", " + infoPath + " and " + statsPath + " here, of one proxy, to read; its agent has the rest: docs/METRICS.md"
	k, ok := h[r.URL.Path]
	switch {
	case !ok:
		http.Error(w, "not found: "+there, http.StatusNotFound)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed: "+there, http.StatusMethodNotAllowed)
	default:
		k.current().write(w)
	}
}
