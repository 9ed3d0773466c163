package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/internal/child"
)

const (
	// signerBackoff to signerBackoffMax is how long the server waits before it
	// starts a signer again; one that ran for signerSteady begins anew.
	signerBackoff    = 100 * time.Millisecond
	signerBackoffMax = 5 * time.Second
	signerSteady     = 10 * time.Second
	// signerReady bounds the time from start to the first answer: a long log
	// is read whole.
	signerReady = 2 * time.Minute
	// signerStop is how long Close waits before it kills.
	signerStop = 5 * time.Second
)

// SignerOptions is what StartSigner may be told.
type SignerOptions struct {
	// Log is where starts and ends are written; nothing if nil.
	Log *slog.Logger
	// Stderr takes what the process writes; nothing if nil.
	Stderr io.Writer
}

// SignerProcess is the running signer, restarted when it dies. Its methods may be
// called from any number of goroutines.
type SignerProcess struct {
	exe    string
	args   []string
	log    *slog.Logger
	stderr io.Writer

	link     atomic.Pointer[signerLink]
	pid      atomic.Int64
	restarts atomic.Int64
	stop     context.CancelFunc
	done     chan struct{} // closed when supervise has ended
}

// signerLink is the connection to the process that runs now, or why there is none.
type signerLink struct {
	conn *grpc.ClientConn
	down string
}

// StartSigner runs exe with args as the signer process, its socket as file
// descriptor 3, and returns when it has answered for the first time. ctx bounds
// this wait alone: the process lives until Close.
func StartSigner(ctx context.Context, exe string, args []string, opts SignerOptions) (*SignerProcess, error) {
	p := &SignerProcess{exe: exe, args: args, log: opts.Log, stderr: opts.Stderr, done: make(chan struct{})}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.stderr == nil {
		p.stderr = io.Discard
	}
	p.link.Store(&signerLink{down: "the signer is starting"})
	running, err := p.spawn(ctx)
	if err != nil {
		return nil, err
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stop = stop
	go p.supervise(life, running)
	return p, nil
}

// Client speaks to the signer that runs now. While there is none, its calls fail
// at once with Unavailable and the reason.
func (p *SignerProcess) Client() api.SignerClient { return api.NewSignerClient(signerConn{p}) }

// PID of the process that was started last.
func (p *SignerProcess) PID() int { return int(p.pid.Load()) }

// Restarts counts how often the process had to be started again.
func (p *SignerProcess) Restarts() int { return int(p.restarts.Load()) }

// Close ends the process, and waits for it.
func (p *SignerProcess) Close() error {
	p.stop()
	<-p.done
	return nil
}

// supervise keeps a signer running until ctx ends.
func (p *SignerProcess) supervise(ctx context.Context, running *signerChild) {
	defer close(p.done)
	for wait := signerBackoff; ; {
		if running != nil {
			if running.run(ctx, p); ctx.Err() != nil {
				return
			}
			if time.Since(running.started) >= signerSteady {
				wait = signerBackoff
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		wait = min(2*wait, signerBackoffMax)
		p.restarts.Add(1)
		var err error
		if running, err = p.spawn(ctx); err != nil {
			p.down(ctx, err)
		}
	}
}

// down says why calls fail from now on.
func (p *SignerProcess) down(ctx context.Context, err error) {
	if ctx.Err() != nil {
		p.link.Store(&signerLink{down: "the server is stopping"})
		return
	}
	p.log.ErrorContext(ctx, "the signer is down and will be started again", slog.Any("err", err))
	p.link.Store(&signerLink{down: fmt.Sprintf("the signer is down and being started again: %v", err)})
}

// signerChild is one process.
type signerChild struct {
	*child.Process

	conn    *grpc.ClientConn
	started time.Time
	tail    *tail
}

// spawn starts a process and waits for its first answer; only then calls go to it.
func (p *SignerProcess) spawn(ctx context.Context) (*signerChild, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("make the signer's socket: %w", err)
	}
	defer func() { _ = theirs.Close() }() // the child has its own
	c := &signerChild{started: time.Now(), tail: &tail{to: p.stderr}}
	if c.conn, err = clientOf(ours); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	// The end of ctx does not end it but closes the socket, so that a signer
	// finishes what it is writing.
	c.Process, err = child.Start(child.Spec{
		Path: p.exe, Args: p.args, Confines: true, Env: child.OwnEnv(),
		Files:  []*os.File{theirs}, // becomes signerFD
		Stdout: c.tail, Stderr: c.tail,
	})
	if err != nil {
		return nil, fmt.Errorf("the signer: %w", errors.Join(err, c.conn.Close(), ours.Close()))
	}
	if err := c.ready(ctx); err != nil {
		c.end()
		_ = ours.Close() // where nothing was ever sent, gRPC has not taken it over
		return nil, err
	}
	p.pid.Store(int64(c.PID()))
	p.link.Store(&signerLink{conn: c.conn})
	p.log.InfoContext(ctx, "signer started", slog.Int("pid", c.PID()))
	return c, nil
}

// ready waits for the first answer.
func (c *signerChild) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, signerReady)
	defer cancel()
	answered := make(chan error, 1)
	go func() {
		_, err := api.NewSignerClient(c.conn).Authority(ctx, &api.AuthorityRequest{})
		answered <- err
	}()
	select {
	case err := <-answered:
		if err == nil {
			return nil
		}
		if status.Code(err) == codes.Unavailable { // it ended: say how
			c.end()
			return c.failure()
		}
		return fmt.Errorf("the signer does not answer: %w", err)
	case <-c.Done():
		cancel()
		<-answered //nolint:errcheck // the child's own end says more
		return c.failure()
	}
}

