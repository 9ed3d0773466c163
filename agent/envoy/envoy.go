package envoy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"signet.example/api"
	"signet.example/identity"
	"signet.example/internal/child"
	"signet.example/internal/retry"
	"signet.example/internal/sampled"
	"signet.example/internal/watched"
	"signet.example/proxy/answers"
)

const (
	// See retry.Policy.
	envoyRestartFirst = 100 * time.Millisecond
	envoyRestartMost  = 10 * time.Second
	envoySettled      = 10 * time.Second
	// Grace is what Envoy has to end after SIGTERM.
	Grace = 5 * time.Second
	// envoyUmask lets the group of a proxy's user read the access logs that it writes.
	envoyUmask = 0o027
	// pollStarting, pollReady and pollDraining are how often the admin interface is asked.
	pollStarting = 25 * time.Millisecond
	pollReady    = time.Second
	pollDraining = 50 * time.Millisecond
	// silence is the share of DrainTime without a call after which nobody is left who calls.
	silence = 5
)

// errUnbound ends an Envoy whose view is gone.
var errUnbound = errors.New("no binding lets it be a proxy here any more")

// known is what is known of one proxy. Immutable.
type known struct {
	state    api.ProxyStatus_State
	reason   string                // why it waits or failed
	waits    api.AgentFinding_Kind // what a wait for this reason is to `signet check`
	pid      int
	restarts int
	left     bool // told to stop, and its callers have gone elsewhere
	version  string
	failing  []uint32 // ports at which its application fails its health check, sorted
}

// envoy supervises the Envoy of one proxy. Its fields do not change; what does is
// safe for any number of goroutines.
type envoy struct {
	config   Config
	proxy    Proxy
	programs *programs
	log      *slog.Logger
	admin    *admin

	status watched.Value[known]
	// classical are its TLS handshakes that were not post-quantum.
	classical classical
	// unwritten is how often the Envoy that runs could not write to a file; owned by who looks at it.
	unwritten uint64
	// lost has it said once a minute that lines of access logs are lost.
	lost sampled.Budget
}

func newEnvoy(c Config, p Proxy, versions *programs) *envoy {
	e := &envoy{
		config: c, proxy: p, programs: versions, log: c.Log.With(slog.String("proxy", p.Name)), admin: newAdmin(p.Admin),
		lost: sampled.Budget{Most: 1, PerKey: 1, Window: time.Minute},
	}
	e.status.Set(known{state: api.ProxyStatus_WAITING})
	return e
}

// current is how the proxy is now.
func (e *envoy) current(now time.Time) Status {
	s := e.status.Load()
	return Status{
		Proxy: e.proxy, State: s.state, Reason: s.reason, Waits: s.waits, PID: s.pid, Restarts: s.restarts, Left: s.left, Version: s.version, Failing: s.failing,
		Findings: e.classical.findings(now, e.proxy.Name),
	}
}

// line takes one line of the proxy's standard error: an answer of its own, or its log. On
// standard output are access logs alone, in which meshes and callers have words of theirs.
func (e *envoy) line(ctx context.Context, line string) {
	l, ok := answers.ParseLine(line)
	if !ok {
		logLine(ctx, e.log, line)
		return
	}
	a := e.answered(l)
	e.config.Metrics.answered(e.proxy.Name, a.GetKind())
	e.config.Records.Record(a)
}

// accessLog takes one line of the proxy's standard output.
func (e *envoy) accessLog(ctx context.Context, line string) {
	if w := e.config.AccessLogs; w != nil {
		if _, err := io.WriteString(w, line+"\n"); err != nil { // its disk is full, or whoever reads it is gone
			e.logsLost(ctx, 1, err)
		}
		return
	}
	e.log.InfoContext(ctx, line)
}

// logsLost counts writes of access logs that failed, and says so once a minute: each call may have one.
func (e *envoy) logsLost(ctx context.Context, n uint64, why error) {
	e.config.Metrics.logsLost.WithLabelValues(e.proxy.Name).Add(float64(n))
	if ok, _ := e.lost.Take(time.Now(), ""); ok {
		e.log.ErrorContext(ctx, "lines of access logs are lost; signet_agent_access_log_writes_failed_total counts them", slog.Any("err", why))
	}
}

// become changes the status. What leaves it as it is, as each look of one that
// waits does, is told to nobody.
func (e *envoy) become(change func(*known)) {
	news := false
	e.status.Update(func(s known) known {
		before := s
		change(&s)
		news = !reflect.DeepEqual(s, before)
		return s
	})
	if !news {
		return
	}
	e.config.Changed()
	e.config.Metrics.ready(e.proxy.Name, e.status.Load().state == api.ProxyStatus_READY)
}

