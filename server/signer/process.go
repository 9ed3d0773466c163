package signer

import (
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
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"signet.example/api"
	"signet.example/internal/child"
	"signet.example/internal/retry"
	"signet.example/internal/unixsock"
	"signet.example/internal/watched"
)

// restarting is how a signer that ended is started again.
var restarting = retry.Policy{First: 100 * time.Millisecond, Most: 5 * time.Second, Settled: 10 * time.Second}

const (
	// firstAnswer bounds the time from start to the first answer: a long log
	// is read whole.
	firstAnswer = 2 * time.Minute
	// stopGrace is how long Close waits before it kills.
	stopGrace = 5 * time.Second
)

// Options is what Start may be told.
type Options struct {
	// Log is where starts and ends are written; nothing if nil.
	Log *slog.Logger
	// Stderr takes what the process writes; nothing if nil.
	Stderr io.Writer
}

// Process is the running signer, restarted when it dies. Its methods may be
// called from any number of goroutines.
type Process struct {
	exe    string
	args   []string
	log    *slog.Logger
	stderr io.Writer

	link     atomic.Pointer[link]
	pid      atomic.Int64
	restarts atomic.Int64
	stop     context.CancelFunc
	done     chan struct{} // closed when supervise has ended
}

// link is the connection to the process that runs now, or why there is none.
type link struct {
	conn *grpc.ClientConn
	down string
}

// Start runs exe with args as the signer process, its socket as file
// descriptor 3, and returns when it has answered for the first time. ctx bounds
// this wait alone: the process lives until Close.
func Start(ctx context.Context, exe string, args []string, opts Options) (*Process, error) {
	p := &Process{exe: exe, args: args, log: opts.Log, stderr: opts.Stderr, done: make(chan struct{})}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.stderr == nil {
		p.stderr = io.Discard
	}
	p.link.Store(&link{down: "the signer is starting"})
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
func (p *Process) Client() *Client { return NewClient(calls{p}) }

// PID of the process that was started last.
func (p *Process) PID() int { return int(p.pid.Load()) }

// Restarts counts how often the process had to be started again.
func (p *Process) Restarts() int { return int(p.restarts.Load()) }

// Close ends the process, and waits for it.
func (p *Process) Close() error {
	p.stop()
	<-p.done
	return nil
}

// supervise keeps a signer running until ctx ends.
func (p *Process) supervise(ctx context.Context, running *instance) {
	defer close(p.done)
	for tries := (retry.Tries{Policy: restarting}); ; {
		var lived time.Duration
		if running != nil {
			if running.run(ctx, p); ctx.Err() != nil {
				return
			}
			lived = time.Since(running.started)
		}
		if !watched.Sleep(ctx, tries.Failed(lived, nil)) {
			return
		}
		p.restarts.Add(1)
		var err error
		if running, err = p.spawn(ctx); err != nil {
			p.down(ctx, err)
		}
	}
}

// down states why calls fail from now on.
func (p *Process) down(ctx context.Context, err error) {
	if ctx.Err() != nil {
		p.link.Store(&link{down: "the server is stopping"})
		return
	}
	p.log.ErrorContext(ctx, "the signer is down and will be started again", slog.Any("err", err))
	p.link.Store(&link{down: fmt.Sprintf("the signer is down and being started again: %v", err)})
}

// instance is one process.
type instance struct {
	process *child.Process

	conn    *grpc.ClientConn
	started time.Time
	tail    *child.Tail
}

// spawn starts a process and waits for its first answer; only then calls go to it.
func (p *Process) spawn(ctx context.Context) (*instance, error) {
	ours, theirs, err := unixsock.Pair(unix.SOCK_STREAM, "signer")
	if err != nil {
		return nil, fmt.Errorf("make the signer's socket: %w", err)
	}
	defer func() { _ = theirs.Close() }() // the child has its own
	c := &instance{started: time.Now(), tail: child.NewTail(p.stderr)}
	if c.conn, err = clientOf(ours); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	// The end of ctx does not end it but closes the socket, so that a signer
	// finishes what it is writing.
	c.process, err = child.Start(child.Spec{
		Path: p.exe, Args: p.args, Confines: true, Env: child.OwnEnv(),
		Files:  []*os.File{theirs}, // becomes child.FirstFile
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
	p.pid.Store(int64(c.process.PID()))
	p.link.Store(&link{conn: c.conn})
	p.log.InfoContext(ctx, "signer started", slog.Int("pid", c.process.PID()))
	return c, nil
}

// ready waits for the first answer.
func (c *instance) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, firstAnswer)
	defer cancel()
	answered := make(chan error, 1)
	go func() {
		_, err := NewClient(c.conn).Authority(ctx, &api.AuthorityRequest{})
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
	case <-c.process.Done():
		cancel()
		<-answered //nolint:errcheck // the child's own end says more
		return c.failure()
	}
}

func (c *instance) failure() error {
	how := "it closed its socket"
	select {
	case <-c.process.Done():
		if err := c.process.Err(); err != nil {
			how = err.Error()
		}
	default:
	}
	if said := c.tail.Text(); said != "" {
		how += ": " + said
	}
	return fmt.Errorf("the signer ended: %s", how)
}

// run waits until the process ends or ctx does, and cleans up after it.
func (c *instance) run(ctx context.Context, p *Process) {
	select {
	case <-c.process.Done():
	case <-ctx.Done():
	}
	p.down(ctx, c.failure()) // first, so that no call meets a connection that we close
	c.end()
}

// end closes the socket, which ends the process, and waits for it; one that does
// not go is killed.
func (c *instance) end() {
	_ = c.conn.Close() // closed is what it must be
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-c.process.Done():
	case <-timer.C:
		c.process.Stop(0)
	}
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
		grpc.WithConnectParams(restarting.Connect(firstAnswer)),
		grpc.WithIdleTimeout(0), // an idle connection that closes would end the signer
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
	)
}

// calls sends each call to the process that runs now.
type calls struct{ p *Process }

// Invoke implements grpc.ClientConnInterface.
func (c calls) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	now := c.p.link.Load()
	if now.conn == nil {
		return status.Error(codes.Unavailable, now.down)
	}
	return during(ctx, now.conn.Invoke(ctx, method, args, reply, opts...))
}

// NewStream implements grpc.ClientConnInterface.
func (c calls) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	now := c.p.link.Load()
	if now.conn == nil {
		return nil, status.Error(codes.Unavailable, now.down)
	}
	s, err := now.conn.NewStream(ctx, desc, method, opts...)
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
