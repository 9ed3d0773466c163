package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"signet.example/api"
	"signet.example/attestation"
	"signet.example/identity"
	"signet.example/internal/child"
	"signet.example/internal/watched"
	"signet.example/proxy"
)

const (
	// See child.Restarts.
	envoyRestartFirst = 100 * time.Millisecond
	envoyRestartMost  = 10 * time.Second
	envoySettled      = 10 * time.Second
	// envoyGrace is what Envoy has to end after SIGTERM.
	envoyGrace = 5 * time.Second
	// envoyUmask lets the group of a proxy's user read the access logs that it writes.
	envoyUmask = 0o027
	// pollStarting, pollReady and pollDraining are how often the admin interface is asked.
	pollStarting = 25 * time.Millisecond
	pollReady    = time.Second
	pollDraining = 50 * time.Millisecond
)

// proxyStatus is what is known of one supervised proxy. Immutable.
type proxyStatus struct {
	state    api.ProxyStatus_State
	reason   string // why it waits or failed
	pid      int
	restarts int
	version  string
	view     *proxyView // nil while nothing is bound
}

// envoy supervises the Envoy of one configured proxy.
type envoy struct {
	proxy     Proxy
	program   string
	drainTime time.Duration
	xdsSocket string
	relay     *relay
	children  *attestation.Children
	log       *slog.Logger
	metrics   *metrics
	admin     *envoyAdmin

	status watched.Value[proxyStatus]
	// classical are its TLS handshakes that were not post-quantum.
	classical classical
	// denied takes the records of denials that the proxy made by itself.
	denied func(*api.Decision)
	// any is set with every change of status, for reports.
	any *watched.Value[int]
}

func newEnvoy(cfg Config, p Proxy, xdsSocket string, r *relay, c *attestation.Children, changed *watched.Value[int], m *metrics, log *slog.Logger) *envoy {
	e := &envoy{
		proxy: p, program: cfg.Envoy, drainTime: cfg.DrainTime, xdsSocket: xdsSocket, relay: r, children: c,
		log: log.With(slog.String("proxy", p.Name)), metrics: m, admin: newEnvoyAdmin(p.Admin), any: changed,
	}
	e.status.Set(proxyStatus{state: api.ProxyStatus_WAITING})
	return e
}

// line takes one line of the proxy's output: the record of a denial, or its log.
func (e *envoy) line(ctx context.Context, line string) {
	denial, ok := proxy.ParseDenial(line)
	if !ok {
		envoyLine(ctx, e.log, line)
		return
	}
	destination := "" // not known before the first answer of the server
	if s := e.relay.u.state.Load(); s != nil {
		if id, err := identity.ForVirtualNode(s.td, e.proxy.Mesh, e.proxy.VirtualNode); err == nil {
			destination = id.String()
		}
	}
	d := deniedByProxy(denial, destination, e.proxy.Name)
	e.metrics.decisions.Observe(observed(d))
	e.denied(d)
}

// become changes the status. What leaves it as it is, as each look of one that
// waits does, is told to nobody.
func (e *envoy) become(change func(*proxyStatus)) {
	news := false
	e.status.Update(func(s proxyStatus) proxyStatus {
		before := s
		change(&s)
		news = s != before
		return s
	})
	if !news {
		return
	}
	e.any.Update(func(n int) int { return n + 1 })
	s := e.status.Load()
	e.metrics.envoyReady.WithLabelValues(e.proxy.Name).Set(map[bool]float64{true: 1}[s.state == api.ProxyStatus_READY])
}

// Run keeps an Envoy running until ctx ends, then drains and stops it.
func (e *envoy) Run(ctx context.Context) error {
	restart := child.Restarts{First: envoyRestartFirst, Most: envoyRestartMost, Settled: envoySettled}
	for {
		e.become(func(s *proxyStatus) { s.state, s.pid = api.ProxyStatus_WAITING, 0 })
		v, ok := e.awaitView(ctx)
		if !ok {
			return nil
		}
		begun := time.Now()
		err := e.once(ctx, v)
		v.unclaim()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errNotBound) {
			continue // it is started again when it is bound again
		}
		pause := restart.After(time.Since(begun))
		e.metrics.envoyRestarts.WithLabelValues(e.proxy.Name).Inc()
		e.become(func(s *proxyStatus) {
			s.state, s.pid, s.restarts, s.reason = api.ProxyStatus_BACKOFF, 0, s.restarts+1, err.Error()
		})
		e.log.ErrorContext(ctx, "envoy ended, restarting", slog.Any("err", err), slog.Duration("pause", pause))
		if !watched.Sleep(ctx, pause) {
			return nil
		}
	}
}