// Run keeps an Envoy running until ctx ends, then drains and stops it.
func (e *envoy) Run(ctx context.Context) {
	restart := retry.Tries{Policy: retry.Policy{First: envoyRestartFirst, Most: envoyRestartMost, Settled: envoySettled}}
	for {
		e.become(func(s *known) { s.state, s.pid = api.ProxyStatus_WAITING, 0 })
		v, release, ok := e.awaitView(ctx)
		if !ok {
			return
		}
		begun := time.Now()
		err := e.once(ctx, v)
		release()
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errUnbound) {
			continue // it is started again when it is bound again
		}
		pause := restart.Failed(time.Since(begun), nil)
		e.config.Metrics.restarted(e.proxy.Name)
		e.become(func(s *known) {
			s.state, s.pid, s.restarts, s.reason = api.ProxyStatus_BACKOFF, 0, s.restarts+1, err.Error()
		})
		e.log.ErrorContext(ctx, "envoy ended, restarting", slog.Any("err", err), slog.Duration("pause", pause))
		if !watched.Sleep(ctx, pause) {
			return
		}
	}
}

// awaitView waits until there is everything that Envoy needs: a binding, its
// identity, and a complete routing set. Envoy is not started before: it would
// listen on nothing, and look alive.
func (e *envoy) awaitView(ctx context.Context) (_ View, release func(), ok bool) {
	for {
		changed := e.config.Views.Changed()
		err := e.configure()
		var v View
		if err == nil {
			v, err = e.config.Views.For(ctx, e.proxy.Name, e.selectors())
		}
		if err != nil {
			e.explainWait(ctx, err, api.AgentFinding_PROXY_WAITING)
		} else {
			ready, published := v.Ready()
			if ready {
				if release, err = v.Claim(e.proxy.Name); err == nil {
					return v, release, true
				}
				e.explainWait(ctx, err, api.AgentFinding_PROXY_ADDRESS)
				if !watched.Sleep(ctx, time.Second) {
					return nil, nil, false
				}
				continue
			}
			e.explainWait(ctx, nil, api.AgentFinding_PROXY_WAITING)
			select {
			case <-published:
				continue
			case <-v.Gone():
				continue
			case <-ctx.Done():
				return nil, nil, false
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
			return nil, nil, false
		}
	}
}

func (e *envoy) explainWait(ctx context.Context, err error, kind api.AgentFinding_Kind) {
	reason := "for its identity and its routing"
	if err != nil {
		reason = err.Error()
	}
	if e.status.Load().reason != reason {
		e.become(func(s *known) { s.reason, s.waits = reason, kind })
		e.log.InfoContext(ctx, "envoy waits", slog.String("reason", reason))
	}
}

// configure gives the views what the proxy is, by its program as that is now: it may have been replaced
// since the last start. An error is why it cannot be started.
func (e *envoy) configure() error {
	path, err := exec.LookPath(e.config.Program)
	if err != nil {
		return fmt.Errorf("envoy: %w", err)
	}
	shape := e.proxy.Shape
	if shape.EnvoyVersion, err = e.programs.version(path, e.proxy.User); err != nil {
		return fmt.Errorf("envoy: %s: %w", path, err)
	}
	e.config.Views.Configure(e.proxy.Name, e.proxy.Ref, shape)
	return nil
}

// selectors are of what the proxy is given when it is started.
func (e *envoy) selectors() identity.Selectors {
	uid, gid := os.Geteuid(), os.Getegid()
	if u := e.proxy.User; u != nil {
		uid, gid = int(u.UID), int(u.GID)
	}
	return identity.Selectors{
		{Type: "unix", Value: "uid:" + strconv.Itoa(uid)},
		{Type: "unix", Value: "gid:" + strconv.Itoa(gid)},
		{Type: "signet", Value: "proxy:" + e.proxy.Name},
	}
}

// once runs one Envoy to its end, or to that of its binding.
func (e *envoy) once(ctx context.Context, v View) error {
	p, err := e.start(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(e.proxy.Admin) }() // Envoy leaves it; in the proxy's own folder, which may be closed to us
	e.classical.begin()
	e.unwritten = 0
	e.become(func(s *known) { s.state, s.pid, s.reason, s.failing = api.ProxyStatus_STARTING, p.PID(), "", nil })
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
		return fmt.Errorf("pid %d: %w", p.PID(), cmp.Or(p.Err(), child.ErrExited))
	case <-v.Gone():
		ended = errUnbound
	case <-ctx.Done():
	}
	cancel()
	<-done
	// Whose binding or standing was taken away gets no more time than drainTime.
	e.stop(context.WithoutCancel(ctx), p, ended == nil && !e.config.Revoked(context.Cause(ctx)))
	return ended
}