func (c *signerChild) failure() error {
	how := "it closed its socket"
	select {
	case <-c.Done():
		if err := c.Err(); err != nil {
			how = err.Error()
		}
	default:
	}
	if said := c.tail.text(); said != "" {
		how += ": " + said
	}
	return fmt.Errorf("the signer ended: %s", how)
}

// run waits until the process ends or ctx does, and cleans up after it.
func (c *signerChild) run(ctx context.Context, p *SignerProcess) {
	select {
	case <-c.Done():
	case <-ctx.Done():
	}
	p.down(ctx, c.failure()) // first, so that no call meets a connection that we close
	c.end()
}

// end closes the socket, which ends the process, and waits for it; one that does
// not go is killed.
func (c *signerChild) end() {
	_ = c.conn.Close() // closed is what it must be
	timer := time.NewTimer(signerStop)
	defer timer.Stop()
	select {
	case <-c.Done():
	case <-timer.C:
		c.Stop(0)
	}
}

// socketPair returns our end and the child's.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "signer"), os.NewFile(uintptr(fds[1]), "signer")
	conn, err := net.FileConn(ours)
	if err := errors.Join(err, ours.Close()); err != nil { // conn has its own
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return conn, theirs, nil
}

// clientOf makes a client of one connection that is there already.
func clientOf(conn net.Conn) (*grpc.ClientConn, error) {
	var once sync.Once
	return grpc.NewClient("passthrough:///signer",
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a socketpair has no third party
		grpc.WithContextDialer(func(context.Context, string) (c net.Conn, err error) {
			err = errors.New("the signer's socket is closed")
			once.Do(func() { c, err = conn, nil })
			return c, err
		}),
		// The signer's first byte comes when it has read its log; there is no second socket to try.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: signerReady}),
		grpc.WithIdleTimeout(0), // an idle connection that closes would end the signer
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(signerMessage), grpc.MaxCallSendMsgSize(signerMessage)),
	)
}

// signerConn sends each call to the process that runs now.
type signerConn struct{ p *SignerProcess }

// Invoke implements grpc.ClientConnInterface.
func (c signerConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	link := c.p.link.Load()
	if link.conn == nil {
		return status.Error(codes.Unavailable, link.down)
	}
	return during(ctx, link.conn.Invoke(ctx, method, args, reply, opts...))
}

// NewStream implements grpc.ClientConnInterface.
func (c signerConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	link := c.p.link.Load()
	if link.conn == nil {
		return nil, status.Error(codes.Unavailable, link.down)
	}
	s, err := link.conn.NewStream(ctx, desc, method, opts...)
	return s, during(ctx, err)
}

// during names what a lost connection means here. What was asked for may have
// been signed and recorded; it was not answered.
func during(ctx context.Context, err error) error {
	code := status.Code(err)
	if code == codes.Unavailable || (code == codes.Canceled && ctx.Err() == nil) { // the latter: we closed it
		return status.Errorf(codes.Unavailable, "the signer ended during the call: %s", status.Convert(err).Message())
	}
	return err
}

// tail passes on what a process writes and keeps the end of it for an error.
type tail struct {
	to   io.Writer
	mu   sync.Mutex
	last []byte
}

// Write never fails: a full log must not stop the signer.
func (t *tail) Write(b []byte) (int, error) {
	const most = 2 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = t.to.Write(b) // see above
	t.last = append(t.last, b...)
	if n := len(t.last); n > most {
		t.last = bytes.Clone(t.last[n-most:])
	}
	return len(b), nil
}

// text is what was written last, on one line.
func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.Join(bytes.Fields(t.last), []byte(" ")))
}