// awaitView waits until there is everything that Envoy needs: a binding, its
// identity, and a complete routing set. Envoy is not started before: it would
// listen on nothing, and look alive.
func (e *envoy) awaitView(ctx context.Context) (*proxyView, bool) {
	for {
		_, changed := e.relay.u.state.Get()
		has, err := e.selectors()
		var v *proxyView
		if err == nil {
			v, err = e.relay.forProxy(ctx, e.proxy, has)
		}
		if err != nil {
			e.explainWait(ctx, err)
		} else {
			e.become(func(s *proxyStatus) { s.view = v })
			_, published := v.published.Get()
			if v.published.Load() != nil {
				if err = v.claim(e.proxy.Name); err == nil {
					return v, true
				}
				e.explainWait(ctx, err)
				if !watched.Sleep(ctx, time.Second) {
					return nil, false
				}
				continue
			}
			e.explainWait(ctx, nil)
			select {
			case <-published:
				continue
			case <-v.gone:
				continue
			case <-ctx.Done():
				return nil, false
			}
		}
		timer := time.NewTimer(time.Second) // the program may be installed meanwhile
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil, false
		}
	}
}

func (e *envoy) explainWait(ctx context.Context, err error) {
	reason := "for its identity and its routing"
	if err != nil {
		reason = err.Error()
	}
	if e.status.Load().reason != reason {
		e.become(func(s *proxyStatus) { s.reason = reason })
		e.log.InfoContext(ctx, "envoy waits", slog.String("reason", reason))
	}
}

// selectors are what the proxy will be attested to have.
func (e *envoy) selectors() (identity.Selectors, error) {
	path, err := exec.LookPath(e.program)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return nil, fmt.Errorf("envoy: %w", err)
	}
	uid, gid := os.Geteuid(), os.Getegid()
	if e.proxy.as != nil {
		uid, gid = int(e.proxy.as.UID), int(e.proxy.as.GID)
	}
	return identity.Selectors{
		{Type: "unix", Value: "uid:" + strconv.Itoa(uid)},
		{Type: "unix", Value: "gid:" + strconv.Itoa(gid)},
		{Type: "unix", Value: "path:" + path},
		{Type: "signet", Value: "proxy:" + e.proxy.Name},
	}, nil
}

// once runs one Envoy to its end, or to that of its binding.
func (e *envoy) once(ctx context.Context, v *proxyView) error {
	p, err := e.start(ctx)
	if err != nil {
		return err
	}
	e.classical.begin()
	e.become(func(s *proxyStatus) { s.state, s.pid, s.reason = api.ProxyStatus_STARTING, p.PID(), "" })
	e.log.InfoContext(ctx, "envoy started", slog.Int("pid", p.PID()))
	watch, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { // ends with watch, which is waited for below
		defer close(done)
		e.watch(watch, v)
	}()
	defer func() {
		cancel()
		<-done
	}()
	var ended error
	select {
	case <-p.Done():
		return fmt.Errorf("pid %d: %w", p.PID(), cmp.Or(p.Err(), errExited))
	case <-v.gone:
		ended = errNotBound
	case <-ctx.Done():
	}
	cancel()
	<-done
	// Whose binding or standing was taken away gets no more time than drainTime.
	e.stop(context.WithoutCancel(ctx), p, ended == nil && !banned(context.Cause(ctx)))
	return ended
}

func (e *envoy) start(ctx context.Context) (*child.Process, error) {
	if err := adminFolder(filepath.Dir(e.proxy.Admin), e.proxy.as); err != nil {
		return nil, fmt.Errorf("folder of the admin socket: %w", err)
	}
	sh := e.relay.shapeOf(e.proxy)
	if err := tryEgressFolder(sh.Egress, e.proxy.uid()); err != nil { // again: it is the operator's, and may have changed
		return nil, fmt.Errorf("egress: %w", err)
	}
	if err := tryApp(sh); err != nil {
		return nil, err
	}
	config, err := bootstrap(e.proxy, sh, e.xdsSocket, adminMode(e.proxy.as))
	if err != nil {
		return nil, err
	}
	file, err := child.MemoryFile("bootstrap of "+e.proxy.Name, config)
	if err != nil {
		return nil, fmt.Errorf("bootstrap of %s: %w", e.proxy.Name, err)
	}
	defer func() { _ = file.Close() }() // Envoy has its own
	output := child.Lines(func(line string) { e.line(ctx, line) })
	p, err := child.Start(child.Spec{
		Path: e.program,
		Args: []string{
			"--config-path", "/dev/fd/3", "--disable-hot-restart",
			// Said in the file already; here it tells one Envoy from another in ps.
			"--service-node", e.proxy.ref().String(),
			"--concurrency", strconv.Itoa(e.proxy.Concurrency),
			"--drain-time-s", strconv.Itoa(max(1, int(e.drainTime.Seconds()))),
			// Its own denials are told on standard error and looked up right away.
			"--file-flush-interval-msec", "100",
			"--log-level", "warning", "--log-format", "[%l] %n: %v",
		},
		Env: []string{"PATH=" + os.Getenv("PATH")}, Stdout: output, Stderr: output,
		Files: []*os.File{file}, User: e.proxy.as, Umask: envoyUmask,
		Begun: func(pidfd int) (func(), error) {
			remove, err := e.children.Add(pidfd, e.proxy.Name)
			return func() {
				remove()
				_ = output.Close() // an io.Pipe does not fail
			}, err
		},
	})
	if err != nil {
		return nil, errors.Join(err, output.Close())
	}
	return p, nil
}