func (e *envoy) start(ctx context.Context) (*child.Process, error) {
	if err := adminFolder(filepath.Dir(e.config.XDSSocket), filepath.Dir(e.proxy.Admin), e.proxy.User); err != nil {
		return nil, fmt.Errorf("folder of the admin socket: %w", err)
	}
	if err := e.config.Check(e.proxy); err != nil { // again: folders are the operator's, and may have changed
		return nil, err
	}
	config, err := bootstrap(e.proxy, e.config.XDSSocket, adminMode(e.proxy.User), e.config.Heap)
	if err != nil {
		return nil, err
	}
	file, err := child.MemoryFile("bootstrap of "+e.proxy.Name, config)
	if err != nil {
		return nil, fmt.Errorf("bootstrap of %s: %w", e.proxy.Name, err)
	}
	defer func() { _ = file.Close() }() // Envoy has its own
	stderr := child.Lines(func(line string) { e.line(ctx, line) })
	stdout := child.Lines(func(line string) { e.accessLog(ctx, line) })
	closeOutput := func() error { return errors.Join(stdout.Close(), stderr.Close()) }
	p, err := child.Start(child.Spec{
		Path: e.config.Program,
		Args: []string{
			"--config-path", "/dev/fd/3", "--disable-hot-restart",
			// Said in the file already; here it tells one Envoy from another in ps.
			"--service-node", e.proxy.Ref.String(),
			"--concurrency", strconv.Itoa(e.proxy.Concurrency),
			"--drain-time-s", strconv.Itoa(max(1, int(e.config.DrainTime.Seconds()))),
			// Its own denials are told on standard error and looked up right away.
			"--file-flush-interval-msec", "100",
			"--log-level", "warning", "--log-format", "[%l] %n: %v",
		},
		Env: []string{"PATH=" + os.Getenv("PATH")}, Stdout: stdout, Stderr: stderr,
		Files: []*os.File{file}, User: e.proxy.User, Umask: envoyUmask,
		Begun: func(pidfd int) (func(), error) {
			remove, err := e.config.Children.Add(pidfd, e.proxy.Name)
			return func() {
				remove()
				_ = closeOutput() // an io.Pipe does not fail
			}, err
		},
	})
	if err != nil {
		return nil, errors.Join(err, closeOutput())
	}
	return p, nil
}

// watch asks the admin interface how Envoy is, until ctx ends.
func (e *envoy) watch(ctx context.Context, v View) {
	wait := pollStarting
	for watched.Sleep(ctx, wait) {
		err := e.admin.ready(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil { // before it is ready: its first report says at which ports it is to be called
			e.readHealth(ctx)
		}
		state, why := e.status.Load().state, e.config.Views.Refused(e.proxy.Name)
		switch {
		case why != "": // it may look alive, after a while without a configuration
			err = errors.New(why)
			e.explainRefusal(ctx, why)
		case err == nil && state != api.ProxyStatus_READY:
			version, err := e.admin.version(ctx)
			if err != nil {
				e.log.DebugContext(ctx, "envoy version", slog.Any("err", err))
			}
			e.become(func(s *known) { s.state, s.version, s.reason = api.ProxyStatus_READY, version, "" })
			e.log.InfoContext(ctx, "envoy ready", slog.String("version", version))
			wait = pollReady
		case err != nil && state == api.ProxyStatus_READY:
			e.become(func(s *known) { s.state, s.reason = api.ProxyStatus_STARTING, err.Error() })
			wait = pollStarting
		case state == api.ProxyStatus_WAITING:
			e.become(func(s *known) { s.state, s.reason = api.ProxyStatus_STARTING, "" })
		}
		if err == nil {
			e.readBack(ctx, v)
			e.readCounters(ctx)
		}
	}
}

// explainRefusal: the process is another one than its bindings are for, and waits for
// one that fits.
func (e *envoy) explainRefusal(ctx context.Context, why string) {
	if e.status.Load().reason != why {
		e.become(func(s *known) {
			s.state, s.reason, s.waits = api.ProxyStatus_WAITING, why, api.AgentFinding_PROXY_WAITING
		})
		e.log.WarnContext(ctx, "envoy is sent nothing", slog.String("reason", why))
	}
}

// readBack checks whether what Envoy serves is the newest SVID: that one was sent
// proves nothing.
func (e *envoy) readBack(ctx context.Context, v View) {
	s := v.SVID()
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
	e.config.Metrics.fingerprintMatch.WithLabelValues(e.proxy.Name).Set(match)
}

// stop drains Envoy and ends it. The report that it drains goes out meanwhile,
// so that others stop calling it before it stops answering. finish reports whether it
// may be given longer than drainTime.
func (e *envoy) stop(ctx context.Context, p *child.Process, finish bool) {
	begun := time.Now()
	e.become(func(s *known) { s.state = api.ProxyStatus_DRAINING })
	if err := e.admin.discourage(ctx); err != nil {
		e.log.WarnContext(ctx, "envoy drain", slog.Any("err", err))
	} else if e.goOn(p.Done()) && finish {
		e.awaitCallers(ctx, p.PID(), p.Done())
		e.awaitSilence(ctx, begun, p.Done())
		e.become(func(s *known) { s.left = true })
		e.answer(ctx, p.Done())
		e.outlive(ctx, begun, p.Done())
	}
	p.Stop(Grace)
	e.log.InfoContext(ctx, "envoy stopped", slog.Int("pid", p.PID()))
}

// goOn waits for DrainTime, in which callers learn to go elsewhere whom nobody asks
// whether they have: those outside of the mesh. It reports whether Envoy still runs.
func (e *envoy) goOn(ended <-chan struct{}) bool { return runsFor(e.config.DrainTime, ended) }

// runsFor waits for d, and reports whether Envoy has not ended meanwhile.
func runsFor(d time.Duration, ended <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ended:
		return false
	}
}

