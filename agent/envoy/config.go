package envoy

import (
	"context"
	"io"
	"log/slog"
	"time"

	"signet.example/agent/svids"
	"signet.example/api"
	"signet.example/identity"
	"signet.example/internal/child"
	"signet.example/internal/private"
	"signet.example/proxy"
)

// Config is what the Envoys of a host share. Every field is needed, except for those of a task.
type Config struct {
	// Program is Envoy, by path or by a name in PATH.
	Program string
	// DrainTime is how long a proxy goes on that is to stop, and at most as long again
	// while a caller may have learned of that not yet. DrainRequests is how long, after
	// that, it may take to answer what is in flight.
	DrainTime, DrainRequests time.Duration
	// Outlive is how long after it was told to stop a proxy goes on while its application is
	// there, whose calls go out by it. In a task both are told at once; 0 elsewhere.
	Outlive time.Duration
	// Early reports whether its application has longer than the proxy, as it is stopped before the
	// proxy's container: Outlive counts from the end of that. Needed with Outlive.
	Early func() bool
	// Applications reports whether the application behind a proxy listens. Needed with Outlive.
	Applications func(Proxy) bool
	// AccessLogs takes what proxies write on their standard output, which is access logs
	// alone; nil is the log.
	AccessLogs io.Writer
	// Heap is what a proxy may have in memory, in bytes; 0 for what is enough for any node.
	Heap uint64
	// XDSSocket is where a proxy gets its configuration.
	XDSSocket string

	Views    Views
	Children Children
	Records  Records
	Callers  Callers
	// Check looks, before each start, at what of a proxy the operator may have changed
	// since the configuration was read. Its error is why the proxy does not start.
	Check func(Proxy) error
	// Revoked reports whether a context ended, by its cause, because the host may be
	// here no longer: no proxy then gets more time than DrainTime.
	Revoked func(cause error) bool
	// Read, where a proxy is to be read by others, has them do so until ctx ends, as long as the proxy is
	// run or waits to be: get asks its admin interface. nil where none is.
	Read func(ctx context.Context, p Proxy, get func(ctx context.Context, path string) (status int, body []byte, err error))
	// Changed is called with every change of a Status.
	Changed func()
	Metrics *Metrics
	Log     *slog.Logger
}

// Proxy is one Envoy that is to run.
type Proxy struct {
	// Name is the proxy's own; two that run at a time have different ones.
	Name string
	// Ref is what it runs for.
	Ref   proxy.Ref
	Shape proxy.Shape
	// Admin is the Unix socket of its admin interface.
	Admin string
	// ReadOnly is where others may read of it; "" for nowhere.
	ReadOnly string
	// Concurrency is the number of its workers.
	Concurrency int
	// User whom it runs as; nil is our own.
	User *child.User
}

// UID is the user that the proxy runs as.
func (p Proxy) UID() uint32 {
	if p.User != nil {
		return p.User.UID
	}
	return private.Self()
}

// Views are what proxies are sent. Each method is called from several goroutines.
type Views interface {
	// Configure says what a proxy is that is about to run, whatever it says of itself; again
	// before each start, for its program may be another by then.
	Configure(name string, ref proxy.Ref, shape proxy.Shape)
	// Unconfigure takes that back: the proxy has ended.
	Unconfigure(name string)
	// For returns the view of a configured proxy, by the selectors of what it is given
	// when it is started. An error says why there is none, for people to read.
	For(ctx context.Context, name string, has identity.Selectors) (View, error)
	// Refused is why a proxy that runs is sent nothing, by what its process was attested
	// to be; "" where it is sent something, or has not asked.
	Refused(name string) string
	// Changed returns a channel that is closed when For may have another answer than
	// the calls of it that come after this one.
	Changed() <-chan struct{}
}

// View is what one proxy is sent: by one binding, in one shape.
type View interface {
	// Ready reports whether there is something to send, and returns a channel that is
	// closed when that may have changed.
	Ready() (bool, <-chan struct{})
	// Claim has the proxy listen where the view says, from now until release is called;
	// an error names who listens there.
	Claim(name string) (release func(), err error)
	// Gone is closed when the view is taken away; the proxy has to end.
	Gone() <-chan struct{}
	// SVID is the newest one that is sent, nil where none is good.
	SVID() *svids.SVID
}

// Children is told which processes are the proxies, so that they are known by more
// than by their user and program.
type Children interface {
	// Add notes a process before it runs; remove is called when it has ended.
	Add(pidfd int, name string) (remove func(), err error)
}

// Records keeps what proxies answered by themselves.
type Records interface {
	// Destination is the SPIFFE ID of what a proxy runs for, "" where that is not known.
	Destination(ref proxy.Ref) string
	// Record takes the record of an answer.
	Record(d *api.Decision)
}

// Callers are those who call our proxies. Its method is called from many goroutines.
type Callers interface {
	// Gone reports whether all callers of a draining proxy, by its name and process, have
	// learned that it goes, and returns a channel that is closed when that may have
	// changed; the channel is nil where nobody would tell.
	Gone(proxy string, pid int) (bool, <-chan struct{})
}

// Status is how one proxy is at one moment.
type Status struct {
	Proxy    Proxy
	State    api.ProxyStatus_State
	Reason   string                // why it waits or failed
	Waits    api.AgentFinding_Kind // what its wait is to `signet check`
	PID      int                   // 0 while it does not run
	Restarts int
	// Left is set when it was told to stop and its callers have gone elsewhere.
	Left    bool
	Version string // of Envoy
	// Failing are the ports, sorted, at which its application fails its health check.
	Failing []uint32
	// Findings are for `signet check`.
	Findings []*api.AgentFinding
}