// watch asks the admin interface how Envoy is, until ctx ends.
func (e *envoy) watch(ctx context.Context, v *proxyView) {
	wait := pollStarting
	for watched.Sleep(ctx, wait) {
		err := e.admin.ready(ctx)
		if ctx.Err() != nil {
			return
		}
		state := e.status.Load().state
		switch {
		case err == nil && state != api.ProxyStatus_READY:
			version, err := e.admin.version(ctx)
			if err != nil {
				e.log.DebugContext(ctx, "envoy version", slog.Any("err", err))
			}
			e.become(func(s *proxyStatus) { s.state, s.version, s.reason = api.ProxyStatus_READY, version, "" })
			e.log.InfoContext(ctx, "envoy ready", slog.String("version", version))
			wait = pollReady
		case err != nil && state == api.ProxyStatus_READY:
			e.become(func(s *proxyStatus) { s.state, s.reason = api.ProxyStatus_STARTING, err.Error() })
			wait = pollStarting
		}
		if err == nil {
			e.readBack(ctx, v)
			e.countKeyExchanges(ctx)
		}
	}
}

// readBack checks whether what Envoy serves is the newest SVID: that one was sent
// proves nothing.
func (e *envoy) readBack(ctx context.Context, v *proxyView) {
	s := e.relay.u.keeper.Get(v.want.Entry)
	if s == nil {
		return
	}
	serials, err := e.admin.serials(ctx, s.ID.String())
	if err != nil {
		return // it is asked again
	}
	match := 0.0
	if slices.Contains(serials, strings.TrimLeft(s.Serial(), "0")) {
		match = 1
	} else if time.Since(s.Issued) < pollReady {
		return // on its way
	}
	e.metrics.fingerprintMatch.WithLabelValues(e.proxy.Name).Set(match)
}

// stop drains Envoy and ends it. The report that it drains goes out meanwhile,
// so that others stop calling it before it stops answering. finish says whether it
// may be given longer than drainTime.
func (e *envoy) stop(ctx context.Context, p *child.Process, finish bool) {
	e.become(func(s *proxyStatus) { s.state = api.ProxyStatus_DRAINING })
	if err := e.admin.drain(ctx); err != nil {
		e.log.WarnContext(ctx, "envoy drain", slog.Any("err", err))
	} else {
		e.goOn(ctx, p.Done(), finish)
	}
	p.Stop(envoyGrace)
	e.log.InfoContext(ctx, "envoy stopped", slog.Int("pid", p.PID()))
}

// goOn waits for drainTime, in which callers learn to go elsewhere, and if finish
// says so, at most as long again, for the answers to what has begun meanwhile.
func (e *envoy) goOn(ctx context.Context, ended <-chan struct{}, finish bool) {
	begun := time.Now()
	t := time.NewTimer(e.drainTime)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ended:
			return
		}
		if !finish {
			return
		}
		n, err := e.admin.inFlight(ctx)
		switch {
		case err != nil:
			e.log.WarnContext(ctx, "envoy drain: what is in flight is not known", slog.Any("err", err))
			return
		case n == 0:
			return
		case time.Since(begun) >= 2*e.drainTime:
			e.log.WarnContext(ctx, "envoy is ended with requests in flight", slog.Int("requests", n))
			return
		}
		t.Reset(pollDraining)
	}
}

// envoyLine logs a line of Envoy's by the level that it begins with.
func envoyLine(ctx context.Context, log *slog.Logger, line string) {
	levels := map[string]slog.Level{
		"[error]": slog.LevelError, "[critical]": slog.LevelError, "[warning]": slog.LevelWarn, "[info]": slog.LevelInfo,
		"[debug]": slog.LevelDebug, "[trace]": slog.LevelDebug,
	}
	name, text, _ := strings.Cut(line, " ")
	if level, ok := levels[name]; ok {
		log.Log(ctx, level, text)
		return
	}
	log.InfoContext(ctx, line)
}