// awaitCallers waits until every proxy of the mesh that may call this one has taken its
// endpoint away (R11), at most as long as goOn has.
func (e *envoy) awaitCallers(ctx context.Context, pid int, ended <-chan struct{}) {
	t := time.NewTimer(e.config.DrainTime)
	defer t.Stop()
	for {
		gone, changed := e.config.Callers.Gone(e.proxy.Name, pid)
		if gone || changed == nil {
			return
		}
		select {
		case <-changed:
		case <-ended:
			return
		case <-t.C:
			e.log.WarnContext(ctx, "envoy drain: proxies that call it have not taken its endpoint away", slog.Duration("waited", 2*e.config.DrainTime))
			return
		}
	}
}

// awaitSilence goes on while callers outside of the mesh come, who go where a name leads and whom
// nobody can ask: until none has for a fifth of DrainTime, at most as long as awaitCallers has.
func (e *envoy) awaitSilence(ctx context.Context, begun time.Time, ended <-chan struct{}) {
	var came int
	var since time.Time
	called := false // while this looked
	for {
		now, err := e.admin.calls(ctx)
		switch {
		case err != nil:
			e.log.WarnContext(ctx, "envoy drain: whether it is called is not known", slog.Any("err", err))
			return
		case since.IsZero() || now != came:
			called = !since.IsZero()
			came, since = now, time.Now()
		case time.Since(since) >= e.config.DrainTime/silence:
			return
		}
		if time.Since(begun) >= 2*e.config.DrainTime {
			if called {
				e.log.WarnContext(ctx, "envoy drain: it is still called", slog.Duration("waited", 2*e.config.DrainTime))
			}
			return
		}
		if !runsFor(pollDraining, ended) {
			return
		}
	}
}

// answer takes no more connections, and waits until what is in flight is answered, none came
// since the last look, and connections of tcp have ended, for DrainRequests at most.
func (e *envoy) answer(ctx context.Context, ended <-chan struct{}) {
	if err := e.admin.shut(ctx); err != nil {
		e.log.WarnContext(ctx, "envoy drain: it goes on to listen", slog.Any("err", err))
	}
	came := -1
	for begun := time.Now(); ; {
		before := came
		open, err := e.admin.inFlight(ctx)
		if err == nil {
			came, err = e.admin.calls(ctx)
		}
		switch {
		case err != nil:
			e.log.WarnContext(ctx, "envoy drain: what is in flight is not known", slog.Any("err", err))
			return
		case open == flight{} && came == before:
			return
		case time.Since(begun) >= e.config.DrainRequests:
			e.log.WarnContext(ctx, "envoy is ended with requests in flight, or connections open", slog.Int("requests", open.requests), slog.Int("connections", open.connections))
			return
		}
		if !runsFor(pollDraining, ended) {
			return
		}
	}
}

// outlive goes on while the application is there: it listens, or has connections to the way
// out. Whether it has ended is not to be seen in another way from another container.
func (e *envoy) outlive(ctx context.Context, begun time.Time, ended <-chan struct{}) {
	for time.Since(begun) < e.config.Outlive {
		if e.config.Early() {
			begun = time.Now()
		}
		calling, err := e.admin.callingOut(ctx)
		if err != nil {
			e.log.WarnContext(ctx, "envoy drain: whether the application calls out is not known", slog.Any("err", err))
			return
		}
		if calling == 0 && !e.config.Applications(e.proxy) {
			return
		}
		if !runsFor(pollDraining, ended) {
			return
		}
	}
	if e.config.Outlive > 0 {
		e.log.WarnContext(ctx, "envoy is ended while its application is there", slog.Duration("waited", e.config.Outlive))
	}
}

// logLine logs a line of Envoy's by the level that it begins with.
func logLine(ctx context.Context, log *slog.Logger, line string) {
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
